"""Jitter the images: in every pass, Φ sees each image at its own random offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from invrep.optim.start_noise import generator_of


@dataclass(frozen=True)
class Jitter:
    """Crop an image tensor at random offsets; the tensor is larger than the images by a margin.

    Attributes:
        offsets: integer tensor (B, passes, 2), row and column in pixels for each image and pass.
        margin: number of pixels by which the image tensor exceeds the images in height and width.
    """

    offsets: Tensor
    margin: int

    @classmethod
    def draw(cls, rows: Sequence[tuple[int, str, int]], seed: int, margin: int, passes: int) -> Self:
        """Draw offsets from 0 to the margin, both included, uniformly at random.

        Args:
            rows: triple for each row of the image tensor: index of the photo, id, number of the restart.
            seed: seed of the job, combined with id and restart.
            margin: margin in pixels.
            passes: number of passes of the stage.
        """
        draws = []
        for _, image, restart in rows:
            generator = generator_of(seed, image, restart, "jitter")
            draws.append(torch.randint(margin + 1, (passes, 2), generator=generator))
        return cls(torch.stack(draws), margin)

    def crop(self, x: Tensor, number: int, rows: Tensor | None) -> Tensor:
        """Return the crops of x that Φ sees in one pass, (b, C, H − margin, W − margin).

        Args:
            x: image tensor (b, C, H, W).
            number: number of the pass within the stage, from 0.
            rows: places (b,) in the batch of the images of x; None: all images.
        """
        offsets = self.offsets[:, number]
        return self._cropped(x, (offsets if rows is None else offsets[rows.cpu()]).tolist())

    def centre(self, x: Tensor) -> Tensor:
        """Return the centre crop of x: (B, C, H, W) → (B, C, H − margin, W − margin)."""
        return self._cropped(x, [[self.margin // 2] * 2] * len(x))

    def _cropped(self, x: Tensor, corners: list[list[int]]) -> Tensor:
        height, width = (side - self.margin for side in x.shape[-2:])
        crops = [image[:, i : i + height, j : j + width] for image, (i, j) in zip(x, corners, strict=True)]
        return torch.stack(crops)
