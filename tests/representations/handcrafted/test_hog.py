"""HOG against VLFeat, the authors' code and calculus.

``vlfeat_crop.npz`` (also read by test_dsift.py) was made from scikit-image's chelsea with cyvlfeat 0.7.1:

    rgb8 = skimage.data.chelsea()[100:143, 130:181]
    rgb = rgb8.astype(np.float32) / np.float32(255)
    gray = np.ascontiguousarray(rgb[..., 1])
    _, sift = dsift(gray, step=3, size=5, fast=False, float_descriptors=True)
    _, sift_4_3 = dsift(gray, step=4, size=3, fast=False, float_descriptors=True)
    np.savez_compressed("vlfeat_crop.npz", rgb8=rgb8, hog=hog(rgb, 8), hogb=hog(rgb, 8, bilinear_interpolation=True),
        hog_5_6=hog(rgb, 5, n_orientations=6), hogb_5_6=hog(rgb, 5, n_orientations=6, bilinear_interpolation=True),
        dsift=sift, dsift_4_3=sift_4_3)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.alike import assert_alike_in_any_order
from helpers.paths import SHARED
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.handcrafted import oriented_gradients
from invrep.representations.handcrafted.hog import HOG, _vlfeat_weights
from invrep.representations.handcrafted.orientation_votes import linear_votes
from invrep.representations.handcrafted.oriented_gradients import Vote, rows_of
from invrep.representations.surrogate import Surrogate

GOLD = SHARED / "gold"
CROP = np.load(Path(__file__).parent / "vlfeat_crop.npz")
VARIANTS = [
    {"variant": variant, "binning": binning} for variant in ("vlfeat", "cvpr15") for binning in ("hard", "bilinear")
]


def gold(name: str) -> np.lib.npyio.NpzFile:
    if not (GOLD / name).exists():
        pytest.skip(f"{GOLD / name} is absent")
    return np.load(GOLD / name)


def image_of(array: np.ndarray) -> Tensor:
    """(H, W, C) or (H, W) → (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(array).transpose(2, 0, 1)))[None]


def relative(code: Tensor, reference: np.ndarray) -> float:
    """Relative L2 error of (1, C, h, w) against (h, w, C)."""
    code = code.detach()[0].permute(1, 2, 0).numpy().astype(np.float64)
    assert code.shape == reference.shape
    return float(np.linalg.norm(code - reference) / np.linalg.norm(reference))


