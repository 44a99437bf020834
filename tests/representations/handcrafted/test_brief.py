"""BRIEF against scikit-image's comparisons, its pattern, and its surrogate gradient."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature.brief_cy import _brief_loop

from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.representations.handcrafted.brief import BRIEF, pairs
from invrep.representations.surrogate import Surrogate


@pytest.mark.parametrize(("bits", "patch", "step"), [(256, 32, 8), (512, 48, 5), (37, 15, 3)])
def test_equals_scikit_images_comparisons(bits, patch, step):
    grey = read(bundled("rocket"), color="gray")[:, 30:107, 200:291].double()
    grey += 0.01 * torch.rand_like(grey)  # scikit-image lets rounding decide ties of flat parts
    phi = BRIEF(bits=bits, patch=patch, step=step)
    (code,) = phi(grey[None])
    rows, columns = code.shape[2:]
    corners = 4 + step * np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    found = np.zeros((len(corners), bits), np.uint8)
    first, second = (np.ascontiguousarray(phi.pairs[:, k], np.int32) for k in (0, 1))
    smooth = gaussian_filter(grey[0].numpy(), 2, radius=4)
    _brief_loop(smooth, found, np.ascontiguousarray(corners, np.int64), first, second)
    expected = 2.0 * found.T.reshape(bits, rows, columns) - 1
    assert (code[0].numpy() != expected).mean() < 1e-3
    assert 0.2 < (expected > 0).mean() < 0.8


def test_defaults_by_the_number_of_bits():
    assert (BRIEF().patch, BRIEF(bits=512).patch, BRIEF(bits=512, patch=32).patch) == (32, 48, 32)
    assert BRIEF(bits=512)(torch.rand(1, 1, 80, 72))[0].shape == (1, 512, 4, 3)


def test_the_pattern_is_fixed_by_its_seed():
    first = pairs(256, 32, 0)
    assert first[:2].tolist() == [[[27, 18], [22, 30]], [[27, 9], [22, 15]]]
    assert (first[:, 0] != first[:, 1]).any(1).all() and first.min() >= 0 and first.max() < 32
    assert abs(first.std() - 32 / 5) < 0.4 and (pairs(256, 32, 1) != first).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_points_are_minus_one_whatever_the_rounding(dtype):
    images = torch.full((1, 1, 41, 53), 0.3, dtype=dtype)
    assert (BRIEF(patch=16, step=1)(images)[0] == -1).all()


def test_the_surrogate_gradient_is_a_sigmoids():
    """The gradient of 2·sigmoid(difference / width) − 1, whose difference is linear in the image."""
    phi = BRIEF(bits=40, patch=12, step=4).double()
    x = torch.rand(2, 1, 33, 29, dtype=torch.float64).requires_grad_()
    weight = torch.randn_like(phi(x)[0])
    (gradient,) = torch.autograd.grad(phi(x, Surrogate(0.5))[0], x, weight)
    smooth = torch.stack([torch.from_numpy(gaussian_filter(one[0].detach().numpy(), 2, radius=4)) for one in x])
    first, second = (
        torch.stack([smooth[:, 4 + r :: 4, 4 + c :: 4][:, :4, :3] for r, c in phi.pairs[:, k]], 1) for k in (0, 1)
    )
    differences = second - first
    width = 0.4 * 0.5 * differences.square().mean((1, 2, 3), keepdim=True).sqrt()
    slope = torch.special.expit(differences / width)
    slope = weight * 2 * slope * (1 - slope) / width
    direction = torch.randn_like(x)
    moved = torch.stack([torch.from_numpy(gaussian_filter(one[0].numpy(), 2, radius=4)) for one in direction])
    first, second = (
        torch.stack([moved[:, 4 + r :: 4, 4 + c :: 4][:, :4, :3] for r, c in phi.pairs[:, k]], 1) for k in (0, 1)
    )
    torch.testing.assert_close((gradient * direction).sum(), (slope * (second - first)).sum())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bits": 0}, "bits"), ({"patch": 1}, "patch"), ({"step": 0}, "step"), ({"seed": -1}, "seed")],
)
def test_bad_arguments(options, words):
    with pytest.raises(InvrepError, match=f"BRIEF's {words} must be a whole number"):
        BRIEF(**options)
