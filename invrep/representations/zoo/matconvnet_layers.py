"""Build MatConvNet's layers as modules."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invrep.representations.zoo.matfile import Layer


class _Padded(nn.Module):
    """Pad four sides before the filter or the pooling of the next base class, which then has no pad of its own."""

    margins: tuple[int, int, int, int] | None = None  # left, right, top, bottom; None leaves the padding to torch
    fill = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x if self.margins is None else F.pad(x, self.margins, value=self.fill))
        return y


class _Convolution(_Padded, nn.Conv2d):
    def __init__(self, layer: Layer) -> None:
        padding, margins = _padding(layer)
        super().__init__(
            *layer.channels,
            layer.size,
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilate,
            groups=layer.groups,
            device="meta",
        )
        self.margins = margins


class _MaxPooling(_Padded, nn.MaxPool2d):
    fill = -math.inf

    def __init__(self, layer: Layer) -> None:
        padding, margins = _padding(layer)
        super().__init__(layer.size, layer.stride, padding)
        self.margins = margins


class _AveragePooling(nn.Module):
    """Average the pixels of a window that lie inside the image."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        top, bottom, left, right = layer.pad
        self.size, self.stride, self.margins = layer.size, layer.stride, (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        share = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.margins), self.size, self.stride)
        return F.avg_pool2d(F.pad(x, self.margins), self.size, self.stride) / share


class _Normalisation(nn.Module):
    """Compute y = x / (κ + α Σ x²)^β, with the sum over N neighbouring channels (vl_nnnormalize).

    MatConvNet does not divide α by N, and torch does.
    """

    window: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        count, self.kappa, self.alpha, self.beta = layer.param
        channels = torch.arange(layer.channels[0], device="cpu")
        offset = channels[None, :] - channels[:, None]
        below = (int(count) - 1) // 2
        window = (offset >= -below) & (offset <= int(count) - 1 - below)
        # As a convolution: the dry run then knows that the sum sees one position only.
        self.register_buffer("window", window[:, :, None, None].to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x / (self.kappa + self.alpha * F.conv2d(x.square(), self.window)) ** self.beta


def _padding(layer: Layer) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """Return torch's own padding and None where that is possible; else no padding, and the margins for F.pad."""
    top, bottom, left, right = layer.pad
    # torch pads a pooling by half a window at most.
    fits = layer.kind == "convolution" or (2 * top <= layer.size[0] and 2 * left <= layer.size[1])
    return ((top, left), None) if top == bottom and left == right and fits else ((0, 0), (left, right, top, bottom))


def layer_module(layer: Layer) -> nn.Module:
    """Return the module of a layer."""
    if layer.kind == "relu":
        return nn.LeakyReLU(layer.param[0]) if layer.param[0] else nn.ReLU()
    if layer.kind == "softmax":
        return nn.Softmax(dim=1)
    kinds = {"convolution": _Convolution, "max pooling": _MaxPooling, "average pooling": _AveragePooling}
    return kinds.get(layer.kind, _Normalisation)(layer)
