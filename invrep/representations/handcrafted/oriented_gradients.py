"""Compute oriented gradients for HOG and dense SIFT: votes for orientation bins, and separable spatial pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Learning rate and passes of the authors' descent for HOG, HOGb and DSIFT (paper.md §2).
SCHEDULE = ((4e-3, 200), (4e-4, 200), (4e-5, 200), (4e-6, 200))
# Constant of the authors' released code inside the derivative of its bilinear binning.
NETWORK_SOFTENING = 1e-7
# Below the root of any positive float32 square: keeps a division finite without changing it.
TINY = 1e-30


class Votes(NamedTuple):
    """Hold each pixel's votes for orientation bins; no field carries a gradient.

    Attributes:
        magnitude: length of the image gradient, (B, H, W): the mass of the pixel's votes.
        cos, sin: direction of the gradient, (B, H, W); both zero where the magnitude counts as zero.
        first: bin with ``1 − weight`` of the mass, (B, H, W) int64.
        second: another bin, with ``weight`` of the mass, (B, H, W) int64; unused by hard votes.
        weight: share of the second bin, (B, H, W) in [0, 1].
        fall: derivative of the first bin's share, ``1 − weight``, by the gradient's angle, per radian, (B, H, W).
        rise: derivative of the second bin's share, likewise.
    """

    magnitude: Tensor
    cos: Tensor
    sin: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    fall: Tensor
    rise: Tensor


class Vote(torch.autograd.Function):
    """Spread the image gradient's magnitude over orientation bins, and pool it along the image's rows.

    The derivative is explicit. Its two parts, along the gradient (the magnitude) and across it (the angle), need only
    the unit direction. No part divides by the magnitude: flat pixels have the gradient zero, where autograd through
    acos, atan2 or sqrt gives NaN.

    The computation works strip by strip. The orientation maps are ``bins`` times as large as the image, and reading
    them from memory would cost more than computing them.

    Args:
        split: function from a strip of gx and gy to its :class:`Votes`.
        bins: number of orientation maps.
        hard: whether ``Votes.first`` gets all the mass.
        through_angle: whether the gradient of the split between the two bins is passed. For hard votes this is the
            straight-through estimate, since the split's own derivative is zero almost everywhere.
        columns: share of each pixel column in each column of cells, (w, W); it gets no gradient.

    Shape:
        - gx, gy: (B, H, W).
        - returns: (B, bins, H, w).
    """

    @staticmethod
    def forward(
        ctx: Any,
        gx: Tensor,
        gy: Tensor,
        split: Callable[[Tensor, Tensor], Votes],
        bins: int,
        hard: bool,
        through_angle: bool,
        columns: Tensor,
    ) -> Tensor:
        """Return the pooled votes, (B, bins, H, w)."""
        batch, height, width = gx.shape
        ctx.strips = _strips(height, bins * width)
        ctx.through_angle = through_angle
        pooled = gx.new_empty(batch, bins, height, len(columns))
        kept = [columns]
        for rows in ctx.strips:
            magnitude, *vote = split(gx[:, rows], gy[:, rows])
            first, second, weight = (x.unsqueeze(1) for x in vote[2:5])
            magnitude = magnitude.unsqueeze(1)
            maps = gx.new_zeros(batch, bins, *magnitude.shape[2:])
            if hard:
                maps.scatter_(1, first, magnitude)
            else:
                share = magnitude * weight
                maps.scatter_(1, first, magnitude - share).scatter_(1, second, share)
            pooled[:, :, rows] = _times(maps, columns.T)
            kept += vote if through_angle else vote[:3]
        ctx.save_for_backward(*kept)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of gx and gy, (B, H, W) each."""
        columns, *kept = ctx.saved_tensors
        each = len(kept) // len(ctx.strips)
        grad_x, grad_y = [], []
        for index, rows in enumerate(ctx.strips):
            cos, sin, first, *angle = kept[index * each : (index + 1) * each]
            maps = _times(grad[:, :, rows], columns)
            along = maps.gather(1, first.unsqueeze(1)).squeeze(1)
            if ctx.through_angle:
                second, weight, fall, rise = angle
                other = maps.gather(1, second.unsqueeze(1)).squeeze(1)
                across = along * fall + other * rise
                along = along + (other - along) * weight
                grad_x.append(along * cos - across * sin)
                grad_y.append(along * sin + across * cos)
            else:
                grad_x.append(along * cos)
                grad_y.append(along * sin)
        return torch.cat(grad_x, 1), torch.cat(grad_y, 1), None, None, None, None, None


