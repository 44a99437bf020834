"""Match a target code: a photo's, or one from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invrep.data.code_files import load_code
from invrep.errors import InvrepError, UnfitError
from invrep.objectives.base import Objective
from invrep.objectives.code_selection import Channels, channel_axes, classes_of, mask_of
from invrep.representations.base import Representation
from invrep.representations.norms import squared_norms
from invrep.stable_names import known_as
from invrep.validation import number


@known_as("match")
class Match(Objective):
    """Match the photo's code: minimise Σ_k w_k ‖M_k⊙(Φ_k − Φ0_k)‖² / ‖M_k⊙Φ0_k‖² (paper.md §1).

    Each image is divided by the norm of its own target code; an all-zero target code is divided by 1. The value is the
    relative error, without the factor C.

    Args:
        code: Φ0, a list of (B, …), as in :class:`Objective`.
        phi: representation.
        shape: (C, H, W) of the images.
        region: positions to match. ``5x5`` is the central rows and columns (paper.md §2). ``5x5@3x4`` starts at row 3
            and column 4, counted from 0. None: all.
        channels: channels to match. ``0:48`` is the channels from 0 to 47; a number is one channel. The name of a class
            is its channel, where the code is class scores. ``group1`` and ``group2`` are the first and the last half. A
            list joins several of these. None: all.
        weight: factor C of the IJCV recipe, above 0, for the whole term; ``auto`` for the layer's C
            (:func:`data_weight`), which needs phi.

    Raises:
        InvrepError: region or channels do not fit a part of the code, or cannot be read.
    """

    shows = "error"

    def __init__(
        self,
        code: Sequence[Tensor],
        *,
        phi: Representation | None = None,
        shape: tuple[int, int, int] | None = None,
        region: str | None = None,
        channels: Channels = None,
        weight: float | str = 1.0,
    ) -> None:
        super().__init__(code, phi=phi, shape=shape)
        if weight == "auto" and phi is not None:
            weight = data_weight(phi.receptive_field, phi.stride)
        self.weight = number("objective.weight", weight, above=0, word="auto")
        self.parts = len(code)
        for k, part in enumerate(code):
            mask = mask_of(part, self.axes[k], region, channels, classes_of(phi))
            # One layout, since another one would round the norm differently.
            part = (part.detach() if mask is None else part.detach() * mask).contiguous()
            norm = squared_norms(part)
            self.hold(f"target{k}", part)
            self.register_buffer(f"mask{k}", mask)
            self.hold(f"norm{k}", torch.where(norm > 0, norm, torch.ones_like(norm)))

    @property
    def target(self) -> list[Tensor]:
        """Return the target code, with zeros outside the region and the channels."""
        return [getattr(self, f"target{k}") for k in range(self.parts)]

    @property
    def empty(self) -> Bool[Tensor, " batch"]:  # type: ignore[override]  # derived from the target here, set elsewhere
        """Return which rows have a part of Φ0 that is zero, (B,) bool: they have no relative error."""
        return torch.stack([squared_norms(target) == 0 for target in self.target]).any(0)

    def matched(self, code: Sequence[Float[Tensor, "batch ..."]]) -> list[Float[Tensor, "batch ..."]]:
        """Return the code with zeros outside the region and the channels."""
        masks = [getattr(self, f"mask{k}") for k in range(self.parts)]
        return [part if mask is None else part * mask for part, mask in zip(code, masks, strict=True)]

    def distances(
        self, code: Sequence[Float[Tensor, "batch ..."]], other: Sequence[Float[Tensor, "batch ..."]] | None = None
    ) -> list[Float[Tensor, " batch"]]:
        """Return ‖M_k⊙(Φ_k − Φ0_k)‖², (B,), for each part k; ``other``, if given, takes the place of Φ0."""
        other = self.target if other is None else other
        return [
            squared_norms(difference)
            for difference in self.matched([part - wanted for part, wanted in zip(code, other, strict=True)])
        ]

    def value(
        self, code: Sequence[Float[Tensor, "batch ..."]], other: Sequence[Float[Tensor, "batch ..."]] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return ‖Φ − Φ0‖²/‖Φ0‖² of each image, (B,); with another code Φ', ‖Φ − Φ'‖²/‖Φ0‖²."""
        return self._weighted([d / getattr(self, f"norm{k}") for k, d in enumerate(self.distances(code, other))])

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of :meth:`measures`."""
        return ("error", "root_error", "distance", "code_norm")

    def measures(self, code: Sequence[Float[Tensor, "batch ..."]]) -> dict[str, Float[Tensor, " batch"]]:
        """Return the error, its root, and ‖M⊙(Φ − Φ0)‖² and ‖M⊙Φ0‖² over all parts without weights, (B,) each.

        A code of several parts adds ``error/NAME``, the relative error of each part alone.
        """
        error, distances = self.value(code), self.distances(code)
        each = {
            f"error/{name}": d / getattr(self, f"norm{k}")
            for k, (name, d) in enumerate(zip(self.names, distances, strict=True))
        }
        norms = [squared_norms(target) for target in self.target]
        return {
            "error": error,
            "root_error": error.sqrt(),
            "distance": torch.stack(distances).sum(0),
            "code_norm": torch.stack(norms).sum(0),
            **(each if self.parts > 1 else {}),
        }


def data_weight(receptive_field: int | None, stride: int | None) -> float:
    """Return the IJCV recipe's C for a layer: 300, 100, 20 or 1, smaller for deeper layers.

    For AlexNet and VGG-M the authors used 300 up to relu3, 100 up to relu4, 20 up to relu5 and 1 from pool5 on. For
    VGG-16 they used 300 up to relu4_3, 100 up to relu5_1 and 20 up to relu5_3 (paper.md §1). Two numbers reproduce all
    of these: the receptive field, with bounds at 100, 132 and 200 pixels, and pool5's stride of 32 pixels. Only
    VGG-16's pool4 lies on a bound.

    Args:
        receptive_field: side in pixels; None where it is the whole image.
        stride: distance in pixels between neighbouring positions; None without positions.
    """
    if receptive_field is None or receptive_field > 200 or (stride or 1) >= 32:
        return 1.0
    return 300.0 if receptive_field < 100 else 100.0 if receptive_field <= 132 else 20.0


@known_as("match file")
class MatchFile(Match):
    """Match a code from a file, or the average of several; no photo is needed.

    Args:
        code: codes of the images, a list of (B, …); only their shapes are used.
        path: file with the tensors part0, part1, … (:func:`invrep.data.code_files.save_code`), or a list of files.
        zero_channels: channels of the average to set to 0; written as ``channels`` of :class:`Match`.
        phi: representation.
        shape: (C, H, W) of the images.
        options: region, channels and weight of :class:`Match`.

    Raises:
        InvrepError: a file cannot be read, or ``path`` is empty.
        UnfitError: a code in a file has not the shape of Φ's code of the images.
    """

    needs_photo = False

    def __init__(
        self,
        code: Sequence[Tensor],
        *,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        zero_channels: Channels = None,
        phi: Representation | None = None,
        shape: tuple[int, int, int] | None = None,
        **options: Any,
    ) -> None:
        target = []
        for k, (part, given) in enumerate(zip(code, _average(path, code), strict=True)):
            given = given.to(part).expand_as(part)
            if zero_channels is not None:
                axis = channel_axes(code, phi)[k]
                zero = mask_of(part, axis, None, zero_channels, classes_of(phi), key="objective.zero_channels")
                assert zero is not None  # mask_of returns None only without channels
                given = given * (1 - zero)
            target.append(given)
        super().__init__(target, phi=phi, shape=shape, **options)


def _average(paths: Any, code: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of the codes in files, a list of (…); their shapes must match ``code``, a list of (B, …)."""
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths or [])
    if not paths:
        raise InvrepError("objective.path is empty; give the file of a code, or a list of them.")
    wanted = [tuple(part.shape[1:]) for part in code]
    loaded = []
    for path in paths:
        parts, size = load_code(path)
        shapes = [tuple(part.shape) for part in parts]
        if shapes != wanted:
            hint = f"; its image had the size {size}" if size else ""
            raise UnfitError(
                f"The code in {str(path)!r} has the shape {_listed(shapes)}, but this layer's code of these images has "
                f"{_listed(wanted)}{hint}: use the layer that it was made with, and images of that size (data.size)."
            )
        loaded.append(parts)
    return [torch.stack([p.double() for p in parts]).mean(0) for parts in zip(*loaded, strict=True)]


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("×".join(map(str, shape)) for shape in shapes)
