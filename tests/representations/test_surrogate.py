"""ReLUs whose value is a step's and whose gradient is a slope's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.inversions import papers_prior, small_network
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from invrep.inversion.solver import solve
from invrep.presets import build, preset
from invrep.representations.network import Network
from invrep.representations.surrogate import SoftReLUs, Surrogate, soft_relu


def values(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def primitive(x: Tensor, softness: float) -> Tensor:
    """What the gradient is the derivative of: softplus, as wide as .4·softness times each channel's RMS."""
    over = (2, 3) if x.ndim == 4 else tuple(range(1, x.ndim))
    width = 0.4 * softness * x.detach().square().mean(over, keepdim=True).sqrt()
    return width * functional.softplus(x / width, threshold=1e9)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 1, 1), (3, 7), (2, 4, 6)])
@pytest.mark.parametrize("softness", [1.0, 0.25])
def test_value_is_the_relus_and_gradient_the_derivative_of_a_softplus(shape: tuple[int, ...], softness: float) -> None:
    x, weights = values(*shape), values(*shape, seed=1).detach()
    y = soft_relu(x, torch.tensor(softness))
    assert torch.equal(y, x.relu())
    (ours,) = torch.autograd.grad((y * weights).sum(), x)
    (wanted,) = torch.autograd.grad((primitive(x, softness) * weights).sum(), x)
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_without_softness_the_gradient_is_the_relus(dtype: torch.dtype) -> None:
    x = values(2, 3, 5, 4).detach().to(dtype).requires_grad_()
    (ours,) = torch.autograd.grad(soft_relu(x, torch.tensor(0.0)).sum(), x)
    assert torch.equal(ours, (x > 0).to(dtype))


def test_a_channel_of_zeros_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_relu(x, torch.tensor(1.0)).sum(), x)
    assert gradient.isfinite().all()


def test_images_do_not_depend_on_each_other() -> None:
    x = values(3, 16, 33, 17)

    def gradient(part: Tensor) -> Tensor:
        part = part.detach().float().requires_grad_()
        return torch.autograd.grad(soft_relu(part, torch.tensor(0.5)).sum(), part)[0]

    beside_others = torch.stack([values(16, 33, 17, seed=1), x[1], values(16, 33, 17, seed=2)])
    assert torch.equal(gradient(x)[1], gradient(beside_others)[1])
    # At another place or batch size torch's sigmoid may round a tensor's last elements otherwise.
    torch.testing.assert_close(gradient(x)[1:2], gradient(x[1:2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "relu",
    [
        functional.relu,
        lambda x: functional.relu(x, True),
        lambda x: functional.relu(input=x, inplace=True),
        torch.relu,
        torch.relu_,
        lambda x: x.relu(),
        lambda x: x.relu_(),
        nn.ReLU(),
        nn.ReLU(inplace=True),
    ],
)
def test_every_way_to_write_it(relu: Callable[[Tensor], Tensor]) -> None:
    x = values(2, 3, 4, 5)
    with SoftReLUs(torch.tensor(1.0)):
        before = x * 1
        y = relu(before)
        with torch.no_grad():
            assert torch.equal(relu(x.clone()), x.clamp(min=0))
    plain = x.detach().clone()
    after = relu(plain)
    assert torch.equal(y, after)
    assert torch.equal(before, plain)  # changed in place, or not, as without
    (ours,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ours, torch.autograd.grad(primitive(x, 1.0).sum(), x)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layer", ["relu", "layer1.0.relu_0", "layer2.0.add", "layer3", "output"])
def test_codes_of_a_network_are_the_same_and_their_gradients_are_not(layer: str) -> None:
    torch.manual_seed(0)
    phi = Network(resnet18().eval(), layer)
    images = torch.rand(2, 3, 64, 64)

    def code_and_gradient(surrogate: Surrogate | None = None) -> tuple[Tensor, Tensor]:
        x = images.clone().requires_grad_()
        (code,) = phi(x, surrogate)
        return code, torch.autograd.grad(code.square().sum(), x)[0]

    exact, gradient = code_and_gradient()
    code, smooth = code_and_gradient(Surrogate())
    assert torch.equal(code, exact)
    cosine = torch.cosine_similarity(smooth.flatten(), gradient.flatten(), dim=0)
    assert 0.3 < cosine < 0.9999
    torch.testing.assert_close(
        code_and_gradient(Surrogate(0))[1], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max())
    )


def test_a_descent_begins_soft_and_ends_hard(photo: Tensor) -> None:
    phi = small_network()
    seen: list[float | None] = []
    forward = phi.encode

    def encode(images: Tensor, surrogate: Surrogate | None) -> list[Tensor]:
        seen.append(surrogate and surrogate.softness)
        return forward(images, surrogate)

    phi.encode = encode

    def run(**more: object) -> Tensor:
        seen.clear()
        found = solve(
            photo[None],
            [(0, "a", 0)],
            phi=phi,
            prior=papers_prior(),
            descent=build({**preset("optim", "adam"), "steps": 8, **more}),
            segment=4,
            trainer={"accelerator": "cpu"},
        )
        return found.image.detach()

    soft = run()
    softening = [1 - k / 8 for k in range(8)]
    before = [None, 1.0, None]  # Φ0, and Φ's trial, twice
    assert seen == [*before, *softening, None]  # the passes, and the curve's last point
    run(polish=4)
    assert seen == [*before, *softening[:4], None, *softening[4:], None]
    hard = run(straight_through=False)
    assert seen == [None] * 12
    assert not torch.equal(soft, hard)