def _strips(height: int, row: int) -> list[slice]:
    """Split ``height`` rows of ``row`` values into strips that fit a processor's cache, for every batch size."""
    size = max(1, 2**19 // row)
    return [slice(start, min(start + size, height)) for start in range(0, height, size)]


def _times(maps: Tensor, weights: Tensor) -> Tensor:
    """Multiply the last dimension, (B, K, H, W) · (W, w) → (B, K, H, w), in one product per image.

    One product over the batch would round a sum by the image's place in the batch.
    """
    product = torch.bmm(maps.flatten(1, 2), weights.expand(len(maps), -1, -1))
    parted: Tensor = product.unflatten(1, maps.shape[1:3])
    return parted


class Differences(torch.autograd.Function):
    """Return neighbours' differences of the channel where they are largest, the first of equals (vl_hog).

    Autograd would give the same derivative, but fill and add eight arrays of the image's size.

    Shape:
        - images: (B, C, H, W).
        - returns: differences along x and along y, (B, H − 2, W − 2) each, at interior pixels.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the differences along x and y."""
        ctx.shape, ctx.wins = images.shape, []
        for channel in range(images.shape[1]):
            image = images[:, channel]
            x = image[:, 1:-1, 2:] - image[:, 1:-1, :-2]
            y = image[:, 2:, 1:-1] - image[:, :-2, 1:-1]
            if images.shape[1] == 1:
                return x, y
            size = x * x + y * y
            if channel == 0:
                gx, gy, best = x, y, size
                continue
            # Floats 0 and 1: products choose five times as fast as torch.where.
            wins = size.clone().gt_(best)
            loses = 1 - wins
            gx, gy = x * wins + gx * loses, y * wins + gy * loses
            best = torch.maximum(best, size)
            ctx.wins.append(wins)
        return gx, gy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_y: Tensor) -> Tensor:
        """Return the images' gradient, (B, C, H, W)."""
        grad = grad_x.new_zeros(ctx.shape)
        # From the last channel back: a channel gets the pixels that no later channel has won.
        for channel in reversed(range(ctx.shape[1])):
            x, y = grad_x, grad_y
            if channel > 0:
                wins = ctx.wins[channel - 1]
                x, y = x * wins, y * wins
                grad_x, grad_y = grad_x - x, grad_y - y
            image = grad[:, channel]
            image[:, 1:-1, 2:] += x
            image[:, 1:-1, :-2] -= x
            image[:, 2:, 1:-1] += y
            image[:, :-2, 1:-1] -= y
        return grad


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


