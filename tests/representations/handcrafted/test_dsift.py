"""Dense SIFT against VLFeat, the authors' code and calculus; test_hog.py says how vlfeat_crop.npz was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.alike import assert_alike_in_any_order
from helpers.paths import SHARED
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.handcrafted.dsift import DSIFT

GOLD = SHARED / "gold"
CROP = np.load(Path(__file__).parent / "vlfeat_crop.npz")
VARIANTS = ["vlfeat", "cvpr15"]


def gold(name: str) -> np.lib.npyio.NpzFile:
    if not (GOLD / name).exists():
        pytest.skip(f"{GOLD / name} is absent")
    return np.load(GOLD / name)


def relative(code: Tensor | np.ndarray, reference: np.ndarray) -> float:
    code = np.asarray(code, np.float64)
    assert code.shape == reference.shape
    return float(np.linalg.norm(code - reference) / np.linalg.norm(reference))


def listed(code: Tensor) -> np.ndarray:
    """(1, 128, rows, columns) → (rows · columns, 128), the order of VLFeat's frames."""
    return code.detach()[0].flatten(1).T.numpy()


def photo(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(1, 1, *size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(phi: DSIFT, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    (code,) = phi(images)
    code.sin().sum().backward()
    assert images.grad is not None
    return code.detach(), images.grad


@pytest.mark.parametrize(("step", "bin", "suffix"), [(3, 5, ""), (4, 3, "_4_3")])
def test_equals_vlfeat_on_the_crop(step: int, bin: int, suffix: str) -> None:
    gray = CROP["rgb8"][..., 1].astype(np.float32) / np.float32(255)
    (code,) = DSIFT(step=step, bin=bin)(torch.from_numpy(gray)[None, None])
    assert relative(listed(code), CROP["dsift" + suffix] / 512) < 2e-5


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
def test_equals_vlfeat(name: str) -> None:
    arrays = gold("vlfeat.npz")
    (code,) = DSIFT()(torch.from_numpy(arrays[f"{name}/gray"])[None, None])
    assert relative(listed(code), arrays[f"{name}/dsift"] / 512) < 2e-5
    rows, columns = (len(np.unique(arrays[f"{name}/frames"][:, axis])) for axis in (0, 1))
    assert code.shape == (1, 128, rows, columns)


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_equals_the_authors_network(name: str) -> None:
    arrays = gold("authors.npz")
    (code,) = DSIFT(variant="cvpr15")(torch.from_numpy(arrays[f"{name}/gray"])[None, None] / 255)
    assert relative(code[0].permute(1, 2, 0), arrays[f"{name}/dsift/code"]) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_equals_the_authors(dtype: torch.dtype) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in gold("authors.npz").items() if key.startswith("gradient")}
    image = ((arrays["gradient/dsift/image"].to(dtype)[None, None] + 128) / 255).requires_grad_()
    (code,) = DSIFT(variant="cvpr15")(image)
    weight = arrays["gradient/dsift/code_gradient"].to(dtype).permute(2, 0, 1)[None]
    (gradient,) = torch.autograd.grad(code, image, weight)
    assert relative(code.detach()[0].permute(1, 2, 0), arrays["gradient/dsift/code"].numpy()) < 1e-4
    assert relative(gradient[0, 0] / 255, arrays["gradient/dsift/image_gradient"].numpy()) < 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck(variant: str) -> None:
    phi = DSIFT(step=1, bin=2, variant=variant)
    image = photo(13, 12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: phi(x)[0], (image,), fast_mode=True)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_images_give_no_nan(variant: str, dtype: torch.dtype) -> None:
    images = photo(44, 41, dtype=dtype).repeat(6, 1, 1, 1)
    images[0], images[1], images[2, :, :36] = 0, 1, 0.5
    images[3] *= 1e-20
    images[4] = torch.linspace(0, 1, 41, dtype=dtype)
    images[5] = torch.linspace(0, 1, 44, dtype=dtype)[:, None]
    code, gradient = value_and_gradient(DSIFT(variant=variant), images)
    assert torch.isfinite(code).all() and torch.isfinite(gradient).all()
    if variant == "vlfeat":
        assert not code[:2].any() and not gradient[:2].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_a_batch_do_not_meet(variant: str) -> None:
    phi = DSIFT(variant=variant)
    for size in ((37, 41), (64, 75)):
        images = photo(4 * size[0], size[1]).reshape(4, 1, *size)
        images[3, :, :20] = 0.5
        assert_alike_in_any_order(lambda order, images=images: value_and_gradient(phi, images[order]), 4)
        double = images.double()
        for alone, among in zip(value_and_gradient(phi, double[2:3]), value_and_gradient(phi, double), strict=True):
            torch.testing.assert_close(alone[0], among[2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("height", "width", "step", "bin"), [(33, 47, 3, 5), (16, 20, 3, 5), (41, 40, 7, 3)])
def test_shapes(height: int, width: int, step: int, bin: int) -> None:
    (code,) = DSIFT(step=step, bin=bin)(photo(height, width))
    assert code.shape == (1, 128, (height - 1 - 3 * bin) // step + 1, (width - 1 - 3 * bin) // step + 1)


def test_the_authors_grid() -> None:
    # paper.md §3: 333×500 at 5-pixel bins
    assert DSIFT(variant="cvpr15")(photo(333, 500))[0].shape == (1, 128, 21, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0}, "step"),
        ({"step": 1.5}, "step"),
        ({"bin": -1}, "bin"),
        ({"bin": "5"}, "bin"),
        ({"variant": "cvpr"}, "cvpr15"),
    ],
)
def test_bad_arguments(options: dict, words: str) -> None:
    with pytest.raises(InvrepError, match=words):
        DSIFT(**options)


@pytest.mark.parametrize(("options", "least"), [({}, 16), ({"bin": 4}, 13), ({"variant": "cvpr15"}, 27)])
def test_too_small_an_image_names_the_smallest(options: dict, least: int) -> None:
    assert DSIFT(**options)(photo(least, least))[0].shape == (1, 128, 1, 1)
    with pytest.raises(InvrepError, match=f"at least {least}×{least}"):
        DSIFT(**options)(photo(least - 1, 50))


def test_grey_or_rgb_only() -> None:
    with pytest.raises(InvrepError, match="batch, 1 or 3,"):
        DSIFT()(torch.rand(1, 2, 40, 40))
