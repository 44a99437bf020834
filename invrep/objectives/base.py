"""Define objectives: maps from codes to one number for each image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from invrep.objectives.code_selection import channel_axes
from invrep.representations.base import Representation


class Objective(nn.Module):
    """Map the code of each image to a value, which is reported, and to an energy, which is minimised.

    The constructor takes the codes of the photos, one row for each image. No objective couples two rows. The weights of
    a code's parts are divided by their sum.

    Args:
        code: codes of the photos, a list of tensors (B, …). An objective that needs no photo uses their shapes only.
        phi: representation, which knows the weights of the parts, their channel dimensions and the names of classes.
            None: equal weights, and channels in dimension 1, or 2 of (B, tokens, C).
        shape: (C, H, W) of the images, for an objective that depends on it.

    Attributes:
        shows: name of the value: ``error``, which the descent lowers, or ``activation``, which it raises.
        needs_photo: whether the objective needs a photo's code.
        starts_from_photo: whether the descent starts at the photo instead of noise.
        weight: factor of the energy.
        empty: mask of the rows without a valid target, such as an all-zero code, (B,) bool; None: no row.
        per_image: names of the buffers with one entry for each image, (B, …); see :meth:`hold`.
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
        """Register a buffer (B, …) with one entry for each image; ``register_buffer`` is for shared values."""
        self.register_buffer(name, value)
        self.per_image += (name,)

    def of(self, rows: Tensor) -> Objective:
        """Return the objective of the images at some places, (b,); shared buffers are not copied."""
        some = copy.copy(self)
        some._buffers = {n: b if b is None or n not in self.per_image else b[rows] for n, b in self._buffers.items()}
        return some

    def value(self, code: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
        """Return the reported value of each image. Shape: list of (B, …) → (B,)."""
        raise NotImplementedError

    def energy(self, value: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy to minimise, (B,), from the values, (B,)."""
        return value if self.weight == 1 else value * self.weight

    def forward(self, code: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
        """Return the energy of each image. Shape: list of (B, …) → (B,)."""
        return self.energy(self.value(code))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of :meth:`measures`."""
        return (self.shows,)

    def measures(self, code: Sequence[Float[Tensor, "batch ..."]]) -> dict[str, Float[Tensor, " batch"]]:
        """Return the measures of final images' codes for the table of results: name → (B,)."""
        return {self.shows: self.value(code)}

    def _weighted(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the parts' terms, (B,)."""
        if len(terms) == 1:
            return terms[0]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum(0)
