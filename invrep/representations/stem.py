"""Compute the gradient of a network's first convolution by another convolution.

On a CPU, torch's gradient in the images of a convolution computes 16 channels where an image has 3. It then takes
several times as long as the convolution itself. Here every channel of the result is a pixel's place in a block of
pixels: stride 4 and 3 channels give 48 channels, and a fraction of the work.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

FEW = 4  # channels


class StemGradients(TorchFunctionMode):
    """Within this context, take the gradient in images of few channels by :class:`StemConvolution`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_convolve if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return ``torch.conv2d`` of the same arguments."""
    plain = (
        input.device.type != "cpu"
        or input.ndim != 4
        or input.shape[1] > FEW
        or groups > 1
        or _pair(dilation) != (1, 1)
        or isinstance(padding, str)
        or not input.requires_grad
        or weight.requires_grad
        or not torch.is_grad_enabled()
        or get_proxy_mode() is not None  # a graph for torch.compile loses the gradient of a Function
        or _top_saved_tensors_default_hooks(False) is not None  # a checkpoint, which may run again without this context
    )
    if plain:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return cast(Tensor, StemConvolution.apply(input, weight, bias, _pair(stride), _pair(padding)))


class StemConvolution(torch.autograd.Function):
    """Convolve images of few channels; the gradient in the images is a convolution whose channels are blocks of pixels.

    Shape:
        - images: (B, C, H, W).
        - weight: (K, C, h, w); it gets no gradient.
        - bias: (K,) or None; it gets no gradient.
        - stride, padding: pairs, vertical and horizontal.
        - returns: (B, K, H', W').
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        """Return the convolution."""
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = images.shape, stride, padding
        return torch.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient in the images, (B, C, H, W)."""
        (weight,) = ctx.saved_tensors
        height, width = ctx.shape[2:]
        rows, columns = (_Axis(*each) for each in zip(weight.shape[2:], ctx.stride, ctx.padding, strict=True))
        filters = functional.pad(weight, (*columns.pad, *rows.pad))
        filters = filters.unfold(2, rows.block, rows.stride).unfold(3, columns.block, columns.stride)
        # (K, C, h', w', block, block) → (C·block·block, K, h', w'), turned as in every gradient of a convolution
        filters = filters.flip(2, 3).permute(1, 4, 5, 2, 3, 0).flatten(0, 2).movedim(3, 1)
        gradient = gradient.to(weight.dtype)
        short = (columns.short(gradient.shape[3]), rows.short(gradient.shape[2]))
        if any(short):
            gradient = functional.pad(gradient, (0, short[0], 0, short[1]))
        blocks = torch.conv2d(gradient, filters, None, (rows.move, columns.move), (rows.reach, columns.reach))
        blocks = blocks.unflatten(1, (-1, rows.block, columns.block)).permute(0, 1, 4, 2, 5, 3)
        images = blocks.flatten(4, 5).flatten(2, 3)
        # cut where the blocks extend beyond the image, zeros where no window reaches its last pixels
        right, bottom = (columns.padding + width - images.shape[3], rows.padding + height - images.shape[2])
        return functional.pad(images, (-columns.padding, right, -rows.padding, bottom)), None, None, None, None


class _Axis:
    """Hold the sizes of a convolution, and of its gradient by blocks, along one axis.

    Attributes:
        move: positions of the gradient between two blocks. Without a stride it is 2: the result then has 12 channels
            for 3, and each costs little more than a single one.
        block: side of a block in pixels.
        reach: strides from a window's first pixel to its last.
        pad: zeros before and after the weights, so that windows of a block's side, a stride apart, hold a block's.
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        self.stride, self.padding = stride, padding
        self.move = 2 if stride == 1 else 1
        self.block = stride * self.move
        self.reach = (size - 1) // stride
        self.pad = (stride * (self.move - 1), stride * (self.move + self.reach) - size)

    def short(self, count: int) -> int:
        """Return the positions that the gradient, of ``count`` positions, lacks for a last block."""
        return -(count + self.reach) % self.move
