"""The gradient that a pass takes instead of Φ's own; the forward pass is exact.

A ReLU that is off passes no gradient on, so that far from the photo, where the wrong units are on, most of what the
code asks for is lost on its way to the image. Here the backward pass weighs it by a sigmoid of the ReLU's input instead
of by 0 or 1. The sigmoid narrows to a step in the course of a descent, since with any other
width the descent ends beside the energy's minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

WIDTH = 0.4  # of the sigmoid at softness 1, over the root mean square of the ReLU's input
RELUS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
IN_PLACE = {torch.relu_, Tensor.relu_}
_checkpoints: set[str] = set()  # the kinds that ReLUs have been met in


@dataclass(frozen=True)
class Surrogate:
    """Smooths the gradient of one pass through Φ; the pass's values do not depend on it.

    ReLUs take the derivative of sigmoids, and HOG's hard binning takes the derivative of its bilinear binning. What is
    smooth already keeps its own gradient.

    Attributes:
        softness: the sigmoids' width, from 0, the ReLU's own derivative, to 1; a number, or a tensor () on the images'
            device.
    """

    softness: float | Tensor = 1.0


def smoothed(surrogate: Surrogate | None, images: Tensor) -> AbstractContextManager[Any]:
    """Return the context in which ReLUs have a surrogate's derivative; without a surrogate they have their own.

    Args:
        surrogate: of the pass.
        images: the pass's images, for their device and precision.
    """
    return nullcontext() if surrogate is None else SoftReLUs(softness_of(surrogate, images))


def softness_of(surrogate: Surrogate, images: Tensor) -> Tensor:
    """Return a surrogate's softness as a tensor () of the images' device and precision."""
    if isinstance(surrogate.softness, Tensor):
        return surrogate.softness
    return torch.full((), surrogate.softness, dtype=images.dtype, device=images.device)


def backward(loss: Tensor, surrogate: Surrogate | None) -> None:
    """Take the backward pass from a number that forward passes with this surrogate have come to.

    A module that checkpoints its activations runs again within it, with the same ReLUs as in the forward pass.
    """
    # Only where such a module has been met, for the context costs each function of a backward pass two microseconds.
    with smoothed(surrogate if _checkpoints else None, loss):
        _run_backward([loss])


def _run_backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor] | None = None) -> None:
    # From edges of the graph, since torch would run a backward pass from tensors while the context is off.
    torch.autograd.backward([get_gradient_edge(tensor) for tensor in tensors], gradients)


@torch.library.custom_op("invrep::soft_relu", mutates_args=())  # an operation, for torch.compile to keep its gradient
def soft_relu(x: Tensor, softness: Tensor) -> Tensor:
    """Return max(x, 0), whose derivative is sigmoid(x / (.4·softness·RMS)).

    The root mean square is that of each image's channel, or of each image's vector.

    Args:
        x: (B, C, H, W), or (B, …).
        softness: (), from 0, the derivative of a ReLU, to 1.
    """
    return torch.relu(x)


@soft_relu.register_fake
def _(x: Tensor, softness: Tensor) -> Tensor:
    return torch.empty_like(x)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    x, softness = ctx.saved_tensors
    values = (2, 3) if x.ndim == 4 else tuple(range(1, x.ndim))
    width = x.square().mean(values, keepdim=True).sqrt() * (WIDTH * softness)
    return gradient * torch.sigmoid(x / width.clamp(min=torch.finfo(x.dtype).tiny)), None


soft_relu.register_autograd(_backward, setup_context=_remember)


class SoftReLUs(TorchFunctionMode):
    """Every ReLU that is computed within this context, by whichever of torch's names, is a :func:`soft_relu`.

    Args:
        softness: (), on the device of what is computed.
    """

    def __init__(self, softness: Tensor) -> None:
        super().__init__()
        self.softness = softness

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.backward and not kwargs.get("inputs"):  # of a checkpoint within another
            with self:
                return _run_backward(args[0], kwargs["grad_tensors"])
        if func not in RELUS:
            return func(*args, **kwargs)
        if not torch.is_grad_enabled():  # or a reentrant checkpoint's forward pass
            _checkpoints.add("reentrant")
            return func(*args, **kwargs)
        if _top_saved_tensors_default_hooks(False) is not None:
            _checkpoints.add("other")
        x = args[0] if args else kwargs["input"]
        if not x.requires_grad:
            return func(*args, **kwargs)
        if func in IN_PLACE or kwargs.get("inplace") or True in args[1:]:
            return x.copy_(soft_relu(x.clone(), self.softness))
        return soft_relu(x, self.softness)
