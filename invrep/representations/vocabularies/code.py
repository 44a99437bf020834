"""Chain descriptors, projection, encoder and pooling into a representation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.errors import InvrepError, UnfitError
from invrep.representations.base import Representation
from invrep.representations.geometry import Geometry
from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.descriptors import describe, positions, rows_of, unit
from invrep.representations.vocabularies.pooling import WHOLE, Cell, pyramid
from invrep.representations.vocabularies.projection import Projection
from invrep.representations.vocabularies.vocabulary import Vocabulary
from invrep.validation import number


class VocabularyCode(Representation):
    """Encode the local descriptors of an image by a vocabulary, and pool them.

    The stages are descriptor → unit norm → projection → encoder with pooling and normalisation.

    Args:
        descriptor: representation whose code has positions; images go to it as they are.
        vocabulary: fitted vocabulary; its projection, if it has one, is used.
        encoder: module (rows (B, N, D), cells, surrogate) → (B, cells, V).
        name: name of the code in messages.
        unit: whether each descriptor x becomes x / max(‖x‖, 1e-12).
        levels: cells along a side of each level of a spatial pyramid; (1,) is the whole image.
        stepwise: whether the encoder's own derivative is zero almost everywhere.
        source: how messages name the vocabulary.

    Shape:
        - images: as ``descriptor`` takes them.
        - code: [(B, V)] with the levels (1,), else a list of one (B, V, n, n) for each level n.

    Raises:
        InvrepError: a level is no whole number of at least 1.
    """

    def __init__(
        self,
        descriptor: Representation,
        vocabulary: Vocabulary,
        encoder: nn.Module,
        *,
        name: str,
        unit: bool = True,
        levels: Sequence[int] = (1,),
        stepwise: bool = False,
        source: str = "The vocabulary",
    ) -> None:
        super().__init__(descriptor.mean)
        self.levels = tuple(number("rep.pyramid", level, minimum=1, whole=True) for level in levels)
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise InvrepError(f"rep.pyramid={list(levels)} is not valid: expected different numbers, such as [1,2,4].")
        self.name, self.unit, self.source = name, unit, source
        self.descriptor, self.encoder = descriptor, encoder
        tensors = vocabulary.tensors
        self.projection = Projection(tensors["pca_mean"], tensors["pca_basis"]) if "pca_mean" in tensors else None
        self.width = next(
            t.shape[-1] for key, t in tensors.items() if key in ("pca_basis", "centers", "means", "atoms")
        )
        self.fitted_color = vocabulary.settings.get("color")
        self.channels, self.input_size = descriptor.channels, descriptor.input_size
        self.color = self.fitted_color or descriptor.color
        self.keeps_color, self.ignores_contrast = descriptor.keeps_color, descriptor.ignores_contrast
        self.stepwise = stepwise or descriptor.stepwise
        self.schedule = descriptor.schedule
        self.local_field = descriptor.receptive_field
        self.grid = descriptor.stride or descriptor.grid
        self.channel_axes = (1,) * len(self.levels)
        if len(self.levels) > 1:
            self.part_names = tuple(f"{level}x{level}" for level in self.levels)
        self.weights_id = "+".join(filter(None, (vocabulary.id, descriptor.weights_id)))

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return the code of images; the class gives shapes.

        Raises:
            InvrepError: the descriptor has no positions, or the vocabulary is of other descriptors or another colour.
            UnfitError: the image has no descriptor.
        """
        self._check_color(images.shape[1])
        rows = rows_of(self.descriptor.encode(images, surrogate), self.descriptor)
        count, width = rows.values.shape[1:]
        wanted = self.width if self.projection is None else self.projection.mean.shape[0]
        if width != wanted:
            raise InvrepError(
                f"{self.source} has words of descriptors of {wanted} values, but {describe(self.descriptor)['name']} "
                f"gives {width}; give a vocabulary that was fitted with this descriptor."
            )
        if not count:
            raise UnfitError(f"Images of {images.shape[2]}×{images.shape[3]} pixels have no descriptor; enlarge them.")
        cells = self._cells(rows.grid, images.shape[2:])
        with torch.autocast(images.device.type, enabled=False):
            values = rows.values.to(images.dtype)
            values = unit(values) if self.unit else values
            values = values if self.projection is None else self.projection(values)
            pooled: Tensor = self.encoder(values, cells, surrogate)
        if self.levels == (1,):
            return [pooled[:, 0]]
        parts = pooled.split([level * level for level in self.levels], 1)
        return [part.transpose(1, 2).unflatten(2, (n, n)) for n, part in zip(self.levels, parts, strict=True)]

    def geometry(self, height: int, width: int) -> list[Geometry]:
        """Return the image area that the cells of each level see: the cell, and what a descriptor at its edge sees."""
        margin = self.descriptor.receptive_field
        found = []
        for level in self.levels:
            if level == 1 or margin is None:
                found.append(Geometry((math.inf, math.inf), None))
                continue
            sides = tuple(math.ceil(side / level) for side in (height, width))
            field = (sides[0] + margin, sides[1] + margin)
            found.append(Geometry(field, (sides[0], sides[1]), (-(margin // 2),) * 2))
        return found

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"name={self.name}, unit={self.unit}, levels={self.levels}"

    @property
    def _shared(self) -> nn.Module:
        return self.descriptor._shared

    def _refusal(self, images: Tensor, error: Exception) -> str:
        return self.descriptor._refusal(images, error)

    def _check_color(self, channels: int) -> None:
        wanted = {"gray": 1, "rgb": 3}.get(self.fitted_color or "", channels)
        if self.keeps_color and channels != wanted:
            words = {1: "grey", 3: "colour"}
            raise InvrepError(
                f"{self.source} has words of {words[wanted]} photos, but these images are {words[channels]}, and "
                f"{describe(self.descriptor)['name']} keeps colour; add data.color={self.fitted_color}."
            )

    def _cells(self, grid: tuple[int, int] | None, size: Any) -> Sequence[Cell]:
        if self.levels == (1,):
            return WHOLE
        if grid is None:
            raise InvrepError(
                f"rep.pyramid={list(self.levels)} needs rows and columns, but the positions of "
                f"{describe(self.descriptor)['name']} are tokens; set rep.pyramid=[1]."
            )
        (place,) = self.descriptor.geometry(*size)
        return pyramid(positions(grid, place, tuple(size)), tuple(size), self.levels)
