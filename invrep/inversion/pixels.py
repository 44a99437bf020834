"""Convert between pixels in [0, 1] and the optimised variable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Convert between pixels and the optimised variable x = (255·rgb − 255·mean) / scale.

    Attributes:
        mean: mean pixel (C, 1, 1) or (1, 1, 1), or mean image (C, H, W), in [0, 1].
        scale: grey levels (of 255) per unit of x: σ in the CVPR recipe, 1 in the IJCV recipe.
    """

    mean: Float[Tensor, "#channel #row #column"]
    scale: float

    def to_rgb(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch channel row column"]:
        """Return the pixels of the variable x, both (B, C, H, W); 0 to 1 is black to white, unclipped."""
        return torch.add(self.mean, x, alpha=self.scale / 255)

    def from_rgb(self, rgb: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch channel row column"]:
        """Return the variable x of pixels in [0, 1], both (B, C, H, W)."""
        return (rgb - self.mean) * (255 / self.scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> Pixels:
        """Return the same conversion on another device or in another precision."""
        return Pixels(self.mean.to(device, dtype), self.scale)
