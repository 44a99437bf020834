import pytest
import torch
from priors.test_priors import PriorTests

from invrep.errors import InvrepError
from invrep.presets import build, preset
from invrep.priors.box import Box
from invrep.priors.prior import Prior
from invrep.representations.base import Representation

MEAN = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)


class TestBox(PriorTests):
    def make(self) -> torch.nn.Module:
        return Box()

    def test_power_scales_the_value(self):
        """The box is a multiple of itself only where black lies at zero."""
        x = -torch.rand(2, 3, 4, 5, dtype=torch.float64)
        torch.testing.assert_close(Box()(3 * x), 9 * Box()(x))

    def test_value(self):
        rgb = torch.tensor([-0.1, 0.0, 0.3, 1.0, 1.3], dtype=torch.float64).view(1, 1, 1, 5)
        assert Box()(rgb).item() == pytest.approx(0.01 + 0.09)


@pytest.mark.parametrize("scale", [1.0, 255.0, "sigma"])
def test_black_and_white_are_those_of_the_pixels_whatever_the_units(scale):
    phi = Representation(MEAN)
    fixed = Prior(box=Box(weight=5)).for_shape((3, 6, 8), phi, scale=scale)
    rgb = torch.rand(2, 3, 6, 8, dtype=torch.float64) * 3 - 1
    x = (rgb - MEAN) * (255 / fixed.scale)
    excess = (rgb - rgb.clamp(0, 1)).square().sum((1, 2, 3))
    torch.testing.assert_close(fixed(x)["box"], 5 * excess * (255 / fixed.sigma) ** 2, rtol=1e-6, atol=0)


def test_a_mean_image_is_continued_into_the_margin_of_the_jitter():
    phi = Representation(0.5)
    phi.mean = torch.linspace(0.2, 0.8, 12).view(1, 3, 4).repeat(3, 1, 1)
    fixed = Prior(box=Box()).for_shape((3, 5, 5), phi, scale=255.0)
    rgb = torch.full((1, 3, 5, 5), 1.2)
    x = rgb - torch.nn.functional.pad(phi.mean[None], (0, 1, 1, 1), mode="replicate")
    assert float(fixed(x)["box"]) == pytest.approx(5 * 75 * 0.04 * (255 / fixed.sigma) ** 2, rel=1e-5)


def test_a_photo_costs_nothing_and_a_negative_weight_is_refused():
    fixed = build(preset("prior", "natural")).for_shape((3, 6, 8), Representation(MEAN), scale=255.0)
    assert float(fixed(torch.rand(1, 3, 6, 8) - MEAN)["box"]) == 0
    with pytest.raises(InvrepError, match=r"prior.box.weight=-1"):
        Box(weight=-1)
