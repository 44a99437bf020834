"""Keep the values of an image between black and white."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from invrep.representations.base import Representation
from invrep.representations.norms import each, squared_norms
from invrep.stable_names import known_as
from invrep.validation import number


class _SquaredExcess(torch.autograd.Function):
    """Compute Σ (x − clamp(x))²; its gradient, twice the excess, needs no second pass over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, black: Tensor, white: Tensor) -> Tensor:
        excess = x - x.clamp(black, white)
        ctx.save_for_backward(excess)
        return squared_norms(excess)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (excess,) = ctx.saved_tensors
        return excess * each(2 * upstream, excess), None, None


@known_as("box")
class Box(nn.Module):
    """Compute R(x) = Σ h², where h is the part of a value that lies below black or above white.

    Values between black and white cost nothing. The α-norm of the papers charges a photo for its contrast instead: at
    deep layers a photo's own energy then exceeds that of flat grey, and pre-images are washed out (docs/priors.md). The
    term is not in the papers.

    Args:
        weight: factor, at least 0, in the units of λ_V. ``auto``: 5, and 0 for a Φ that ignores contrast, to which the
            default recipe applies the α-norm.

    Raises:
        InvrepError: weight is negative.
    """

    power = 2.0

    def __init__(self, *, weight: float | str = "auto") -> None:
        super().__init__()
        self.weight = weight if weight == "auto" else number("prior.box.weight", weight, minimum=0, word="auto")
        self.black, self.white = torch.zeros(()), torch.ones(())

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""
        return 0.0 if phi.ignores_contrast else 5.0

    def fixed(self, phi: Representation, sigma: float, mean: Tensor) -> Box:
        """Return the term for images X/σ, where X = 255·(rgb − mean)."""
        other = copy.copy(self)
        other.black, other.white = -mean * (255 / sigma), (1 - mean) * (255 / sigma)
        return other

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, " batch"]:
        """Return R for each image. Shape: (B, C, H, W) → (B,)."""
        return cast(Tensor, _SquaredExcess.apply(x, self.black.to(x), self.white.to(x)))
