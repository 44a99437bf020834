"""Record the values of a descent against its passes: densely at first, then by ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Curve = list[tuple[int, dict[str, Tensor]]]  # (pass, {name: (B,)})
DENSITY = 40  # two points are at most a 40th, 2.5 %, of the passes before them apart


def point_follows(curve: Curve, passes: int, first: int) -> bool:
    """Return whether the next pass is to be a point of the curve: each of a stage's first 80, then by ratio.

    Args:
        curve: points so far, with one of this stage.
        passes: number of passes so far.
        first: number of passes before the stage.
    """
    last = curve[-1][0]
    return passes - last >= (last - first) // DENSITY


def undo(curve: Curve, diverged: Tensor, begin: int) -> None:
    """Give images that diverge, in the points after a pass, the values at that pass, to which they return.

    Args:
        curve: points, with one at ``begin``; changed in place.
        diverged: bool (B,), True for an image that diverges.
        begin: number of passes before the segment.
    """
    start = max(k for k, (at, _) in enumerate(curve) if at == begin)
    for k in range(start + 1, len(curve)):
        at, terms = curve[k]
        curve[k] = at, held(diverged, curve[start][1], terms)


def held(rows: Tensor, kept: Mapping[str, Tensor], terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a point in which some rows, (B,) bool, have those of ``kept`` instead."""
    return {name: torch.where(rows, kept[name], value) for name, value in terms.items()}


def bared(terms: Mapping[str, Tensor], bare: Tensor) -> dict[str, Tensor]:
    """Return the values with NaN for the relative error of every image in ``bare``.

    Args:
        terms: values by name, {name: (B,)}; relative errors are ``error``, ``error/LAYER`` and ``root_error``.
        bare: bool (B,), True for an image without a relative error.
    """
    relative = [name for name in terms if name == "root_error" or name.partition("/")[0] == "error"]
    return {**terms, **{name: terms[name].masked_fill(bare, math.nan) for name in relative}}
