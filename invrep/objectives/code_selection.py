"""Select from a code: regions of positions, groups of channels, the channel of a class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from invrep.errors import InvrepError, nearest
from invrep.representations.base import Representation

Channels = str | int | Sequence[str | int] | None
Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels


def channel_axes(code: Sequence[Tensor], phi: Representation | None) -> list[int]:
    """Return the channel dimension of each part of a code."""
    if phi is not None and phi.channel_axes is not None:
        return list(phi.channel_axes)
    return [2 if part.ndim == 3 else 1 for part in code]


def classes_of(phi: Representation | None) -> Sequence[str] | None:
    """Return the names of the classes that the network's outputs score; None where they are not known."""
    return getattr(phi, "classes", None)


def mask_of(
    part: Tensor,
    axis: int,
    region: str | None,
    channels: Channels,
    classes: Sequence[str] | None = None,
    *,
    key: str = "objective.channels",
) -> Tensor | None:
    """Return the mask of a region and of channels: ones and zeros, (1, …), which broadcast to the code.

    Args:
        part: part of a code, (B, …).
        axis: channel dimension of the part.
        region: region as in :class:`invrep.objectives.Match`; None for all positions.
        channels: channels as in :class:`invrep.objectives.Match`; None for all.
        classes: names of the network's classes; they name channels where there are as many of both.
        key: setting that chooses the channels, for messages.

    Returns:
        The mask; None where region and channels are None.

    Raises:
        InvrepError: the region or the channels do not fit the code, or cannot be read.
    """
    if region is None and channels is None:
        return None
    mask = part.new_ones((1, *part.shape[1:]))
    if region is not None:
        rows, columns = region_of(part, axis, region)
        kept = torch.zeros_like(mask)
        kept.movedim(axis, 1)[:, :, rows, columns] = 1
        mask = mask * kept
    if channels is not None:
        kept = torch.zeros_like(mask)
        for some in channels if isinstance(channels, list | tuple) else [cast("str | int", channels)]:
            kept.movedim(axis, 1)[:, _channels(some, part.shape[axis], classes, key)] = 1
        mask = mask * kept
    return mask


def region_of(part: Tensor, axis: int, region: str) -> tuple[slice, slice]:
    """Return the rows and the columns of a region; see :func:`mask_of`.

    Raises:
        InvrepError: the region does not fit the code.
    """
    match = re.fullmatch(r"(\d+)x(\d+)(?:@(\d+)x(\d+))?", str(region))
    if match is None:
        raise InvrepError(f"objective.region={region} is not valid: expected ROWSxCOLUMNS or ROWSxCOLUMNS@ROWxCOLUMN.")
    if part.ndim != 4:
        raise InvrepError(
            f"objective.region={region} needs a code with rows and columns, but this layer's has the shape "
            f"{tuple(part.shape[1:])}; choose a convolutional layer, or leave region out."
        )
    sides = [side for k, side in enumerate(part.shape) if k not in (0, axis)]
    found = []
    for side, size, start in zip(sides, match.group(1, 2), match.group(3, 4), strict=True):
        size = int(size)
        # the authors' ceil((S − n + 1)/2), counted from 1
        start = -((size - side - 1) // 2) - 1 if start is None else int(start)
        if not 0 < size <= side - max(start, 0) or start < 0:
            raise InvrepError(
                f"objective.region={region} does not fit a code of {sides[0]} rows and {sides[1]} columns."
            )
        found.append(slice(start, start + size))
    return found[0], found[1]


def boxes_of(code: Sequence[Tensor], phi: Representation, region: str | None, size: tuple[int, int]) -> str:
    """Return the image area that a region of the code sees, as results store it: ``TOP LEFT BOTTOM RIGHT``, in pixels.

    Args:
        code: code of one image, a list of (1, …).
        phi: representation.
        region: region as in :func:`region_of`; None for the whole code.
        size: height and width of the image in pixels.

    Returns:
        One box for each part of the code, with ``;`` between them. A part that sees the whole image has no box.
    """
    if region is None:
        return ""
    regions = [region_of(part, axis, region) for part, axis in zip(code, channel_axes(code, phi), strict=True)]
    boxes = [place.box(*some) for some, place in zip(regions, phi.geometry(*size), strict=True)]
    return ";".join(" ".join(map(str, box)) for box in boxes if box is not None)


def boxes_in(row: Mapping[str, Any]) -> list[Box]:
    """Return the boxes that :func:`boxes_of` wrote into a row of results."""
    return [cast(Box, tuple(map(int, box.split()))) for box in (row.get("boxes") or "").split(";") if box]


def inside(box: Box, height: int, width: int) -> Box:
    """Return the part of a box that lies inside an image."""
    top, left, bottom, right = box
    return max(top, 0), max(left, 0), min(bottom, height), min(right, width)


def _channels(channels: str | int, count: int, classes: Sequence[str] | None, key: str) -> slice:
    """Return the channels that a setting names, of ``count``."""
    if channels in ("group1", "group2"):
        return slice(0, count // 2) if channels == "group1" else slice(count // 2, count)
    match = re.fullmatch(r"(\d+)(?::(\d+))?", str(channels))
    if match is None:
        return _class(str(channels), count, classes, key)
    first, end = int(match[1]), int(match[2] or int(match[1]) + 1)
    if not first < end <= count:
        raise InvrepError(f"{key}={channels} does not fit a code of {count} channels, 0:{count}.")
    return slice(first, end)


def _class(name: str, count: int, classes: Sequence[str] | None, key: str) -> slice:
    """Return the channel of a class, by its full name or by one of its comma-separated names."""
    if classes is None or len(classes) != count:
        where = "" if classes is None else "; the names of classes are for the network's scores, layer=output"
        raise InvrepError(f"{key}={name} is not valid: expected FIRST:END, a number, group1 or group2{where}.")
    numbers: dict[str, list[int]] = {}
    for k, full in enumerate(classes):
        for one in dict.fromkeys([full.lower(), *full.lower().split(", ")]):
            numbers.setdefault(one, []).append(k)
    found = numbers.get(name.lower())
    if found is None:
        raise InvrepError(f"{key}={name} is no class of this network; {nearest(name.lower(), numbers)}.")
    if len(found) > 1:
        raise InvrepError(
            f"{key}={name} is the name of several classes; give a number, {' or '.join(map(str, found))}."
        )
    return slice(found[0], found[0] + 1)