def photo(channels: int, *size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(1, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(phi: Callable[[Tensor], list[Tensor]], images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    (code,) = phi(images)
    code.sin().sum().backward()
    assert images.grad is not None
    return code.detach(), images.grad


@pytest.mark.parametrize("binning", ["hard", "bilinear"])
@pytest.mark.parametrize(("cell", "orientations", "suffix"), [(8, 9, ""), (5, 6, "_5_6")])
def test_equals_vlfeat_on_the_crop(binning: str, cell: int, orientations: int, suffix: str) -> None:
    rgb = CROP["rgb8"].astype(np.float32) / np.float32(255)
    phi = HOG(binning=binning, cell=cell, orientations=orientations)
    reference = CROP[("hog" if binning == "hard" else "hogb") + suffix]
    assert relative(phi(image_of(rgb))[0], reference) < 5e-5


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize("binning", ["hard", "bilinear"])
def test_equals_vlfeat(name: str, binning: str) -> None:
    arrays = gold("vlfeat.npz")
    reference = arrays[f"{name}/{'hog' if binning == 'hard' else 'hogb'}"]
    assert relative(HOG(binning=binning)(image_of(arrays[f"{name}/rgb"]))[0], reference) < 5e-5


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
@pytest.mark.parametrize("binning", ["hard", "bilinear"])
def test_equals_the_authors_network(name: str, binning: str) -> None:
    arrays = gold("authors.npz")
    phi = HOG(variant="cvpr15", binning=binning)
    image = image_of(arrays[f"{name}/gray"]) / 255
    assert relative(phi(image)[0], arrays[f"{name}/{'hog' if binning == 'hard' else 'hogb'}/code"]) < 1e-4


@pytest.mark.parametrize(
    ("binning", "dtype", "tolerance"),
    [
        ("hard", torch.float32, 1e-6),
        ("hard", torch.float64, 1e-6),
        ("bilinear", torch.float32, 5e-3),
        ("bilinear", torch.float64, 5e-3),
    ],
)
def test_gradient_equals_the_authors(binning: str, dtype: torch.dtype, tolerance: float) -> None:
    arrays, rep = gold("authors.npz"), "hog" if binning == "hard" else "hogb"
    image = ((image_of(arrays[f"gradient/{rep}/image"]).to(dtype) + 128) / 255).requires_grad_()
    (code,) = HOG(variant="cvpr15", binning=binning)(image)
    (gradient,) = torch.autograd.grad(code, image, image_of(arrays[f"gradient/{rep}/code_gradient"]).to(dtype))
    assert relative(code, arrays[f"gradient/{rep}/code"]) < 1e-4
    assert relative(gradient / 255, arrays[f"gradient/{rep}/image_gradient"][..., None]) < tolerance


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(options: dict[str, str], channels: int) -> None:
    phi = HOG(cell=4, **options)
    if channels not in phi.channels:
        pytest.skip("grey only")
    image = photo(channels, 11, 10, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: phi(x)[0], (image,), fast_mode=True)


@pytest.mark.parametrize("variant", ["vlfeat", "cvpr15"])
def test_straight_through_has_the_hard_value_and_the_bilinear_gradient(variant: str) -> None:
    image = photo(1, 40, 48, dtype=torch.float64).requires_grad_()
    hard, bilinear = HOG(variant=variant), HOG(variant=variant, binning="bilinear")
    expected, plain = value_and_gradient(hard, image.detach())
    value, through = value_and_gradient(partial(hard, surrogate=Surrogate()), image.detach())
    assert torch.equal(value, expected)
    smooth = value_and_gradient(bilinear, image.detach())[1]

    def cosine(x: Tensor) -> float:
        return float(torch.cosine_similarity(x.flatten(), smooth.flatten(), dim=0))

    assert cosine(through) > 0.5 > cosine(plain)
    assert torch.equal(value_and_gradient(HOG(variant=variant, straight_through=True), image.detach())[1], through)
    assert torch.equal(value_and_gradient(hard, image.detach())[1], plain)


def test_straight_through_gradient_is_that_of_the_bilinear_binning() -> None:
    # Before the normalisation, whose derivative depends on the value.
    gx, gy = torch.randn(2, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows, weight = rows_of(np.eye, (9,), gx.dtype, gx.device), torch.randn(1, 18, 9, 9, dtype=torch.float64)

    def gradient(hard: bool) -> tuple[Tensor, ...]:
        vote = partial(linear_votes, orientations=9, hard=hard, through_angle=True)
        maps = Vote.apply(gx, gy, vote, 18, rows)
        return torch.autograd.grad(maps, (gx, gy), weight)

    # The bilinear share goes through VLFeat's acos, which resolves less than the angle itself.
    for pair in zip(gradient(True), gradient(False), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-7, atol=1e-7)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photo(3, 43, 51, dtype=torch.float64)
    for options in ({}, {"straight_through": True}, {"binning": "bilinear"}):
        whole = value_and_gradient(HOG(**options), images)
        with monkeypatch.context() as patch:
            patch.setattr(oriented_gradients, "STRIP", 7 * 49)
            for one, other in zip(value_and_gradient(HOG(**options), images), whole, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"straight_through": True}, {"binning": "bilinear"}], ids=str)
def test_threads_change_nothing(options: dict) -> None:
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            images = photo(3, 301, 277).requires_grad_()
            (code,) = HOG(**options)(images)
            results += [code, *torch.autograd.grad(code, images, torch.linspace(-1, 1, code.numel()).view_as(code))]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])


@pytest.mark.parametrize("cell", [1, 5, 8])
def test_rows_a_period_apart_share_no_cell(cell: int) -> None:
    # A GPU adds to one place in any order, so its sums would depend on luck.
    rows = rows_of(_vlfeat_weights, (53, cell), torch.float32, torch.device("cpu"))
    for cells, shares in zip(rows.cells, rows.shares[..., 0], strict=True):
        for start in range(rows.period):
            part = cells[start :: rows.period][shares[start :: rows.period] != 0]
            assert len(part.unique()) == len(part)


@pytest.mark.parametrize(
    ("orientations", "direction", "bin"),
    [
        (9, (0.0, 1.0), 4),  # on the border of 80° and 100°
        (9, (0.0, -1.0), 13),
        (2, (-1.0, 1.0), 2),  # on the border of 180°, which is orientation 0 and so comes first, and 90°
        (4, (1.0, 1.0), 1),  # at the centre of 45°
        (4, (1.0, 0.0), 0),
    ],
)
def test_ties_fall_as_in_vlfeat(orientations: int, direction: tuple[float, float], bin: int) -> None:
    gx, gy = (torch.full((1, 1, 1), component) for component in direction)
    nearest = linear_votes(gx, gy, orientations, hard=True, through_angle=False).nearest
    assert nearest is not None and nearest.item() == bin


