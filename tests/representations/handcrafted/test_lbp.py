"""LBP against scikit-image, its surrogate gradient against changed bits, and a descent with and without it."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.feature import local_binary_pattern

import invrep
from invrep.errors import InvrepError
from invrep.optim.descent import Descent
from invrep.representations.handcrafted.lbp import LBP, _differences
from invrep.representations.surrogate import Surrogate

BINS = {"uniform": 10, "nri_uniform": 59}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", BINS)
@pytest.mark.parametrize("photo", ["astronaut", "rocket", "motorcycle_left"])
def test_equals_scikit_image_with_its_border_and_ties(photo, method, dtype):
    image = data.stereo_motorcycle()[0] if photo == "motorcycle_left" else getattr(data, photo)()
    grey = np.ascontiguousarray(image[:101, :150, 1])
    labels = local_binary_pattern(grey, 8, 1, method).astype(int)
    images = torch.tensor(grey, dtype=dtype)[None, None] / 255
    (whole,) = LBP(method=method, cell=None)(images)
    np.testing.assert_allclose(whole[0], np.bincount(labels.ravel(), minlength=BINS[method]) / labels.size, atol=1e-7)
    (cells,) = LBP(method=method, cell=20)(images)
    assert cells.shape == (1, BINS[method], 5, 7)
    for row, column in ((0, 0), (2, 3), (4, 6)):
        part = labels[20 * row : 20 * row + 20, 20 * column : 20 * column + 20]
        expected = np.bincount(part.ravel(), minlength=BINS[method]) / 400
        np.testing.assert_allclose(cells[0, :, row, column], expected, atol=1e-7)


@pytest.mark.parametrize("method", BINS)
def test_the_surrogate_gradient_is_that_of_changed_bits(method):
    """Make a pixel brighter than its left neighbour: one bit of each of the two turns, and no other one."""
    dark = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.4, 0.399], [0.6, 0.2, 0.7]], dtype=torch.float64)[None, None]
    bright = dark.clone()
    bright[..., 1, 2] = 0.401
    phi = LBP(method=method, cell=None)
    weight = torch.randn(1, BINS[method], dtype=torch.float64)
    x = dark.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(phi(x, Surrogate(0.01))[0], x, weight)
    change = ((phi(bright)[0] - phi(dark)[0]) * weight).sum()
    width = 0.4 * 0.01 * _differences(dark).square().mean().sqrt()
    share = torch.sigmoid(0.001 / width)
    torch.testing.assert_close(gradient[0, 0, 1, 2], change * share * (1 - share) / width)


@pytest.mark.parametrize("softness", [None, 0])
def test_the_exact_gradient_is_zero(softness):
    x = torch.rand(1, 1, 20, 20).requires_grad_()
    (code,) = LBP(cell=10)(x, None if softness is None else Surrogate(softness))
    (gradient,) = torch.autograd.grad(code.square().sum(), x)
    assert not gradient.any()


def test_a_descent_needs_the_surrogate(photo):
    grey = photo.mean(0, keepdim=True)
    found = invrep.invert(grey, LBP(cell=8), steps=60)
    start = found.history[0][1]["error"]
    assert float(found.metrics["error"]) < 0.5 * float(start)
    with pytest.raises(InvrepError, match=r"its own gradient is zero; set optim\.straight_through=true"):
        invrep.invert(grey, LBP(cell=8), optim=Descent(straight_through=False))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "ror"}, "'nri_uniform' or 'uniform'"), ({"cell": 0}, "cell must be a whole number")],
)
def test_bad_arguments(options, words):
    with pytest.raises(InvrepError, match=words):
        LBP(**options)
