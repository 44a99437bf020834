"""Compute the squared norm of each image or code."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _SquaredNorms(torch.autograd.Function):
    """Compute Σ x² with a gradient of one product, in the memory layout of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().sum(tuple(range(1, x.ndim)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = x * each(2 * upstream, x)
        return gradient


def squared_norms(x: Tensor) -> Tensor:
    """Return ‖x_b‖² for each image or code of a batch. Shape: (B, …) → (B,)."""
    return cast(Tensor, _SquaredNorms.apply(x))


def each(values: Tensor, x: Tensor) -> Tensor:
    """Return one value for each image, (B,), in the shape (B, 1, …) that multiplies x, (B, …)."""
    return values.view(-1, *[1] * (x.ndim - 1))
