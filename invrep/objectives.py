"""What is asked of a code: one number for each image."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invrep.errors import InvrepError, number


class Match(nn.Module):
    """The code shall be that of the photo: Σ_k w_k ‖M_k⊙(Φ_k − Φ0_k)‖² / ‖M_k⊙Φ0_k‖² (paper.md §1).

    Every image is normalised by its own code; a code that is all zero by 1. Where several parts of a code are matched,
    the weights are taken relative to their sum, so that the error stays a relative one.

    Args:
        target: Φ0, a list of tensors (B, …).
        region: ``5x5`` for the central rows and columns (paper.md §2), ``5x5@3x4`` for those from row 3 and column 4,
            counted from 0; None for all.
        channels: ``0:48`` for the channels from 0 to 47, one channel's number, ``group1`` or ``group2`` for the first
            or the last half; None for all.
        channel_axes: which dimension of each part is that of the channels, where it is not the usual one (see
            :class:`invrep.representations.base.Representation`).
        weights: a number for each part; all 1 by default.
        weight: C of the IJCV recipe, a factor before the whole term; ``auto`` for that of the layer, which is filled in
            by what knows Φ (:func:`data_weight`).

    Raises:
        InvrepError: region or channels are not in a part of the code, or cannot be read.
    """

    def __init__(
        self,
        target: Sequence[Tensor],
        *,
        region: str | None = None,
        channels: str | int | None = None,
        channel_axes: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        weight: float | str = 1.0,
    ) -> None:
        super().__init__()
        self.parts = len(target)
        self.weight = weight if weight == "auto" else number("objective.weight", weight, above=0, word="auto")
        self.axes = [2 if part.ndim == 3 else 1 for part in target] if channel_axes is None else list(channel_axes)
        weights = [1.0] * self.parts if weights is None else list(weights)
        self.weights = [w / sum(weights) for w in weights]
        for k, part in enumerate(target):
            mask = mask_of(part, self.axes[k], region, channels)
            part = part.detach() if mask is None else part.detach() * mask
            norm = part.flatten(1).square().sum(1)
            self.register_buffer(f"target{k}", part)
            self.register_buffer(f"mask{k}", mask)
            self.register_buffer(f"norm{k}", torch.where(norm > 0, norm, torch.ones_like(norm)))

    @property
    def target(self) -> list[Tensor]:
        """The code to match, with zeros for what is not matched."""
        return [getattr(self, f"target{k}") for k in range(self.parts)]

    def regions(self, region: str) -> list[tuple[slice, slice]]:
        """Return rows and columns of a region in each part of the code."""
        return [region_of(part, axis, region) for part, axis in zip(self.target, self.axes, strict=True)]

    def matched(self, code: Sequence[Tensor]) -> list[Tensor]:
        """Return the code with zeros for what is not matched."""
        masks = [getattr(self, f"mask{k}") for k in range(self.parts)]
        return [part if mask is None else part * mask for part, mask in zip(code, masks, strict=True)]

    def distances(self, code: Sequence[Tensor]) -> list[Tensor]:
        """Return ‖M_k⊙(Φ_k − Φ0_k)‖², (B,), for each part of a code."""
        return [
            difference.flatten(1).square().sum(1)
            for difference in self.matched([part - target for part, target in zip(code, self.target, strict=True)])
        ]

    def error(self, code: Sequence[Tensor]) -> Tensor:
        """Return the relative error ‖Φ − Φ0‖²/‖Φ0‖² of each image, (B,), without the factor C."""
        terms = [
            w * d / getattr(self, f"norm{k}")
            for k, (w, d) in enumerate(zip(self.weights, self.distances(code), strict=True))
        ]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def totals(self, code: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return ‖M⊙(Φ − Φ0)‖² and ‖M⊙Φ0‖² over all parts, (B,) each, without weights."""
        norms = [target.flatten(1).square().sum(1) for target in self.target]
        return torch.stack(self.distances(code)).sum(0), torch.stack(norms).sum(0)

    def forward(self, code: Sequence[Tensor]) -> Tensor:
        """Return the energy of each image. Shape: list of (B, …) → (B,)."""
        error = self.error(code)
        return error if self.weight == 1 else error * self.weight


def data_weight(receptive_field: int | None, stride: int | None) -> float:
    """Return the IJCV recipe's C for a layer: 300, 100, 20 or 1, the deeper the less.

    The authors used 300 up to relu3, 100 up to relu4, 20 up to relu5 and 1 from pool5 on for AlexNet and VGG-M, and
    300 up to relu4_3, 100 up to relu5_1, 20 up to relu5_3 for VGG-16 (paper.md §1). All of these follow from the
    receptive field, up to 100, 132 and 200 pixels, where pool4 of VGG-16 is the only one at its bound, and from the
    stride of 32 pixels that pool5 has.
    """
    if receptive_field is None or receptive_field > 200 or (stride or 1) >= 32:
        return 1.0
    return 300.0 if receptive_field < 100 else 100.0 if receptive_field <= 132 else 20.0


def mask_of(part: Tensor, axis: int, region: str | None, channels: str | int | None) -> Tensor | None:
    """Return what a region and channels leave of a code, as a tensor of ones and zeros (1, …) that broadcasts to it.

    Args:
        part: (B, …).
        axis: the dimension of its channels.
        region: see :class:`Match`.
        channels: see :class:`Match`.

    Returns:
        None where everything is left.
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
        kept.movedim(axis, 1)[:, _channels(channels, part.shape[axis])] = 1
        mask = mask * kept
    return mask


def region_of(part: Tensor, axis: int, region: str) -> tuple[slice, slice]:
    """Return the rows and the columns of a region; see :func:`mask_of`.

    Raises:
        InvrepError: it does not fit the code.
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


def _channels(channels: str | int, count: int) -> slice:
    """Return which channels a setting means, of so many."""
    if channels in ("group1", "group2"):
        return slice(0, count // 2) if channels == "group1" else slice(count // 2, count)
    match = re.fullmatch(r"(\d+)(?::(\d+))?", str(channels))
    if match is None:
        raise InvrepError(
            f"objective.channels={channels} is not valid: expected FIRST:END, a number, group1 or group2."
        )
    first, end = int(match[1]), int(match[2] or int(match[1]) + 1)
    if not first < end <= count:
        raise InvrepError(f"objective.channels={channels} does not fit a code of {count} channels, 0:{count}.")
    return slice(first, end)
