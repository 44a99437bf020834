import math

import numpy as np
import pytest
import torch
from helpers.alike import assert_alike_in_any_order

from invrep.errors import InvrepError
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.priors.terms import AlphaNorm, ChromaVariation, PixelNorm, TotalVariation, weight_by_depth
from invrep.representations.base import Representation


class PriorTests:
    """What holds for every prior; a new one inherits this and says how it is made."""

    def make(self) -> torch.nn.Module:
        raise NotImplementedError

    def test_one_number_per_image(self):
        assert self.make()(torch.randn(3, 2, 5, 7)).shape == (3,)

    def test_an_image_does_not_depend_on_its_neighbours(self):
        prior, images = self.make(), torch.randn(4, 3, 9, 6)

        def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = x.clone().requires_grad_()
            value = prior(x)
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]

        assert_alike_in_any_order(lambda order: both(images[order]), 4)
        spoilt = images.clone()
        spoilt[2] = float("nan")
        for here, there in zip(both(images), both(spoilt), strict=True):
            assert torch.equal(here[[0, 1, 3]], there[[0, 1, 3]])

    def test_gradient(self):
        x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(self.make(), x)

    def test_a_constant_image_has_finite_value_and_gradient(self):
        x = torch.zeros(1, 1, 4, 4, requires_grad=True)
        value = self.make()(x)
        value.sum().backward()
        assert value.isfinite().all() and x.grad.isfinite().all()

    def test_power_scales_the_value(self):
        prior, x = self.make(), torch.rand(2, 1, 6, 5, dtype=torch.float64)
        torch.testing.assert_close(prior(3 * x), prior(x) * 3**prior.power)


def tv_reference(x: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """TV^β of one channel and its gradient, pixel by pixel, after paper.md §1."""
    height, width = x.shape
    value, gradient = 0.0, np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            d1 = x[i, j + 1] - x[i, j] if j + 1 < width else 0.0
            d2 = x[i + 1, j] - x[i, j] if i + 1 < height else 0.0
            v = (d1 * d1 + d2 * d2) ** (beta / 2)
            value += v
            k = beta * (max(v, 1e-5) ** ((beta - 2) / beta) if beta != 2 else 1.0)
            gradient[i, j] -= k * (d1 + d2)
            if j + 1 < width:
                gradient[i, j + 1] += k * d1
            if i + 1 < height:
                gradient[i + 1, j] += k * d2
    return value, gradient


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
class TestTotalVariation(PriorTests):
    @pytest.fixture(autouse=True)
    def _beta(self, beta):
        self.beta = beta

    def make(self) -> torch.nn.Module:
        return TotalVariation(beta=self.beta)

    def test_value_gradient_border_and_clamp(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, 3, 6, 5)) * 1e-2
        x[0, 0, 2:4, 1:4] = 0.5  # flat: the clamp decides the gradient
        x[1, 2] += np.linspace(0, 1e-5, 5)
        tensor = torch.tensor(x, requires_grad=True)
        value = self.make()(tensor)
        value.sum().backward()
        for b in range(2):
            wanted = [tv_reference(x[b, c], self.beta) for c in range(3)]
            assert float(value[b]) == pytest.approx(sum(w[0] for w in wanted), rel=1e-12)
            np.testing.assert_allclose(tensor.grad[b], np.stack([w[1] for w in wanted]), rtol=1e-9, atol=1e-15)


class TestTotalVariationOfColour(PriorTests):
    def make(self) -> torch.nn.Module:
        return TotalVariation(chroma=2.5)

    def test_value_is_that_of_the_two_sums(self):
        x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
        wanted = TotalVariation()(x) + 2.5 * ChromaVariation()(x)
        torch.testing.assert_close(self.make()(x), wanted)
        torch.testing.assert_close(self.make()(x[:, :1]), TotalVariation()(x[:, :1]))

    def test_other_exponents_are_refused(self):
        with pytest.raises(InvrepError, match=r"prior.tv.chroma=2 needs prior.tv.beta=2, not 1"):
            TotalVariation(beta=1, chroma=2)
        phi = Representation()
        fixed = Prior(tv=TotalVariation(beta=1, chroma="auto")).for_shape((3, 8, 8), phi)
        assert fixed.terms["tv"].chroma == 0


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_the_clamp_is_the_same_number_of_grey_levels_at_every_size(beta):
    """The authors' x is X over one σ for all sizes (x0_sigma.mat), and their clamp is 1e-5 of it (invert_nn.m)."""
    grey = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    grey[..., 4:] = 0.8 * (1e-5 ** (1 / beta)) * 27098.11571533  # just below the clamp
    slopes = []
    for sigma in (27098.11571533, 500.0):
        fixed = Prior(sigma=sigma, tv=TotalVariation(beta=beta, weight=1)).for_shape((3, 8, 8), Representation())
        x = (grey / 255).requires_grad_()
        fixed(x)["tv"].sum().backward()
        slopes.append(x.grad * sigma**2)  # of the sum over pixels
    torch.testing.assert_close(slopes[0], slopes[1])
    assert slopes[0].abs().max() < 0.95 * beta * grey.max() ** (beta - 1) * 255  # the clamp held


class TestAlphaNorm(PriorTests):
    def make(self) -> torch.nn.Module:
        return AlphaNorm()

    @pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5, 6.0])
    def test_value(self, alpha):
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
        torch.testing.assert_close(AlphaNorm(alpha=alpha)(x), (x.abs() ** alpha).sum((1, 2, 3)))


