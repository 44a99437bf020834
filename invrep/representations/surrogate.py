"""Smooth the gradient of a pass through Φ; the forward pass stays exact.

A ReLU that is off passes no gradient. Far from the photo the wrong units are on, so most of the gradient is lost on its
way to the image. A surrogate multiplies the gradient by a sigmoid of the ReLU's input instead of by 0 or 1. During a
descent the sigmoid narrows to a step: with a constant width the descent would miss the energy's minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

WIDTH = 0.4  # width of the sigmoid at softness 1, over the root mean square of the ReLU's input
RELUS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
IN_PLACE = {torch.relu_, Tensor.relu_}
_checkpoints: set[str] = set()  # kinds of checkpoint that have held a ReLU so far


@dataclass(frozen=True)
class Surrogate:
    """Smooth the gradient of one pass through Φ; the pass's values do not depend on it.

    ReLUs take the derivative of sigmoids, and so do the bits of LBP and BRIEF. HOG's hard binning takes the derivative
    of its bilinear binning. Smooth operations keep their own gradient.

    Attributes:
        softness: width of the sigmoids, from 0, the ReLU's own derivative, to 1; a number, or for torch.compile a
            tensor () on the images' device.
    """

    softness: float | Tensor = 1.0


def smoothed(surrogate: Surrogate | None) -> AbstractContextManager[Any]:
    """Return a context in which ReLUs have a surrogate's derivative; without a surrogate they keep their own."""
    return nullcontext() if surrogate is None else SoftReLUs(surrogate.softness)


def backward(loss: Tensor, surrogate: Surrogate | None) -> None:
    """Run the backward pass from a loss; its forward passes used this surrogate.

    A module that checkpoints its activations runs again within the backward pass, with the same ReLUs as before.

    Args:
        loss: loss, a tensor ().
        surrogate: surrogate of the forward passes, or None.
    """
    # Only after a checkpointed ReLU: the context costs each function of a backward pass two microseconds.
    with smoothed(surrogate if _checkpoints else None):
        _run_backward([loss])


def _run_backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor] | None = None) -> None:
    # From edges of the graph: from tensors, torch would run the backward pass without the context.
    torch.autograd.backward([get_gradient_edge(tensor) for tensor in tensors], gradients)


def _gradient(gradient: Tensor, x: Tensor, softness: float | Tensor) -> Tensor:
    values = (2, 3) if x.ndim == 4 else tuple(range(1, x.ndim))
    # Not vector_norm: with channels last it takes six times as long, more than the rest of the gradient.
    rms = x.square().mean(values, keepdim=True).sqrt()
    width = (rms * (WIDTH * softness)).clamp(min=torch.finfo(x.dtype).tiny)
    # torch's one kernel for gradient · sigmoid(x / width), the derivative of a softplus
    smooth: Tensor = torch.ops.aten.softplus_backward(gradient, x / width, 1, 20)
    return smooth


class _SoftReLU(torch.autograd.Function):
    """Compute :func:`soft_relu`, in place or not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, softness: float, in_place: bool) -> Tensor:
        ctx.softness = softness
        if not in_place:
            ctx.save_for_backward(x)
            return x.relu()
        ctx.save_for_backward(x.clone())
        ctx.mark_dirty(x)
        return x.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gradient(gradient, ctx.saved_tensors[0], ctx.softness), None, None


@torch.library.custom_op("invrep::soft_relu", mutates_args=())  # torch.compile keeps an operation's gradient
def _traced_soft_relu(x: Tensor, softness: Tensor) -> Tensor:
    return torch.relu(x)


@_traced_soft_relu.register_fake
def _(x: Tensor, softness: Tensor) -> Tensor:
    return torch.empty_like(x)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _gradient(gradient, *ctx.saved_tensors), None


_traced_soft_relu.register_autograd(_backward, setup_context=_remember)


def soft_relu(x: Tensor, softness: float | Tensor, *, in_place: bool = False) -> Tensor:
    """Return max(x, 0), with the derivative sigmoid(x / (.4·softness·RMS)).

    RMS is the root mean square of each image's channel, or of each image's vector.

    Args:
        x: input, (B, C, H, W) or (B, …).
        softness: softness from 0, the derivative of a ReLU, to 1: a number, or a tensor () for torch.compile.
        in_place: whether x takes the result.
    """
    if not isinstance(softness, Tensor):
        return cast(Tensor, _SoftReLU.apply(x, softness, in_place))
    return x.copy_(_traced_soft_relu(x.clone(), softness)) if in_place else _traced_soft_relu(x, softness)


class SoftReLUs(TorchFunctionMode):
    """Replace every ReLU within this context, under each of torch's names, by :func:`soft_relu`.

    Args:
        softness: softness, a number, or a tensor () on the device of the computation.
    """

    def __init__(self, softness: float | Tensor) -> None:
        super().__init__()
        self.softness = softness

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.backward and not kwargs.get("inputs"):  # a checkpoint within another
            with self:
                return _run_backward(args[0], kwargs["grad_tensors"])
        if func not in RELUS:
            return func(*args, **kwargs)
        if not torch.is_grad_enabled():  # no gradient, or a reentrant checkpoint's forward pass
            _checkpoints.add("reentrant")
            return func(*args, **kwargs)
        if _top_saved_tensors_default_hooks(False) is not None:
            _checkpoints.add("other")
        x = args[0] if args else kwargs["input"]
        if not x.requires_grad:
            return func(*args, **kwargs)
        in_place = bool(func in IN_PLACE or kwargs.get("inplace") or True in args[1:])
        return soft_relu(x, self.softness, in_place=in_place)
