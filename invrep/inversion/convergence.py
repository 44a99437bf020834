"""When an image has converged: nothing that its remaining passes could bring is worth their time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CHECKS = 5  # the fewest intervals between checks that a verdict looks back on
DOUBT = 4  # times as much as the band says may come: it said .5 % of an AlexNet image that then fell by 1.5 %
REACH = 4  # a verdict looks no further ahead than this many times as far as it looks back


def converged(energies: Sequence[Tensor], best: Tensor, *, left: float, tolerance: float) -> Tensor:
    """Tell which images could gain no more than ``tolerance`` of their energy in the passes that are left.

    The width of an energy's band over the last checks, from its least to its greatest value, stands for what as many
    passes can change, noise and rises included. An image has converged where :data:`DOUBT` times that, over all passes
    that are left, is within the tolerance, and the energy is as low as it has ever been. A rise is no convergence: it
    widens the band and lies above the best; a single quiet check is none, since the band is that of several.

    Args:
        energies: (B,) at each check since the descent's recipe last changed, the latest at the end; not finite where
            an image has diverged.
        best: (B,), the least energy of each image so far.
        left: how many checks' passes are left.
        tolerance: the part of the energy.

    Returns:
        (B,) bool.
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
    """Return over how many intervals between checks a verdict looks back when ``left`` of them are to come."""
    return max(CHECKS, math.ceil(left / REACH))