@pytest.mark.parametrize("options", [*VARIANTS, {"straight_through": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_images_give_no_nan(options: dict, dtype: torch.dtype) -> None:
    images = photo(1, 40, 44, dtype=dtype).repeat(6, 1, 1, 1)
    images[0], images[1], images[2, :, :26] = 0, 1, 0.5
    images[3] *= 1e-20  # squares vanish in float32
    images[4] = torch.linspace(0, 1, 44, dtype=dtype)  # gradients exactly at a bin's centre
    images[5] = torch.linspace(0, 1, 40, dtype=dtype)[:, None]  # and, with 9 orientations, on a bin's border
    assert all(torch.isfinite(x).all() for x in value_and_gradient(HOG(**options), images))


@pytest.mark.parametrize("options", [*VARIANTS, {"straight_through": True}], ids=str)
def test_images_of_a_batch_do_not_meet(options: dict) -> None:
    phi = HOG(**options)
    for size in ((37, 41), (64, 75)):
        images = photo(1, 4 * size[0], size[1]).reshape(4, 1, *size)
        images[3, :, :20] = 0.5
        assert_alike_in_any_order(lambda order, images=images: value_and_gradient(phi, images[order]), 4)
        double = images.double()
        for alone, among in zip(value_and_gradient(phi, double[2:3]), value_and_gradient(phi, double), strict=True):
            torch.testing.assert_close(alone[0], among[2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("height", "width"), [(33, 47), (4, 9), (64, 100), (21, 30)])
@pytest.mark.parametrize("cell", [4, 5, 8])
def test_shapes(height: int, width: int, cell: int) -> None:
    (code,) = HOG(cell=cell, orientations=7)(photo(3, height, width))
    assert code.shape == (1, 25, (height + cell // 2) // cell, (width + cell // 2) // cell)
    if cell % 2 == 0 and min(height, width) >= 2 * cell:
        (code,) = HOG(cell=cell, orientations=7, variant="cvpr15")(photo(1, height, width))
        assert code.shape == (1, 21, height // cell, width // cell)


def test_double_precision_has_double_constants() -> None:
    image = photo(1, 32, 40)
    single, double = HOG(binning="bilinear")(image)[0], HOG(binning="bilinear").double()(image.double())[0]
    assert double.dtype == torch.float64
    mirrored = HOG(binning="bilinear")(image.double().flip(3))[0]
    torch.testing.assert_close(single, double.float(), rtol=1e-3, atol=1e-4)
    # Mirrored left to right, orientation θ becomes π − θ: exact to double precision or not at all.
    torch.testing.assert_close(mirrored.flip(3)[:, 18:27], double[:, 18 + (-torch.arange(9)) % 9], atol=1e-12, rtol=0)


def test_constants_made_under_inference_mode_can_be_trained_with() -> None:
    phi, image = HOG(cell=3), photo(1, 23, 29)
    with torch.inference_mode():
        phi(image)
    value_and_gradient(phi, image)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"binning": "soft"}, "binning"),
        ({"binning": 3}, "binning"),
        ({"variant": "vlfaet"}, "vlfeat"),
        ({"cell": 0}, "cell"),
        ({"cell": 8.0}, "cell"),
        ({"cell": True}, "cell"),
        ({"cell": 5, "variant": "cvpr15"}, "even"),
        ({"orientations": 1}, "orientations"),
        ({"straight_through": 1}, "straight_through"),
        ({"straight_through": True, "binning": "bilinear"}, "straight_through"),
    ],
)
def test_bad_arguments(options: dict, words: str) -> None:
    with pytest.raises(InvrepError, match=words):
        HOG(**options)


@pytest.mark.parametrize(("options", "least"), [({}, 4), ({"cell": 16}, 8), ({"variant": "cvpr15"}, 16)])
def test_too_small_an_image_names_the_smallest(options: dict, least: int) -> None:
    HOG(**options)(photo(1, least, least))
    with pytest.raises(InvrepError, match=f"at least {least}×{least}"):
        HOG(**options)(photo(1, least - 1, 50))


def test_wrong_channels() -> None:
    with pytest.raises(InvrepError, match="batch, 1 or 3,"):
        HOG(variant="cvpr15")(photo(2, 40, 40))
