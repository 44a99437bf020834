"""Decide when an image has converged: its remaining passes could lower its energy by no more than the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CHECKS = 5  # least number of intervals between checks in the band
DOUBT = 4  # safety factor on the band: an AlexNet image fell by 1.5 % where its band predicted .5 %
REACH = 4  # most passes ahead, as a multiple of the passes in the band


def converged(energies: Sequence[Tensor], best: Tensor, *, left: float, tolerance: float) -> Tensor:
    """Return which images could lower their energy by no more than ``tolerance`` in the remaining passes.

    The band of an energy is its greatest minus its least value over the last checks. It estimates the change over as
    many passes, noise and rises included. An image has converged under two conditions. :data:`DOUBT` times the band,
    scaled to the remaining passes, is within the tolerance. The energy is as low as ever, up to the same margin.

    A rising energy does not converge: the rise widens the band and lies above the best. One quiet check is not enough:
    the band covers several checks.

    Args:
        energies: energies (B,) at each check since the recipe settled, latest last; not finite where an image has
            diverged.
        best: least energy (B,) of each image so far.
        left: number of checks in the remaining passes; may be fractional.
        tolerance: allowed change, as a fraction of the energy.

    Returns:
        Bool (B,), True for an image that has converged; all False with too few checks.
    """
    back = look_back(left)
    latest = energies[-1]
    if len(energies) <= back:
        return torch.zeros_like(latest, dtype=torch.bool)
    window = torch.stack(list(energies[-1 - back :]))
    band = window.amax(0) - window.amin(0)
    room = tolerance / DOUBT * latest.abs()
    return latest.isfinite() & (band * max(left / back, 1.0) <= room) & (latest <= best + room)


def look_back(left: float) -> int:
    """Return the number of intervals between checks in the band when ``left`` intervals remain."""
    return max(CHECKS, math.ceil(left / REACH))
