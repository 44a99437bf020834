"""Make pictures of HOG by a paired dictionary: HOGgle (Vondrick et al., ICCV 2013)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError, UnfitError
from invrep.fitting.paired_dictionary import FIT, PairedDictionary, load, patch_offset, windowed
from invrep.fitting.paired_windows import unit
from invrep.representations.base import Representation
from invrep.representations.vocabularies.descriptors import describe
from invrep.representations.vocabularies.lasso import lasso
from invrep.stable_names import known_as

SHIPPED = Path(__file__).parent / "shipped"
WIDTH = 9 / 8  # σ of the Gaussian over a patch, in distances of positions: the authors' 9 pixels for cells of 8
CHUNK = 4096  # windows that are coded at once


@known_as("hoggle")
@torch.no_grad()
def hoggle(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
    dictionary: str | os.PathLike[str] | PairedDictionary | None = None,
) -> Float[Tensor, "batch channel row column"]:
    """Return grey pictures of a code by a paired dictionary, without a gradient: HOGgle.

    Each window of the code is coded over the windows of the dictionary by a lasso with coefficients a ≥ 0. Its patch is
    the same combination of the dictionary's patches. Patches are averaged with the weights of a Gaussian. The picture's
    minimum is black and its maximum white, since the code has no contrast.

    Args:
        code: codes Φ0, a list of one tensor (B, D, rows, columns).
        phi: representation Φ, the dictionary's.
        shape: (1, H, W) of a picture.
        draws: unused; nothing is random.
        dictionary: paired dictionary, or its file; None: the one that the package has for Φ.

    Raises:
        InvrepError: the pictures are not grey, there is no such dictionary, or it is another representation's.
        UnfitError: the code has fewer positions than a window.
    """
    grid = windowed(phi, code, shape[1:])
    part = grid.values
    if shape[0] != 1:
        raise InvrepError("baseline=hoggle makes grey pictures; add data.color=gray.")
    pairs = dictionary if isinstance(dictionary, PairedDictionary) else chosen(phi, dictionary)
    _check(pairs, phi)
    size = pairs.window
    if min(part.shape[2:]) < size:
        raise UnfitError(
            f"baseline=hoggle codes windows of {size}×{size} positions, and the code of images of "
            f"{shape[2]}×{shape[1]} pixels has {part.shape[3]}×{part.shape[2]}; enlarge the images."
        )
    windows, _ = unit(F.unfold(part.float(), size).movedim(1, 2).flatten(0, 1))
    atoms, patches = pairs.codes.to(part.device), pairs.patches.flatten(1).to(part.device)
    weight = float(pairs.settings["weight"])
    coded = torch.cat([lasso(some, atoms, weight, positive=True) @ patches for some in windows.split(CHUNK)])
    side, detail = pairs.side, pairs.patches.shape[-1]
    coded = F.interpolate(coded.reshape(-1, 1, detail, detail), size=(side, side), mode="bicubic")
    coded = coded.reshape(len(part), part.shape[2] - size + 1, part.shape[3] - size + 1, side, side)
    picture = _averaged(coded, grid.stride, patch_offset(grid, size), shape[1:])
    low, high = picture.flatten(1).aminmax(dim=1)
    span = (high - low).clamp(min=torch.finfo(picture.dtype).tiny)
    return ((picture - low[:, None, None]) / span[:, None, None])[:, None].to(part.dtype)


@lru_cache(maxsize=4)
def _loaded(path: str) -> PairedDictionary:
    return load(path)


def chosen(phi: Representation, path: str | os.PathLike[str] | None = None) -> PairedDictionary:
    """Return the paired dictionary of a file, or the one that the package has for a representation.

    Raises:
        InvrepError: the file is no paired dictionary, or the package has none for Φ.
    """
    if path is not None:
        return _loaded(os.fspath(path))
    about = describe(phi)
    for file in sorted(SHIPPED.glob("*.safetensors")):
        if (pairs := _loaded(os.fspath(file))).settings["descriptor"] == about:
            return pairs
    raise InvrepError(
        f"The package has no paired dictionary for {_named(about)}; {FIT}, and give baseline.dictionary=FILE."
    )


def _check(pairs: PairedDictionary, phi: Representation) -> None:
    about = describe(phi)
    if (fitted := pairs.settings["descriptor"]) != about:
        raise InvrepError(f"The paired dictionary is of {_named(fitted)}, not of {_named(about)}; {FIT}.")


def _named(about: dict[str, Any]) -> str:
    """Return a representation's description as text."""
    more = ", ".join(str(about[key]) for key in ("arguments", "layers", "weights") if about.get(key))
    return f"{about['name']}{f' ({more})' if more else ''}"


def _averaged(
    patches: Float[Tensor, "batch down right row column"], stride: int, offset: int, size: Sequence[int]
) -> Float[Tensor, "batch height width"]:
    """Return the mean of overlapping patches under a Gaussian about each patch's centre.

    Args:
        patches: patch of each window.
        stride: distance of neighbouring patches in pixels.
        offset: first pixel of the first patch, in either direction.
        size: height and width of the images in pixels.
    """
    batch, down, right, side, _ = patches.shape
    away = torch.arange(side, device=patches.device, dtype=patches.dtype) - (side - 1) / 2
    bell = (-0.5 * (away / (WIDTH * stride)) ** 2).exp()
    weights = (bell[:, None] * bell).reshape(1, -1, 1)
    columns = patches.reshape(batch, down * right, side * side).mT * weights
    weighed = torch.cat([columns, weights.expand(1, -1, down * right)])
    canvas = ((down - 1) * stride + side, (right - 1) * stride + side)
    sums = F.fold(weighed, canvas, side, stride=stride)
    pictures = sums[:-1] / sums[-1:]
    (top, bottom), (left, end) = ((offset, pixels - offset - laid) for pixels, laid in zip(size, canvas, strict=True))
    within = F.pad(pictures, [min(edge, 0) for edge in (left, end, top, bottom)])
    return F.pad(within, [max(edge, 0) for edge in (left, end, top, bottom)], mode="replicate")[:, 0]
