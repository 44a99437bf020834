"""What is asked of a code: one number for each image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from invrep.objectives.code_selection import channel_axes
from invrep.representations.base import Representation


class Objective(nn.Module):
    """What every objective has: a value for each image, to be shown, and the energy that follows from it.

    It is made from the code of each row's photo, and nothing in it couples two rows. Where a code has several parts,
    their weights are taken relative to their sum.

    Args:
        code: of each row's photo, a list of tensors (B, …). An objective that needs no photo takes the shapes only.
        phi: the representation, which knows the weights of the parts, which of their dimensions is that of the
            channels, and the names of classes. None: equal weights, dimension 1, or 2 of (B, tokens, C).
        shape: (C, H, W) of the images, for an objective that depends on it.

    Attributes:
        shows: the name of the value: ``error``, to be made small, or ``activation``, to be made large.
        needs_photo: whether it asks for something that only a photo has.
        starts_from_photo: whether the descent begins at the photo instead of noise.
        weight: a factor of the energy.
        empty: rows that have nothing to compare with, (B,) bool, such as those of a code that is zero; None: no row.
        per_image: names of the buffers that hold something for each image, (B, …); see :meth:`hold`.
    """

    shows: str
    needs_photo = True
    starts_from_photo = False
    weight: float = 1.0
    empty: Bool[Tensor, " batch"] | None = None

    def __init__(
        self,
        code: Sequence[Float[Tensor, "batch ..."]],
        *,
        phi: Representation | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.per_image: tuple[str, ...] = ()
        self.axes = channel_axes(code, phi)
        names = getattr(phi, "part_names", None)
        self.names = list(names) if names and len(names) == len(code) else [f"part{k}" for k in range(len(code))]
        weights = [1.0] * len(code) if phi is None or phi.weights is None else list(phi.weights)
        self.weights = [w / sum(weights) for w in weights]

    def hold(self, name: str, value: Tensor) -> None:
        """Register a buffer (B, …) that holds something for each image; ``register_buffer`` is for what all share."""
        self.register_buffer(name, value)
        self.per_image += (name,)

    def of(self, rows: Tensor) -> Objective:
        """Return the objective of some of its images alone, by their places (b,); what all share is not copied."""
        some = copy.copy(self)
        some._buffers = {n: b if b is None or n not in self.per_image else b[rows] for n, b in self._buffers.items()}
        return some

    def value(self, code: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
        """Return what is shown of each image. Shape: list of (B, …) → (B,)."""
        raise NotImplementedError

    def energy(self, value: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return what is minimised, (B,), of the values, (B,)."""
        return value if self.weight == 1 else value * self.weight

    def forward(self, code: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
        """Return the energy of each image. Shape: list of (B, …) → (B,)."""
        return self.energy(self.value(code))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of :meth:`measures`."""
        return (self.shows,)

    def measures(self, code: Sequence[Float[Tensor, "batch ..."]]) -> dict[str, Float[Tensor, " batch"]]:
        """Return what the table holds of final images' codes: name → (B,)."""
        return {self.shows: self.value(code)}

    def _weighted(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of the parts' terms by their weights, (B,)."""
        if len(terms) == 1:
            return terms[0]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum(0)
