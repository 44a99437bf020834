"""Predict pixels from codes by linear regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from invrep.baselines.gallery import Gallery, gallery_of
from invrep.errors import InvrepError
from invrep.fitting.positions import Grid, grid_of
from invrep.representations.base import Representation
from invrep.stable_names import known_as

WINDOWS = (5, 3, 1)  # sides of a position's neighbourhood, of which the largest that fits is taken
MOST_VALUES = 5000  # of a neighbourhood; its matrix of products then takes 200 MB
MOST_BYTES = 2**31  # of all photos and their codes
POSITIONS = 1000  # of a photo, from which the regression learns
RIDGE = 1e-3  # of whole codes, of the mean square of what they are learnt from
SMOOTH = 1e-6  # of positions, which are far more


@known_as("linear regression")
@torch.no_grad()
def linear(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
    path: str | None = None,
    limit: int | None = 500,
    resize: str | None = None,
) -> Float[Tensor, "batch channel row column"]:
    """Return the pictures that ridge regression predicts from codes, after learning from the photos of a folder.

    A code with positions predicts the pixels about each position, a square of the stride's side, from up to 5×5
    neighbouring positions. Any other code predicts the whole picture.

    Args:
        code: codes Φ0, a list of (B, …).
        phi: representation Φ.
        shape: (C, H, W) of a picture; each photo of the folder is made to cover it and cropped.
        draws: unused; nothing is random.
        path: source of the photos, as ``data.path``, none of which is to be predicted.
        limit: greatest number of photos; None for all.
        resize: ``model``, ``squash`` or ``none``; None: as a job reads photos for Φ.

    Raises:
        InvrepError: no photo is at the path, or the code and the photos are too large to learn from.
    """
    gallery = gallery_of(path, phi, shape, limit, resize)
    if (grid := grid_of(phi, code, shape[1:])) is not None:
        return _patchwise(grid, shape, gallery)
    rows = torch.cat([one.flatten(1) for one in code], 1)
    learnt = _whole(gallery, rows.shape[1])
    weights = learnt.solved @ (learnt.codes @ (rows.cpu().double() - learnt.mean).T)
    found = learnt.picture + (weights.T.float() @ learnt.pixels)
    return found.reshape(-1, *shape).to(code[0])


class _Whole(NamedTuple):
    """Hold N photos and codes, less their means, and the inverse of their kernel matrix."""

    codes: Tensor
    pixels: Tensor
    mean: Tensor
    picture: Tensor
    solved: Tensor


@lru_cache(maxsize=1)
def _whole(gallery: Gallery, values: int) -> _Whole:
    """Return what predicts whole pictures: ridge regression in its dual form, whose matrix has a row for each photo.

    Args:
        gallery: photos and codes.
        values: number of values of a code.

    Raises:
        InvrepError: photos and codes do not fit into 2 GiB.
    """
    pixels = math.prod(gallery.shape)
    if len(gallery) * (8 * values + 4 * pixels) > MOST_BYTES:
        fit = MOST_BYTES // (8 * values + 4 * pixels)
        raise InvrepError(
            f"baseline=linear would hold {len(gallery)} photos of {pixels} values with codes of {values}, more than "
            f"2 GiB; add baseline.limit={fit}, or take smaller photos."
        )
    codes = torch.empty(len(gallery), values, dtype=torch.float64)
    pictures = torch.empty(len(gallery), pixels)
    at = 0
    for images, parts in gallery:
        codes[at : at + len(images)] = torch.cat([part.flatten(1) for part in parts], 1)
        pictures[at : at + len(images)] = images.flatten(1)
        at += len(images)
    mean, picture = codes.mean(0), pictures.mean(0)
    codes -= mean
    pictures -= picture
    kernel = codes @ codes.T
    ridge = RIDGE * kernel.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    kernel.diagonal().add_(ridge)
    return _Whole(codes, pictures, mean, picture, torch.linalg.inv(kernel))


def _patchwise(grid: Grid, shape: tuple[int, int, int], gallery: Gallery) -> Float[Tensor, "batch channel row column"]:
    _, height, width = shape
    part, stride, first = grid.values, grid.stride, _first_pixel(grid)
    squares = (_rows(part.cpu().double(), _neighbourhood(part.shape[1])) @ _learnt(gallery)).movedim(1, 2)
    laid = (part.shape[2] * stride, part.shape[3] * stride)
    pictures = F.fold(squares, laid, stride, stride=stride)
    edges = [first, width - first - laid[1], first, height - first - laid[0]]
    within = F.pad(pictures, [min(edge, 0) for edge in edges])
    return F.pad(within, [max(edge, 0) for edge in edges], mode="replicate").to(part)


@lru_cache(maxsize=1)
def _learnt(gallery: Gallery) -> Float[Tensor, "value pixel"]:
    """Return the matrix from a position's neighbourhood, and 1, to the pixels about it.

    Raises:
        InvrepError: a neighbourhood of one position has too many values.
    """
    products: Tensor | None = None
    targets: Tensor | None = None
    for images, code in gallery:
        grid = grid_of(gallery.phi, code, gallery.shape[1:])
        assert grid is not None  # as the code to be inverted
        stride, first, counts = grid.stride, _first_pixel(grid), grid.values.shape[2:]
        every = max(math.isqrt(-(-counts[0] * counts[1] // POSITIONS)), 1)
        down, right = (
            torch.tensor([k for k in range(0, count, every) if 0 <= first + k * stride <= side - stride])
            for count, side in zip(counts, gallery.shape[1:], strict=True)
        )
        for image, part in zip(images.double(), grid.values.double(), strict=True):
            rows = _rows(part[None], _neighbourhood(part.shape[0]))[0].unflatten(0, counts)
            rows = rows[down][:, right].flatten(0, 1)
            squares = image.unfold(1, stride, 1).unfold(2, stride, 1)
            pixels = (
                squares[:, first + stride * down][:, :, first + stride * right].movedim(0, 2).flatten(0, 1).flatten(1)
            )
            products = rows.T @ rows if products is None else products.addmm_(rows.T, rows)
            targets = rows.T @ pixels if targets is None else targets.addmm_(rows.T, pixels)
    assert products is not None and targets is not None  # a gallery has a photo
    ridge = SMOOTH * products.diagonal()[:-1].mean()
    products.diagonal()[:-1].add_(ridge)  # the constant is not shrunk
    learnt: Tensor = torch.linalg.solve(products, targets)
    return learnt


def _neighbourhood(channels: int) -> int:
    """Return the side of the neighbourhood of a position with so many channels."""
    for size in WINDOWS:
        if size * size * channels <= MOST_VALUES:
            return size
    raise InvrepError(
        f"baseline=linear learns from at most {MOST_VALUES} values of a position, and the code has {channels} "
        f"channels; choose another layer."
    )


def _rows(part: Tensor, size: int) -> Float[Tensor, "batch position value"]:
    """Return the neighbourhood of each position, and 1; the border's positions are repeated outwards."""
    around = F.pad(part, [size // 2] * 4, mode="replicate")
    rows = F.unfold(around, size).movedim(1, 2)
    return torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], 2)


def _first_pixel(grid: Grid) -> int:
    """Return the first pixel, in either direction, of the square about position (0, 0)."""
    return math.floor(grid.centre - grid.stride / 2)
