"""Jitter: each pass of each image sees the image tensor from an offset of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from invrep.optim.start_noise import generator_of


@dataclass(frozen=True)
class Jitter:
    """The offsets from which Φ sees an image tensor that is larger than its images.

    Attributes:
        offsets: (B, passes, 2), row and column for each pass of each image.
        margin: rows and columns by which the image tensor is larger.
    """

    offsets: Tensor
    margin: int

    @classmethod
    def draw(cls, rows: Sequence[tuple[int, str, int]], seed: int, margin: int, passes: int) -> Self:
        """Draw offsets between 0 and the margin, uniformly at random.

        Args:
            rows: for each row of the image tensor the photo's index, its id and the number of the restart.
            seed: of the job, together with id and restart.
            margin: in pixels.
            passes: of the stage.
        """
        draws = []
        for _, image, restart in rows:
            generator = generator_of(seed, image, restart, "jitter")
            draws.append(torch.randint(margin + 1, (passes, 2), generator=generator))
        return cls(torch.stack(draws), margin)

    def crop(self, x: Tensor, number: int, rows: Tensor | None) -> Tensor:
        """Return what Φ sees of x in one pass.

        Args:
            x: (b, C, H, W).
            number: of the pass, within the stage.
            rows: (b,), the places in the batch of the images of x; None for all of them.
        """
        offsets = self.offsets[:, number]
        return self._cropped(x, (offsets if rows is None else offsets[rows.cpu()]).tolist())

    def centre(self, x: Tensor) -> Tensor:
        """Return the centre of x, (B, C, H, W), as large as what Φ sees."""
        return self._cropped(x, [[self.margin // 2] * 2] * len(x))

    def _cropped(self, x: Tensor, corners: list[list[int]]) -> Tensor:
        height, width = (side - self.margin for side in x.shape[-2:])
        crops = [image[:, i : i + height, j : j + width] for image, (i, j) in zip(x, corners, strict=True)]
        return torch.stack(crops)