def linear_votes(gx: Tensor, gy: Tensor, orientations: int, hard: bool, soften: float = 0.0) -> Votes:
    """Return votes for the ``2·orientations`` directed bins centred at angles kπ/orientations.

    The split between the two nearest bins is linear in the angle: 1 − (K/π)·acos⟨g, o_k⟩/‖g‖. The scores ⟨g, o_k⟩,
    their rounding and their ties follow VLFeat 0.9.21 (``vl_hog_put_image``). VLFeat compares scores in the order of
    the undirected orientation k mod K, and the first of equal scores wins.

    Args:
        gx, gy: image gradient, (B, H, W).
        orientations: number K of undirected orientations.
        hard: whether to leave out the second bin, the weight and the slopes (empty tensors).
        soften: squared angle over which the slope's jump at a bin's centre is rounded off, at least the type's epsilon.
    """
    magnitude, cos, sin = polar(gx, gy)
    scale = orientations / np.pi
    x, y = constant(_centres, (orientations,), gx.dtype, gx.device)
    bins, undirected = constant(_numbers, (orientations,), torch.int64, gx.device)

    def score(centre: Tensor) -> Tensor:
        return gx * _look_up(x, centre) + gy * _look_up(y, centre)

    # The two centres around the direction, as places in these tables; the scores say which is nearer.
    turn = _each(torch.atan2, sin, cos).mul_(scale).floor_()
    low = turn.long().add_(orientations + 1).clamp_(1, 2 * orientations + 1)
    high = low + 1
    low_score, high_score = score(low), score(high)
    wins = high_score > low_score
    # Of equal scores the higher wins where it is orientation 0 or K.
    wins |= (high_score == low_score) & ((turn == -1) | (turn == orientations - 1))
    chosen = low + wins
    first = _look_up(bins, chosen)
    if hard:
        empty = gx.new_empty(0, 0)
        return Votes(magnitude, cos, sin, first, empty, empty, empty, empty)
    before, after = score(chosen - 1), score(chosen + 1)
    # Scores are equal at the centre of a bin. The bin before came first, except that orientation K − 1 comes last.
    k = _look_up(undirected, chosen)
    up = (after > before) | ((after == before) & ((k == 0) | (k == orientations - 1)))
    second = _look_up(bins, chosen - 1 + 2 * up)
    best = torch.maximum(low_score, high_score)
    weight = _each(torch.acos, (best / magnitude.clamp(min=TINY)).clamp_(max=1)) * scale
    # Sine of the angle from the first centre to the gradient.
    offset = sin * _look_up(x, chosen) - cos * _look_up(y, chosen)
    # The hat's tip is rounded off over an angle of √epsilon, below the resolution of acos.
    fall = offset * (offset.square() + max(soften, torch.finfo(gx.dtype).eps)).rsqrt() * -scale
    return Votes(magnitude, cos, sin, first, second, weight, fall, offset.sign() * scale)


def _each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a transcendental function to (B, …); on a CPU to one image after the other.

    On a CPU another routine computes the last values of an array, and of every thread's part of one. Its rounding
    differs, so a value would depend on its image's place in the batch.
    """
    return function(*tensors) if tensors[0].is_cuda else torch.stack([function(*x) for x in zip(*tensors, strict=True)])


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, several times as fast as indexing."""
    return table.index_select(0, index.flatten()).view_as(index)


def _centres(orientations: int) -> np.ndarray:
    """Return the cosines and sines of the angles −π − π/K … π + 2π/K in steps of π/K, (2, 2K + 4).

    Opposite angles have exactly opposite values, as in VLFeat, which flips a score's sign.
    """
    angles = np.arange(orientations) * np.pi / orientations
    half = np.stack([np.cos(angles), np.sin(angles)])
    return np.concatenate([half, -half], 1)[:, _numbers(orientations)[0]]


def _numbers(orientations: int) -> np.ndarray:
    """Return the directed bin and the undirected orientation of the angles of :func:`_centres`, (2, 2K + 4)."""
    bins = (np.arange(2 * orientations + 4) + orientations - 1) % (2 * orientations)
    return np.stack([bins, bins % orientations])


@lru_cache(maxsize=64)
def constant(make: Any, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``make(*arguments)``, a float64 array, as a cached tensor.

    The array is cast once from float64, so a double-precision image meets double-precision constants.
    """
    # A tensor made under inference_mode could join no later backward pass.
    with torch.inference_mode(False):
        return torch.tensor(make(*arguments), dtype=dtype, device=device)


def pool(maps: Tensor, rows: Tensor) -> Tensor:
    """Pool pixel rows into cells: the second half of the separable pooling that :class:`Vote` begins.

    Shape:
        - maps: (B, K, H, w).
        - rows: weights of the pixel rows, (h, H).
        - returns: (B, K, h, w).
    """
    product = torch.bmm(rows.expand(maps.shape[0] * maps.shape[1], -1, -1), maps.flatten(0, 1))
    parted: Tensor = product.unflatten(0, maps.shape[:2])
    return parted
