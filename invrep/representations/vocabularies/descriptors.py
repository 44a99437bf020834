"""Take local descriptors from a representation's code: one row for each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.geometry import Geometry
from invrep.stable_names import stable_name

EPSILON = 1e-12  # least norm by which a descriptor is divided


class Rows(NamedTuple):
    """Hold the local descriptors of a batch.

    Attributes:
        values: descriptors, (B, N, D), row by row of the image.
        grid: rows and columns of the positions, whose product is N; None where the code has no such order.
    """

    values: Float[Tensor, "batch row value"]
    grid: tuple[int, int] | None


def rows_of(code: Sequence[Tensor], phi: Representation) -> Rows:
    """Return the descriptors of a representation's code.

    Args:
        code: code of images by ``phi``, a list of one tensor: (B, D, rows, columns), (B, rows, columns, D) with
            ``phi.channel_axes``, or (B, tokens, D).
        phi: representation.

    Raises:
        InvrepError: the code has several parts, or one vector for a whole image.
    """
    name = getattr(phi, "name", None) or stable_name(type(phi)) or type(phi).__name__
    if len(code) != 1:
        raise InvrepError(f"rep.descriptor={name} has a code of {len(code)} parts; choose one layer.")
    part = code[0]
    if part.ndim not in (3, 4):
        raise InvrepError(
            f"rep.descriptor={name} has no positions: its code is one vector of {part[0].numel()} values for an image; "
            f"choose a convolutional layer or a layer of tokens."
        )
    axis = phi.channel_axes[0] if phi.channel_axes else 2 if part.ndim == 3 else 1
    places = part.movedim(axis, -1)
    return Rows(places.flatten(1, -2), (places.shape[1], places.shape[2]) if part.ndim == 4 else None)


def unit(rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row value"]:
    """Return rows x / max(‖x‖, 1e-12); a row of zeros stays zero, and so does its gradient."""
    square = rows.square().sum(-1, keepdim=True)
    # Clamped before the root, whose derivative at zero is infinite.
    return rows * square.clamp(min=EPSILON**2).rsqrt()


def positions(grid: tuple[int, int], place: Geometry, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the centres of a grid's rows and columns, in pixels from the centre of the first pixel.

    Args:
        grid: rows and columns of the positions.
        place: what the positions see; without a stride, or with an infinite field, they are spread evenly.
        size: height and width of the image in pixels.
    """
    centres = []
    for k, count in enumerate(grid):
        steps = torch.arange(count, dtype=torch.float64)
        if place.stride is None or math.isinf(place.field[k]):
            centres.append((steps + 0.5) * (size[k] / count) - 0.5)
        else:
            centres.append(steps * place.stride[k] + place.start[k] + (place.field[k] - 1) / 2)
    return centres[0], centres[1]


def describe(phi: Representation) -> dict[str, Any]:
    """Return what identifies a descriptor in a vocabulary's settings, as plain values.

    Returns:
        ``name``: stable name or class. ``arguments``: its settings, as text. ``layers``: paths of the network's layers.
        ``weights``: identity of its weights. The last two are None without layers or weights.
    """
    kind = type(phi)
    name = getattr(phi, "name", None) or stable_name(kind) or f"{kind.__module__}.{kind.__qualname__}"
    paths = getattr(phi, "paths", None)
    return {
        "name": name,
        "arguments": phi.extra_repr() if paths is None else "",
        "layers": None if paths is None else ", ".join(paths) or "output",
        "weights": phi.weights_id,
    }
