"""The gradient of a first convolution, as a convolution whose channels are blocks of pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from invrep.representations.network import Network
from invrep.representations.stem import StemGradients

GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(24, 31), (17, 16)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (3, 1, 1),
        (11, 4, 2),
        (7, 2, 3),
        (16, 16, 0),
        (3, 2, 0),
        (2, 3, 0),
        (1, 1, 0),
        (4, 4, 1),
        ((5, 3), (1, 2), (2, 0)),
        ((2, 7), (3, 1), (0, 4)),
    ],
)
def test_it_is_torchs(kernel, stride, padding, size: tuple[int, int], channels: int) -> None:
    conv = nn.Conv2d(channels, 6, kernel, stride, padding).double().requires_grad_(False)
    images = torch.rand(2, channels, *size, dtype=torch.float64, generator=GENERATOR).requires_grad_()
    weights = torch.randn(conv(images).shape, dtype=torch.float64, generator=GENERATOR)
    with StemGradients():
        ours = conv(images)
    assert type(ours.grad_fn).__name__ == "StemConvolutionBackward"
    assert torch.equal(ours, conv(images))
    found, wanted = (torch.autograd.grad((code * weights).sum(), images)[0] for code in (ours, conv(images)))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def gradient(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    code = encode(x)
    (code * torch.arange(code.numel()).cos().view_as(code)).sum().backward()
    assert x.grad is not None
    return x.grad


def test_images_do_not_depend_on_each_other() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.ReLU())
    images = torch.rand(3, 3, 40, 33, generator=GENERATOR)
    beside_others = torch.stack([images[2], images[1], images[0].square()])
    first, second = (gradient(lambda x: Network(module, "1")(x)[0], batch)[1] for batch in (images, beside_others))
    assert torch.equal(first, second)


class Stem(nn.Module):
    """A first convolution of some kind, then a ReLU."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        more = {"dilated": {"dilation": 2}, "grouped": {"groups": 3}, "same": {"padding": "same"}}.get(kind, {})
        more |= {"reflecting": {"padding": 2, "padding_mode": "reflect"}}.get(kind, {})
        self.conv = nn.Conv2d(3, 6, 3, **more)
        self.relu, self.kind = nn.ReLU(inplace=True), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind.startswith("checkpoint"):
            return self.relu(checkpoint(self.conv, x, use_reentrant=self.kind == "checkpoint reentrant"))
        return self.relu(self.conv(x))


@pytest.mark.parametrize("kind", ["dilated", "grouped", "same", "reflecting", "checkpoint", "checkpoint reentrant"])
def test_every_other_kind_has_its_own_gradient(kind: str) -> None:
    module = Stem(kind)
    images = torch.rand(2, 3, 20, 24, generator=GENERATOR)
    wanted = gradient(module.requires_grad_(False), images)
    torch.testing.assert_close(gradient(lambda x: Network(module, "relu")(x)[0], images), wanted, rtol=1e-5, atol=1e-5)


def test_in_bfloat16() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU())
    images = torch.rand(2, 3, 32, 32, generator=GENERATOR)
    phi = Network(module, "1")
    wanted = gradient(lambda x: phi(x)[0], images)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient(lambda x: phi(x)[0], images)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


def test_none_for_a_weight_that_learns() -> None:
    weight = torch.rand(2, 3, 3, 3, generator=GENERATOR).requires_grad_()
    with StemGradients():
        code = torch.conv2d(torch.rand(1, 3, 8, 8, generator=GENERATOR).requires_grad_(), weight)
    assert type(code.grad_fn).__name__ == "ConvolutionBackward0"
    assert torch.autograd.grad(code.sum(), weight)[0].abs().sum() > 0
