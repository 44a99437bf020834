"""The methods that an inversion is compared with: functions from a code to a picture."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import Ridge
from torch import nn

import invrep
from invrep import InvrepError, baselines
from invrep.baselines import coding
from invrep.data.photo_reading import bundled, read
from invrep.errors import UnfitError
from invrep.fitting.paired_dictionary import PairedDictionary, patch_offset, patch_side
from invrep.fitting.positions import grid_of
from invrep.objectives import Match
from invrep.optim import Descent
from invrep.priors import Prior
from invrep.representations.base import as_gray
from invrep.representations.handcrafted.dsift import DSIFT
from invrep.representations.handcrafted.hog import HOG
from invrep.representations.zoo.user_function import as_representation


@pytest.fixture
def grey() -> torch.Tensor:
    """A part of the cat in grey, (1, 1, 88, 104) in [0, 1]."""
    return as_gray(read(bundled("chelsea"))[None, :, 60:148, 120:224])


def error(phi, image, code) -> float:
    """Return the root of the relative error of a picture."""
    with torch.no_grad():
        return float(Match(code, phi=phi).value(phi(image)).sqrt())


def by_hand(code: np.ndarray, pairs: PairedDictionary, offset: int, size: tuple[int, int]) -> np.ndarray:
    """Return HOGgle's picture, (H, W), by scikit-learn's lasso and a loop over the windows."""
    side, stride, n = pairs.side, pairs.settings["stride"], pairs.window
    patches = F.interpolate(pairs.patches[:, None], size=(side, side), mode="bicubic")[:, 0].numpy()
    away = (np.arange(side) - (side - 1) / 2) / (9 / 8 * stride)
    bell = np.exp(-0.5 * (away[:, None] ** 2 + away**2))
    canvas, weights = np.zeros((2, size[0] + 2 * side, size[1] + 2 * side))
    for row in range(code.shape[1] - n + 1):
        for column in range(code.shape[2] - n + 1):
            window = code[:, row : row + n, column : column + n].reshape(1, -1)
            window = window - window.mean()
            window /= np.linalg.norm(window)
            found = sparse_encode(
                window, pairs.codes.double().numpy(), algorithm="lasso_cd", alpha=0.02, positive=True, max_iter=10000
            )
            top, left = (side + offset + k * stride for k in (row, column))
            canvas[top : top + side, left : left + side] += bell * np.tensordot(found[0], patches, 1)
            weights[top : top + side, left : left + side] += bell
    picture = (canvas / np.maximum(weights, 1e-30))[side:-side, side:-side]
    return (picture - picture.min()) / (picture.max() - picture.min())


def test_hoggle_is_a_positive_lasso_of_each_window_and_a_mean_of_patches(grey):
    phi = HOG()
    code = phi(grey)
    picture = baselines.hoggle(code, phi, shape=(1, 88, 104))
    wanted = by_hand(code[0][0].double().numpy(), coding.chosen(phi), -8, (88, 104))
    assert np.abs(picture[0, 0].numpy() - wanted).max() < 2e-3
    assert 0.25 < error(phi, picture, code) < 0.75 < error(phi, torch.rand_like(picture), code)


@pytest.mark.parametrize("phi", [HOG(), HOG(variant="cvpr15"), HOG(cell=6), DSIFT(), DSIFT(variant="cvpr15", step=1)])
def test_the_patch_lies_under_its_window(phi):
    """A pixel changes the code of the positions about it; the patches of their windows lie about the pixel."""
    image = torch.rand(1, 1, 128, 128)
    for at in (60, 65):
        other = image.clone()
        other[0, 0, at, at - 8] = 1 - image[0, 0, at, at - 8].round()
        grid = grid_of(phi, phi(image), (128, 128))
        change = (phi(other)[0] - grid.values)[0].square().sum(0)
        for axis, place in ((1, at), (0, at - 8)):
            shares = change.sum(axis).double() / change.sum()
            windows = torch.arange(len(shares)).double() - 2  # whose middle position it is
            tops = patch_offset(grid, 5) + grid.stride * windows
            middle = float((shares * tops).sum()) + patch_side(5, grid.stride) / 2
            assert abs(middle - place - 0.5) <= grid.stride / 2 + 1


def test_nearest_takes_the_photo_that_brute_force_takes_and_passes_over_the_photo_itself(photos):
    phi = HOG()
    files = {name: read(photos / name, color="gray") for name in ("a.png", "b.png", "sub/a.png")}
    code = [torch.cat([phi(image[None])[0] for image in files.values()])]
    found = baselines.nearest(code, phi, shape=(1, 48, 64), path=str(photos))
    for k, name in enumerate(files):
        others = {
            other: error(phi, image[None], [code[0][k : k + 1]]) for other, image in files.items() if other != name
        }
        assert torch.equal(found[k], files[min(others, key=others.get)])
    with pytest.raises(UnfitError, match="no photo but the one"):
        baselines.nearest([code[0][:1]], phi, shape=(1, 48, 64), path=str(photos / "a.png"))


def blocks() -> nn.Module:
    """Return a module whose 16 channels are the pixels of each block of 4 × 4, in another basis."""
    module = nn.Conv2d(1, 16, 4, stride=4, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.linalg.qr(torch.randn(16, 16)).Q.reshape(16, 1, 4, 4))
    return module


def test_linear_regression_inverts_a_linear_code_with_positions(photos, grey):
    phi = as_representation(blocks(), 1)
    found = baselines.linear(phi(grey), phi, shape=(1, 88, 104), path=str(photos))
    assert float((found - grey).square().mean().sqrt()) < 0.01


def test_linear_regression_of_a_code_without_positions_is_the_ridge_regression_of_scikit_learn(photos):
    phi = as_representation(nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten()), 1)
    image = read(bundled("chelsea"), color="gray")[None, :, 100:148, 130:194]
    found = baselines.linear(phi(image), phi, shape=(1, 48, 64), path=str(photos))
    learnt = torch.stack([read(photos / name, color="gray") for name in ("a.png", "b.png", "sub/a.png")])
    codes = phi(learnt)[0].double().numpy()
    weight = 1e-3 * np.square(codes - codes.mean(0)).sum(1).mean()
    ridge = Ridge(alpha=weight).fit(codes, learnt.flatten(1).double().numpy())
    assert np.allclose(found.flatten(1).numpy(), ridge.predict(phi(image)[0].double().numpy()), atol=1e-4)
    big = as_representation(nn.Sequential(nn.Upsample(scale_factor=400), nn.Flatten()), 1)
    with pytest.raises(InvrepError, match=r"baseline.limit=\d"):
        baselines.linear([torch.zeros(1, 10**9)], big, shape=(1, 48, 64), path=str(photos))


def test_descents_without_help_lower_the_error_and_depend_on_the_draw_alone(grey):
    phi = HOG(binning="bilinear")
    code = [part.expand(2, -1, -1, -1) for part in phi(grey)]
    draws = [torch.Generator().manual_seed(k) for k in (5, 6)]
    one = baselines.step(code, phi, shape=(1, 88, 104), draws=draws)
    more = baselines.plain(code, phi, shape=(1, 88, 104), draws=draws, steps=30)
    single = [part[1:] for part in code]
    noise = torch.rand((1, 1, 88, 104), generator=draws[0])
    assert error(phi, more[1:], single) < 0.7 * error(phi, noise, single) and error(phi, one[1:], single) < 0.99
    assert not torch.allclose(one[0], one[1]) and not torch.allclose(more[0], more[1])
    again = baselines.step(single, phi, shape=(1, 88, 104), draws=[torch.Generator().manual_seed(6)])
    assert torch.allclose(again[0], one[1], atol=1e-5)


def test_the_average_is_that_of_the_pre_images_of_an_inversion(grey):
    phi = HOG(binning="bilinear")
    parts = {"prior": Prior(), "descent": Descent(steps=5)}
    found = baselines.average(
        phi(grey), phi, shape=(1, 88, 104), draws=[torch.Generator().manual_seed(3)], restarts=3, **parts
    )
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3)))
    each = invrep.invert(
        grey, phi, restarts=3, prior=parts["prior"], optim=parts["descent"], seed=seed, ids=["average"], batch_size=3
    )
    assert torch.allclose(found, each.reconstructions.mean(1), atol=1e-4)


@pytest.mark.parametrize(
    ("phi", "size", "more", "said"),
    [
        (HOG(), (1, 32, 64), {}, "windows of 5×5 positions"),
        (HOG(), (3, 64, 64), {}, "data.color=gray"),
        (HOG(binning="bilinear"), (1, 64, 64), {}, "no paired dictionary for hog .*binning=bilinear"),
        (HOG(), (1, 64, 64), {"dictionary": "nowhere.safetensors"}, "no paired dictionary 'nowhere"),
    ],
)
def test_what_hoggle_cannot_take_is_said_in_a_sentence(phi, size, more, said):
    with pytest.raises(InvrepError, match=said):
        baselines.hoggle(phi(torch.rand(1, *size)), phi, shape=size, **more)


def test_hoggle_refuses_a_dictionary_of_another_code_and_a_file_cut_short(tmp_path):
    phi = HOG(variant="cvpr15")
    whole = next(iter(coding.SHIPPED.glob("*.safetensors"))).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for given, said in (
        (coding.chosen(HOG()), "of hog .*vlfeat.*, not of"),
        (tmp_path / "cut.safetensors", "cut short"),
    ):
        with pytest.raises(InvrepError, match=said):
            baselines.hoggle(phi(torch.rand(1, 1, 64, 64)), phi, shape=(1, 64, 64), dictionary=given)
