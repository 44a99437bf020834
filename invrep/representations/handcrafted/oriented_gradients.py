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
# Pixels of an image in one strip. A processor's cache holds their arrays, and torch shares no more than these among
# threads, which would round them otherwise.
STRIP = 2**15


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


class Rows(NamedTuple):
    """Hold the shares of each row of pixels in rows of cells.

    Attributes:
        cells: rows of cells in which a row of pixels has a share, (n, H).
        shares: these shares, (n, H, 1); some may be zero.
        height: number h of rows of cells.
        period: distance from which two rows of pixels never share ``cells[i]``.
    """

    cells: Tensor
    shares: Tensor
    height: int
    period: int


class Vote(torch.autograd.Function):
    """Spread the image gradient's magnitude over orientation bins, and pool it along the image's columns.

    The derivative is explicit. Its two parts, along the gradient (the magnitude) and across it (the angle), need only
    the unit direction. No part divides by the magnitude: flat pixels have the gradient zero, where autograd through
    acos, atan2 or sqrt gives NaN.

    The computation works strip by strip, in a processor's cache. Each vote goes straight to its rows of cells:
    orientation maps of the image's size would cost more to read and write than all the rest.

    Args:
        vote: function from a strip of gx and gy to its :class:`Votes`.
        bins: number of orientation maps.
        rows: shares of the rows; they get no gradient.

    Shape:
        - gx, gy: (B, H, W).
        - returns: (B, bins, h, W).
    """

    @staticmethod
    def forward(
        ctx: Any, gx: Tensor, gy: Tensor, vote: Callable[[Tensor, Tensor], Votes], bins: int, rows: Rows
    ) -> Tensor:
        """Return the pooled votes, (B, bins, h, W)."""
        pooled = gx.new_zeros(len(gx), bins, rows.height, gx.shape[2])
        kept: list[Tensor] = []
        for strip in _strips(gx):
            magnitude, cos, sin, nearest, split = vote(gx[:, strip], gy[:, strip])
            if nearest is not None:
                _spread(pooled, nearest, magnitude, rows, strip)
            elif split is not None:
                upper = magnitude * split.weight
                _spread(pooled, split.lower, magnitude - upper, rows, strip)
                _spread(pooled, split.upper, upper, rows, strip)
            kept += [cos, sin, *(split or [nearest])]
        ctx.rows = rows
        ctx.save_for_backward(*kept)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of gx and gy, (B, H, W) each."""
        grad = grad.contiguous()
        grad_x = grad.new_empty(len(grad), ctx.rows.cells.shape[1], grad.shape[3])
        grad_y = torch.empty_like(grad_x)
        strips, kept = _strips(grad_x), ctx.saved_tensors
        each = len(kept) // len(strips)
        for index, strip in enumerate(strips):
            cos, sin, chosen, *split = kept[index * each : (index + 1) * each]
            x, y = grad_x[:, strip], grad_y[:, strip]
            along = _collect(grad, chosen, ctx.rows, strip)
            if split:
                chosen, weight, fall, rise = split
                upper = _collect(grad, chosen, ctx.rows, strip)
                across = (along * fall).add_(upper * rise)
                along += upper.sub_(along).mul_(weight)
                torch.mul(along, cos, out=x).sub_(across * sin)
                torch.mul(along, sin, out=y).add_(across.mul_(cos))
            else:
                torch.mul(along, cos, out=x)
                torch.mul(along, sin, out=y)
        return grad_x, grad_y, None, None, None


def _strips(images: Tensor) -> list[slice]:
    """Split the rows of (B, H, W) into strips on a CPU; a GPU takes them whole."""
    height, width = images.shape[1:]
    size = height if images.is_cuda else max(1, STRIP // width)
    return [slice(start, min(start + size, height)) for start in range(0, height, size)]


def _spread(pooled: Tensor, chosen: Tensor, mass: Tensor, rows: Rows, strip: slice) -> None:
    """Add each pixel's mass, (B, S, W), to its bin in its rows of cells of ``pooled``, (B, bins, h, W)."""
    # A GPU adds to one place in any order; the places of each of these parts differ.
    step = rows.period if mass.is_cuda else 1
    for places, share in zip(_places(pooled, chosen, rows, strip), rows.shares[:, strip], strict=True):
        part = mass * share
        for k in range(step):
            pooled.view(-1).scatter_add_(0, places[:, k::step].long().flatten(), part[:, k::step].flatten())


