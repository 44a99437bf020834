"""Compute votes for orientation bins from image gradients: the length, the direction, and the bins around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# Constant of the authors' released code inside the derivative of its bilinear binning.
NETWORK_SOFTENING = 1e-7
# Below the root of any positive float32 square: keeps a division finite without changing it.
TINY = 1e-30
# Values that torch does not share among threads.
PART = 2**15


class Split(NamedTuple):
    """Share each pixel's votes out between the two bins around its gradient's angle; no field carries a gradient.

    Attributes:
        lower, upper: bin below and bin above the angle, (B, H, W) int32.
        weight: share of the upper bin, (B, H, W) in [0, 1].
        fall: derivative of the lower bin's share by the angle, per radian; (B, H, W) or ().
        rise: derivative of the upper bin's share, likewise.
    """

    lower: Tensor
    upper: Tensor
    weight: Tensor
    fall: Tensor
    rise: Tensor


class Votes(NamedTuple):
    """Hold each pixel's votes for orientation bins; no field carries a gradient.

    Attributes:
        magnitude: length of the image gradient, (B, H, W): the mass of the pixel's votes.
        cos, sin: direction of the gradient, (B, H, W); both zero where the magnitude counts as zero.
        nearest: bin that gets all the mass, (B, H, W) int32; None where two bins share it.
        split: shares of two bins; None where the gradient's angle gets no derivative. Beside ``nearest`` they make the
            straight-through estimate, since the derivative of hard votes by the angle is zero almost everywhere.
    """

    magnitude: Tensor
    cos: Tensor
    sin: Tensor
    nearest: Tensor | None
    split: Split | None


def polar(gx: Tensor, gy: Tensor, flat: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return magnitude, cosine and sine of image gradients, (B, H, W) each.

    All three are zero where the squared magnitude is below ``flat``, or is zero.

    Args:
        gx: image gradient along x, (B, H, W).
        gy: image gradient along y, (B, H, W).
        flat: bound of the squared magnitude.
    """
    square = gx * gx + gy * gy
    magnitude = square.sqrt() if flat == 0 else square.sqrt().masked_fill_(square < flat, 0)
    # As in vl_hog, a flat pixel becomes 0/1e-10 = 0. The square of a smaller length is zero in float32.
    length = magnitude.clamp(min=TINY) if flat == 0 else magnitude.masked_fill(magnitude == 0, torch.inf)
    return magnitude, gx / length, gy / length


def linear_votes(
    gx: Tensor, gy: Tensor, orientations: int, hard: bool, through_angle: bool, soften: float = 0.0
) -> Votes:
    """Return votes for the ``2·orientations`` directed bins centred at angles kπ/orientations.

    The split between the two bins around the angle is linear in the angle. The nearest bin's choice, by the scores
    ⟨g, o_k⟩, their rounding and their ties follow VLFeat 0.9.21 (``vl_hog_put_image``). VLFeat compares scores in the
    order of the undirected orientation k mod K, and the first of equal scores wins.

    Args:
        gx, gy: image gradient, (B, H, W).
        orientations: number K of undirected orientations.
        hard: whether the nearest bin gets all the mass.
        through_angle: whether the split is returned; bilinear votes need it.
        soften: squared angle over which the slopes' jump at a bin's centre is rounded off.
    """
    magnitude, cos, sin = polar(gx, gy)
    scale = orientations / np.pi
    turn = _each(torch.atan2, gy, gx).mul_(scale)
    floor = turn.floor()
    # The place of the two bins in the tables; it is in range for a gradient that is not a number, too.
    place = floor.int().add_(orientations).clamp_(0, 2 * orientations)
    first_x, first_y, second_x, second_y = constant(_rivals, (orientations,), gx.dtype, gx.device)
    first = (gx * _look_up(first_x, place)).add_(gy * _look_up(first_y, place))
    second = (gx * _look_up(second_x, place)).add_(gy * _look_up(second_y, place))
    best = torch.maximum(first, second)
    winner = second.gt_(first).int().add_(place, alpha=2)
    order, above = constant(_order, (orientations,), torch.int32, gx.device)
    nearest = _look_up(order, winner) if hard else None
    if not through_angle:
        return Votes(magnitude, cos, sin, nearest, None)
    lower, upper = (_look_up(x, place) for x in constant(_around, (orientations,), torch.int32, gx.device))
    weight = fraction = turn.sub_(floor)
    if not hard:
        # As in VLFeat, whose acos is off by up to a thousandth of a bin near a bin's centre.
        cosine = best.div_(magnitude.clamp(min=TINY)).clamp_(max=1)
        weight = _each(torch.acos, cosine).mul_(scale).sub_(_look_up(above, winner)).abs_()
    fall, rise = (gx.new_full((), slope) for slope in (-scale, scale))
    if soften:
        soften *= scale**2
        fall = fall * fraction * (fraction.square() + soften).rsqrt()
        rise = rise * (1 - fraction) * ((1 - fraction).square() + soften).rsqrt()
    return Votes(magnitude, cos, sin, nearest, Split(lower, upper, weight, fall, rise))


def _each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a transcendental function to (B, …); on a CPU to one image after the other, in parts.

    On a CPU another routine computes the last values of an array, and of every thread's part of one. Its rounding
    differs, so a value would depend on its image's place in the batch. No thread shares arrays as small as a part.
    """
    if tensors[0].is_cuda:
        return function(*tensors)
    flat = [x.flatten(1) for x in tensors]
    values = torch.empty_like(flat[0])
    for image in range(len(values)):
        for start in range(0, values.shape[1], PART):
            part = image, slice(start, start + PART)
            values[part] = function(*(x[part] for x in flat))
    return values.view_as(tensors[0])


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, several times as fast as indexing."""
    return table.index_select(0, index.flatten()).view_as(index)


def _around(orientations: int) -> np.ndarray:
    """Return the directed bins below and above the angles from −π to π + π/K in steps of π/K, (2, 2K + 1)."""
    lower = np.arange(-orientations, orientations + 1)
    return np.stack([lower, lower + 1]) % (2 * orientations)


def _order(orientations: int) -> np.ndarray:
    """Return the two bins of each pair of :func:`_around` side by side, in VLFeat's order of comparison.

    The second row says whether the bin is the upper one, (2, 4K + 2).
    """
    pairs = _around(orientations)
    upper = np.argsort(pairs % orientations, axis=0)
    return np.stack([np.take_along_axis(pairs, upper, axis=0).T.ravel(), upper.T.ravel()])


def _rivals(orientations: int) -> np.ndarray:
    """Return cosine and sine of the centre that VLFeat compares first, then of the second, (4, 2K + 1).

    Opposite angles have exactly opposite values, as in VLFeat, which flips a score's sign.
    """
    angles = np.arange(orientations) * np.pi / orientations
    half = np.stack([np.cos(angles), np.sin(angles)])
    centres = np.concatenate([half, -half], 1)[:, _order(orientations)[0]]
    return np.concatenate([centres[:, ::2], centres[:, 1::2]])


@lru_cache(maxsize=64)
def constant(make: Any, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``make(*arguments)``, a float64 array, as a cached tensor.

    The array is cast once from float64, so a double-precision image meets double-precision constants.
    """
    # A tensor made under inference_mode could join no later backward pass.
    with torch.inference_mode(False):
        return torch.tensor(make(*arguments), dtype=dtype, device=device)