def test_published_constants():
    """λ_V, λ_α and σ of the CVPR recipe, as the issue's source states them."""
    prior = build(preset("prior", "cvpr15"))
    phi = Representation()
    phi.receptive_field = 11
    fixed = prior.for_shape((3, 227, 227), phi, scale="sigma")
    assert fixed.scale == fixed.sigma == 27098.11571533
    x = torch.full((1, 3, 227, 227), 1e-3, dtype=torch.float64)
    x[0, 0, 0, 0] += 1e-3
    terms = fixed(x)
    assert float(terms["tv"]) == pytest.approx(0.5 * 2e-6, rel=1e-9)
    assert float(terms["alpha"]) == pytest.approx(2.157e8 * float((x**6).sum()), rel=1e-3)


def test_weight_for_beta_one_is_figure_two():
    prior = Prior(sigma=27098.11571533, tv=TotalVariation(beta=1, weight=50))
    fixed = prior.for_shape((3, 8, 8), Representation(), scale="sigma")
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, :, 1:] = 1.0
    assert float(fixed(x)["tv"]) == pytest.approx(3 * 1.845e-3, rel=1e-3)


def test_the_scale_of_the_variable_leaves_the_energy_alone():
    image = torch.rand(2, 3, 10, 12, dtype=torch.float64)
    phi = Representation()
    energies = []
    for scale in (1.0, 255.0, "sigma"):
        prior = build(preset("prior", "natural")).for_shape((3, 10, 12), phi, scale=scale)
        energies.append(prior(255 * (image - phi.mean) / prior.scale))
    for other in energies[1:]:
        torch.testing.assert_close(other, energies[0])


def test_sigma_auto_is_the_published_one_at_the_published_size():
    sigma = Prior().for_shape((3, 227, 227), Representation()).sigma
    assert sigma == pytest.approx(27098.11571533, rel=1e-4)
    assert Prior().for_shape((1, 20, 30), Representation()).sigma == pytest.approx(68.92 * math.sqrt(600))


@pytest.mark.parametrize(("field", "weight"), [(11, 0.5), (51, 0.5), (67, 5), (131, 5), (163, 50), (None, 50)])
def test_weight_by_depth_is_the_papers(field, weight):
    assert weight_by_depth(field) == weight


def test_prior_none_has_no_terms():
    assert build(preset("prior", "none")).terms == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: TotalVariation(beta=0.5),
        lambda: TotalVariation(weight=-1),
        lambda: TotalVariation(weight="five"),
        lambda: AlphaNorm(alpha="six"),
        lambda: AlphaNorm(weight=float("nan")),
        lambda: Prior(sigma=0),
        lambda: Prior(tv=torch.nn.Identity()),
    ],
)
def test_wrong_values_are_refused(make):
    with pytest.raises(InvrepError, match=r"expected"):
        make()


class TestPixelNorm(PriorTests):
    def make(self) -> torch.nn.Module:
        return PixelNorm()

    def test_is_the_colours_norm(self):
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
        for alpha in (6.0, 3.0):
            torch.testing.assert_close(PixelNorm(alpha=alpha)(x), (x.norm(dim=1) ** alpha).sum((1, 2)))


class TestChromaVariation(PriorTests):
    def make(self) -> torch.nn.Module:
        return ChromaVariation()

    def test_brightness_costs_nothing_and_colour_does(self):
        grey = torch.rand(1, 1, 6, 7).expand(-1, 3, -1, -1)
        assert ChromaVariation()(grey).item() == pytest.approx(0, abs=1e-10)
        assert ChromaVariation()(grey[:, :1]).item() == 0
        x = torch.zeros(1, 3, 1, 2)
        x[0, :, 0, 1] = torch.tensor([1.0, -1.0, 0.0])  # a step of √2 along the first colour difference
        assert ChromaVariation()(x).item() == pytest.approx(2)
        x[0, :, 0, 1] = torch.tensor([1.0, 1.0, -2.0])  # of √6 along the second
        assert ChromaVariation()(x).item() == pytest.approx(6)


def test_ijcv_weights_are_per_pixel():
    prior = build(preset("prior", "ijcv16")).for_shape((3, 10, 20), Representation(), scale=1)
    x = 50 * torch.randn(2, 3, 10, 20, dtype=torch.float64)  # grey levels less the mean
    terms = prior(x)
    torch.testing.assert_close(terms["alpha"], (x.norm(dim=1) / 80).pow(6).mean((1, 2)))
    torch.testing.assert_close(terms["tv"], TotalVariation()(x) * (6.5 / 80) ** 2 / 200)
    projected = prior.project(x)
    assert projected.norm(dim=1).max() <= 160 + 1e-9
    inside = x.norm(dim=1) <= 160
    torch.testing.assert_close(projected.movedim(1, -1)[inside], x.movedim(1, -1)[inside])
    outside = projected.movedim(1, -1)[~inside]
    torch.testing.assert_close(outside, 160 * x.movedim(1, -1)[~inside] / x.norm(dim=1)[~inside][:, None])


def test_the_ball_is_in_grey_levels_whatever_the_scale():
    x = torch.full((1, 3, 2, 2), 200.0)
    for scale in (1.0, 255.0):
        fixed = Prior(ball=160).for_shape((3, 2, 2), Representation(), scale=scale)
        torch.testing.assert_close(fixed.project(x / scale) * scale, x * 160 / (200 * 3**0.5))
