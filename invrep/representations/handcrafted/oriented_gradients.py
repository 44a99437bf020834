"""Compute oriented gradients for HOG and dense SIFT, and pool their votes for orientation bins into cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from invrep.representations.handcrafted.orientation_votes import Votes

# Learning rate and passes of the authors' descent for HOG, HOGb and DSIFT (paper.md §2).
SCHEDULE = ((4e-3, 200), (4e-4, 200), (4e-5, 200), (4e-6, 200))
# Pixels of an image in one strip: the arrays of more would leave a processor's cache.
STRIP = 2**16


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
        ctx.strips = _strips(gx)
        for strip in ctx.strips:
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
        kept = ctx.saved_tensors
        each = len(kept) // len(ctx.strips)
        for index, strip in enumerate(ctx.strips):
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
        total.add_(grad.view(-1).index_select(0, places.flatten()).view_as(chosen).mul_(share))
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
        batch, channels, height, width = ctx.shape = images.shape
        if channels == 1:
            ctx.strips = [slice(0, height - 2)]
            return _across(images[:, 0]), _down(images[:, 0])
        gx, gy = (images.new_empty(batch, height - 2, width - 2) for _ in range(2))
        ctx.strips, ctx.wins = _strips(gx), images.new_empty(channels, batch, height - 2, width - 2)
        for strip in ctx.strips:
            part = images[:, :, strip.start : strip.stop + 2]
            x, y = gx[:, strip].copy_(_across(part[:, 0])), gy[:, strip].copy_(_down(part[:, 0]))
            best = x * x + y * y
            for channel in range(1, channels):
                across, down = _across(part[:, channel]), _down(part[:, channel])
                size = (across * across).add_(down * down)
                # Floats 0 and 1, between which lerp is exact, choose five times as fast as torch.where.
                wins = ctx.wins[channel, :, strip].copy_(size).gt_(best)
                x.lerp_(across, wins)
                y.lerp_(down, wins)
                best = torch.maximum(best, size)
        return gx, gy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_y: Tensor) -> Tensor:
        """Return the images' gradient, (B, C, H, W)."""
        grad = grad_x.new_zeros(ctx.shape)
        for strip in ctx.strips:
            left_x, left_y = grad_x[:, strip], grad_y[:, strip]
            # From the last channel back: a channel gets the pixels that no later channel has won.
            for channel in reversed(range(ctx.shape[1])):
                x, y = left_x, left_y
                if channel > 0:
                    wins = ctx.wins[channel, :, strip]
                    x, y = x * wins, y * wins
                    left_x, left_y = left_x - x, left_y - y
                image = grad[:, channel, strip.start : strip.stop + 2]
                image[:, 1:-1, 2:].add_(x)
                image[:, 1:-1, :-2].sub_(x)
                image[:, 2:, 1:-1].add_(y)
                image[:, :-2, 1:-1].sub_(y)
        return grad


def _across(image: Tensor) -> Tensor:
    """Return the difference of left and right neighbours at interior pixels, (B, H, W) → (B, H − 2, W − 2)."""
    return image[:, 1:-1, 2:] - image[:, 1:-1, :-2]


def _down(image: Tensor) -> Tensor:
    """Return the difference of upper and lower neighbours at interior pixels, (B, H, W) → (B, H − 2, W − 2)."""
    return image[:, 2:, 1:-1] - image[:, :-2, 1:-1]


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