def _collect(grad: Tensor, chosen: Tensor, rows: Rows, strip: slice) -> Tensor:
    """Return the gradient of each pixel's mass, (B, S, W): the transpose of :func:`_spread`."""
    total = grad.new_zeros(chosen.shape)
    for places, share in zip(_places(grad, chosen, rows, strip), rows.shares[:, strip], strict=True):
        total.addcmul_(grad.view(-1).index_select(0, places.flatten()).view_as(chosen), share)
    return total


def _places(pooled: Tensor, chosen: Tensor, rows: Rows, strip: slice) -> list[Tensor]:
    """Return for each row of cells where pixels' bins, (B, S, W), lie in the flattened (B, bins, h, W)."""
    # Half as large an index type takes half the time.
    dtype = torch.int32 if pooled.numel() < 2**31 else torch.int64
    batch, _, height, width = pooled.shape
    columns = torch.arange(width, dtype=dtype, device=pooled.device)
    images = torch.arange(batch, dtype=dtype, device=pooled.device) * pooled[0].numel()
    base = torch.add(columns + images[:, None, None], chosen, alpha=height * width)
    return [base + start for start in rows.cells[:, strip, None] * width]


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
    winner = second.gt(first).int().add_(place, alpha=2)
    order, above = constant(_order, (orientations,), torch.int32, gx.device)
    nearest = _look_up(order, winner) if hard else None
    if not through_angle:
        return Votes(magnitude, cos, sin, nearest, None)
    lower, upper = (_look_up(x, place) for x in constant(_around, (orientations,), torch.int32, gx.device))
    weight = fraction = turn.sub_(floor)
    if not hard:
        # As in VLFeat, whose acos is off by up to a thousandth of a bin near a bin's centre.
        cosine = torch.maximum(first, second).div_(magnitude.clamp(min=TINY)).clamp_(max=1)
        weight = _each(torch.acos, cosine).mul_(scale).sub_(_look_up(above, winner)).abs_()
    fall, rise = (gx.new_tensor(slope) for slope in (-scale, scale))
    if soften:
        soften *= scale**2
        fall = fall * fraction * (fraction.square() + soften).rsqrt()
        rise = rise * (1 - fraction) * ((1 - fraction).square() + soften).rsqrt()
    return Votes(magnitude, cos, sin, nearest, Split(lower, upper, weight, fall, rise))


def _each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a transcendental function to (B, …); on a CPU to one image after the other.

    On a CPU another routine computes the last values of an array, and of every thread's part of one. Its rounding
    differs, so a value would depend on its image's place in the batch.
    """
    return function(*tensors) if tensors[0].is_cuda else torch.stack([function(*x) for x in zip(*tensors, strict=True)])


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


@lru_cache(maxsize=64)
def rows_of(make: Any, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Rows:
    """Return the shares ``make(*arguments)``, (h, H), of rows of pixels in rows of cells; cached, like constants."""
    weights = make(*arguments)
    shared = weights != 0
    cells = np.argsort(~shared, axis=0, kind="stable")[: shared.sum(0).max()]
    shares = np.take_along_axis(weights, cells, 0)[:, :, None]
    with torch.inference_mode(False):
        return Rows(
            torch.tensor(cells, dtype=torch.int32, device=device),
            torch.tensor(shares, dtype=dtype, device=device),
            len(weights),
            int(shared.sum(1).max()),
        )


def pool_rows(maps: Tensor, rows: Tensor) -> Tensor:
    """Pool pixel rows into cells, (B, K, H, W) → (B, K, h, W), by weights (h, H)."""
    product = torch.bmm(rows.expand(maps.shape[0] * maps.shape[1], -1, -1), maps.flatten(0, 1))
    parted: Tensor = product.unflatten(0, maps.shape[:2])
    return parted


def pool_columns(maps: Tensor, columns: Tensor) -> Tensor:
    """Pool pixel columns into cells, (B, K, h, W) → (B, K, h, w), by weights (w, W), in one product per image.

    One product over the batch would round a sum by the image's place in the batch.
    """
    product = torch.bmm(maps.flatten(1, 2), columns.T.expand(len(maps), -1, -1))
    parted: Tensor = product.unflatten(1, maps.shape[1:3])
    return parted
