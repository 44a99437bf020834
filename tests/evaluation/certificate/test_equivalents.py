"""What an error means: the JPEG, the shift and the noise of the same error, against dense grids."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from invrep.api import representation
from invrep.evaluation.certificate.equivalents import jpeg, noisy, scales, shifted
from invrep.objectives.match import Match
from invrep.representations.network import Network


def test_the_distortions_are_pillows_jpeg_a_fourier_shift_and_gaussian_noise(photo):
    file = io.BytesIO()
    pixels = (photo.movedim(0, 2) * 255).byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=30)
    assert np.array_equal(np.asarray(Image.open(file)), (jpeg(photo, 30).movedim(0, 2) * 255).round().byte().numpy())
    down, up, right, left = shifted(photo, 3.0)  # of a whole number of pixels: the photo itself, mirrored at the edge
    assert torch.allclose(down[:, 3:], photo[:, :-3], atol=1e-6) and torch.allclose(up[:, :-3], photo[:, 3:], atol=1e-6)
    assert torch.allclose(right[:, :, :3], photo[:, :, :3].flip(-1), atol=1e-6)
    assert torch.allclose(left[:, :, :-3], photo[:, :, 3:], atol=1e-6)
    wave = torch.cos(2 * math.pi * 5 * (torch.arange(64) + 0.5) / 64 / 2).expand(1, 8, 64)  # even at both edges
    wanted = torch.cos(2 * math.pi * 5 * (torch.arange(64) + 0.5 - 0.3) / 64 / 2).expand(1, 8, 64)
    assert torch.allclose(shifted(wave, 0.3)[2], wanted, atol=1e-5)
    assert float((noisy(photo, 10.0) - photo).std() * 255) == pytest.approx(10, rel=0.02)


def smooth() -> Network:
    """A small network of smooth functions."""
    module = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh())
    return Network(module, mean=0.5)


@pytest.mark.parametrize("name", ["hog", "smooth"])
def test_each_is_within_five_percent_of_a_dense_grids(name, photo):
    phi = smooth() if name == "smooth" else representation(name)
    photo = photo if name == "smooth" else photo.mean(0, keepdim=True)
    with torch.no_grad():
        objective = Match(phi(photo[None]), phi=phi)

        def error(images):
            return objective.value(phi(images)).double()

        dense = {
            "jpeg_equivalent": ([*range(100, 0, -1)], lambda s: error(jpeg(photo, s)[None])),
            "shift_equivalent": (np.geomspace(0.05, 12, 120), lambda s: error(shifted(photo, s))),
            "noise_equivalent": (np.geomspace(0.1, 200, 80), lambda s: error(noisy(photo, s)[None])),
        }
        made, compared = scales(error, photo), 0
        for column, (grid, of) in dense.items():
            values = [float(of(strength).mean()) for strength in grid]
            for wanted in np.geomspace(1e-3, 0.9, 12):
                low, answer, high = (crossing(grid, values, factor * wanted) for factor in (0.98, 1, 1.02))
                if min(low, answer, high) > 0 and max(low / high, high / low) < 1.3:  # else the grid itself leaps there
                    assert made[column](wanted) == pytest.approx(answer, rel=0.05), (column, wanted)
                    compared += 1
    assert compared > 15


def crossing(grid, values, wanted) -> float:
    """Return the first strength of a grid with an error, interpolated; 0 for an error beyond the grid."""
    first = next((k for k, value in enumerate(values) if value >= wanted), 0)
    if first == 0:
        return 0.0
    share = math.log(wanted / values[first - 1]) / math.log(values[first] / values[first - 1])
    return grid[first - 1] * (grid[first] / grid[first - 1]) ** share


def test_bounds_stand_for_what_no_strength_has(photo):
    made = scales(lambda images: (images - photo).square().flatten(1).sum(1).double(), photo)
    assert [scale(0.0) for scale in made.values()] == [100, 0, 0]
    assert [scale(1e9) for scale in made.values()] == [1, 12, 256]  # a quarter of 48 px
    assert all(math.isnan(scale(math.nan)) for scale in made.values())
