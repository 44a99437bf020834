"""What is asked of a code: one number for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Match(nn.Module):
    """The code shall be that of the photo: Σ_k w_k ‖M_k⊙(Φ_k − Φ0_k)‖² / ‖M_k⊙Φ0_k‖² (paper.md §1).

    Every image is normalised by its own code; a code that is all zero by 1. Where several parts of a code are matched,
    the weights are taken relative to their sum, so that the error stays a relative one.

    Args:
        target: Φ0, a list of tensors (B, …).
        masks: for each part a tensor that broadcasts to it, or None for all of it.
        weights: a number for each part; all 1 by default.
        weight: C of the IJCV recipe, a factor before the whole term.
    """

    def __init__(
        self,
        target: Sequence[Tensor],
        *,
        masks: Sequence[Tensor | None] | None = None,
        weights: Sequence[float] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.parts = len(target)
        self.weight = weight
        weights = [1.0] * self.parts if weights is None else list(weights)
        self.weights = [w / sum(weights) for w in weights]
        for k, part in enumerate(target):
            mask = None if masks is None else masks[k]
            part = part.detach() if mask is None else part.detach() * mask
            norm = part.flatten(1).square().sum(1)
            self.register_buffer(f"target{k}", part)
            self.register_buffer(f"mask{k}", mask)
            self.register_buffer(f"norm{k}", torch.where(norm > 0, norm, torch.ones_like(norm)))

    def distances(self, code: Sequence[Tensor]) -> list[Tensor]:
        """Return ‖M_k⊙(Φ_k − Φ0_k)‖², (B,), for each part of a code."""
        found = []
        for k in range(self.parts):
            difference = code[k] - getattr(self, f"target{k}")
            mask = getattr(self, f"mask{k}")
            if mask is not None:
                difference = difference * mask
            found.append(difference.flatten(1).square().sum(1))
        return found

    def error(self, code: Sequence[Tensor]) -> Tensor:
        """Return the relative error ‖Φ − Φ0‖²/‖Φ0‖² of each image, (B,), without the factor C."""
        terms = [
            w * d / getattr(self, f"norm{k}")
            for k, (w, d) in enumerate(zip(self.weights, self.distances(code), strict=True))
        ]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def totals(self, code: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return ‖M⊙(Φ − Φ0)‖² and ‖M⊙Φ0‖² over all parts, (B,) each, without weights."""
        norms = [getattr(self, f"target{k}").flatten(1).square().sum(1) for k in range(self.parts)]
        return torch.stack(self.distances(code)).sum(0), torch.stack(norms).sum(0)

    def forward(self, code: Sequence[Tensor]) -> Tensor:
        """Return the energy of each image. Shape: list of (B, …) → (B,)."""
        error = self.error(code)
        return error if self.weight == 1 else error * self.weight
