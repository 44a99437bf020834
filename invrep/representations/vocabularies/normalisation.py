"""Normalise pooled codes: L2 norm and signed root."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from invrep.representations.surrogate import Surrogate

LEAST = 1e-12  # norm below which a code is divided by this number, as in VLFeat
# width of the smoothed root's derivative at softness 1, over the root mean square of its input; at 0, .3 and 1, Fisher
# vectors of 64 Gaussians were matched to 22, 19 and 16 % (two photos, 150 passes)
ROUNDED = 1.0


def l2(code: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Return code / max(‖code‖, 1e-12), the norm over one dimension or several; zeros stay zero with a zero gradient.

    Shape: any → the same.
    """
    square = code.square().sum(dim, keepdim=True)
    return code * square.clamp(min=LEAST**2).rsqrt()


class _SignedRoot(torch.autograd.Function):
    """Compute sign(z)·√|z|. The derivative ½/√|z| is infinite at 0, where this one is 0."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, softness: float | Tensor) -> Tensor:
        root = z.abs().sqrt()
        ctx.save_for_backward(z)
        ctx.softness = softness
        return torch.copysign(root, z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        size = z.abs()
        rms = size.square().mean(tuple(range(1, z.ndim)), keepdim=True).sqrt()
        width = size + ROUNDED * ctx.softness * rms
        slope = width.rsqrt().mul(0.5).masked_fill(size == 0, 0)
        return gradient * slope, None


def signed_root(z: Tensor, surrogate: Surrogate | None = None) -> Tensor:
    """Return sign(z)·√|z|, (B, …) → the same.

    Args:
        z: pooled codes, (B, …).
        surrogate: smooths the derivative ½/√|z|, which grows without bound at small values, to ½/√(|z| + w), where w
            is softness · RMS of an image's z. The derivative is 0 where z is 0.
    """
    return cast(Tensor, _SignedRoot.apply(z, 0.0 if surrogate is None else surrogate.softness))
