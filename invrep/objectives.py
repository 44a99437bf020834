"""What is asked of a code: one number for each image."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invrep.codes import load_code
from invrep.errors import InvrepError, UnfitError, number
from invrep.images import bundled, read
from invrep.parts import Channels, channel_axes, classes_of, mask_of
from invrep.representations.base import InputSize, Representation

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")  # of scikit-image, for what is a large value
WHOLE = 355  # pixels; the receptive field of the paper's fc8


class Objective(nn.Module):
    """What every objective has: a value for each image, to be shown, and the energy that follows from it.

    It is made from the code of each row's photo, and nothing in it couples two rows. Where a code has several parts,
    their weights are taken relative to their sum.

    Args:
        code: of each row's photo, a list of tensors (B, …). An objective that needs no photo takes the shapes only.
        phi: the representation, which knows the weights of the parts, which of their dimensions is that of the
            channels, and the names of classes. None: equal weights, dimension 1, or 2 of (B, tokens, C).
        shape: (C, H, W) of the images, for an objective that depends on it.

    Attributes:
        shows: the name of the value: ``error``, to be made small, or ``activation``, to be made large.
        needs_photo: whether it asks for something that only a photo has.
        starts_from_photo: whether the descent begins at the photo instead of noise.
        weight: a factor of the energy.
        empty: rows that have nothing to compare with, (B,) bool, such as those of a code that is zero; None: no row.
        per_image: names of the buffers that hold something for each image, (B, …); see :meth:`hold`.
    """

    shows: str
    needs_photo = True
    starts_from_photo = False
    weight: float = 1.0
    empty: Tensor | None = None

    def __init__(
        self, code: Sequence[Tensor], *, phi: Representation | None = None, shape: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__()
        self.per_image: tuple[str, ...] = ()
        self.axes = channel_axes(code, phi)
        names = getattr(phi, "part_names", None)
        self.names = list(names) if names and len(names) == len(code) else [f"part{k}" for k in range(len(code))]
        weights = [1.0] * len(code) if phi is None or phi.weights is None else list(phi.weights)
        self.weights = [w / sum(weights) for w in weights]

    def hold(self, name: str, value: Tensor) -> None:
        """Register a buffer (B, …) that holds something for each image; ``register_buffer`` is for what all share."""
        self.register_buffer(name, value)
        self.per_image += (name,)

    def of(self, rows: Tensor) -> Objective:
        """Return the objective of some of its images alone, by their places (b,); what all share is not copied."""
        some = copy.copy(self)
        some._buffers = {n: b[rows] if n in self.per_image else b for n, b in self._buffers.items()}
        return some

    def value(self, code: Sequence[Tensor]) -> Tensor:
        """Return what is shown of each image. Shape: list of (B, …) → (B,)."""
        raise NotImplementedError

    def energy(self, value: Tensor) -> Tensor:
        """Return what is minimised, (B,), of the values, (B,)."""
        return value if self.weight == 1 else value * self.weight

    def forward(self, code: Sequence[Tensor]) -> Tensor:
        """Return the energy of each image. Shape: list of (B, …) → (B,)."""
        return self.energy(self.value(code))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of :meth:`measures`."""
        return (self.shows,)

    def measures(self, code: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what the table holds of final images' codes: name → (B,)."""
        return {self.shows: self.value(code)}

    def _weighted(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of the parts' terms by their weights, (B,)."""
        if len(terms) == 1:
            return terms[0]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum(0)


class Match(Objective):
    """The code shall be that of the photo: Σ_k w_k ‖M_k⊙(Φ_k − Φ0_k)‖² / ‖M_k⊙Φ0_k‖² (paper.md §1).

    Every image is normalised by its own code; a code that is all zero by 1. The value is the relative error, without
    the factor C.

    Args:
        code: Φ0, see :class:`Objective`, as are phi and shape.
        phi: the representation.
        shape: of the images.
        region: ``5x5`` for the central rows and columns (paper.md §2), ``5x5@3x4`` for those from row 3 and column 4,
            counted from 0; None for all.
        channels: ``0:48`` for the channels from 0 to 47, one channel's number, a class's name where the code is a
            network's scores of classes, ``group1`` or ``group2`` for the first or the last half, or a list of those;
            None for all.
        weight: C of the IJCV recipe, a factor before the whole term; ``auto`` for that of the layer
            (:func:`data_weight`), which takes the representation.

    Raises:
        InvrepError: region or channels are not in a part of the code, or cannot be read.
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
            part = part.detach() if mask is None else part.detach() * mask
            norm = part.flatten(1).square().sum(1)
            self.hold(f"target{k}", part)
            self.register_buffer(f"mask{k}", mask)
            self.hold(f"norm{k}", torch.where(norm > 0, norm, torch.ones_like(norm)))

    @property
    def target(self) -> list[Tensor]:
        """The code to match, with zeros for what is not matched."""
        return [getattr(self, f"target{k}") for k in range(self.parts)]

    @property
    def empty(self) -> Tensor:
        """Rows whose Φ0 is zero in one of its parts, (B,) bool: they have no relative error."""
        return torch.stack([target.flatten(1).square().sum(1) == 0 for target in self.target]).any(0)

    def matched(self, code: Sequence[Tensor]) -> list[Tensor]:
        """Return the code with zeros for what is not matched."""
        masks = [getattr(self, f"mask{k}") for k in range(self.parts)]
        return [part if mask is None else part * mask for part, mask in zip(code, masks, strict=True)]

    def distances(self, code: Sequence[Tensor], other: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return ‖M_k⊙(Φ_k − Φ0_k)‖², (B,), for each part of a code; of another code instead of Φ0 if there is one."""
        other = self.target if other is None else other
        return [
            difference.flatten(1).square().sum(1)
            for difference in self.matched([part - wanted for part, wanted in zip(code, other, strict=True)])
        ]

    def value(self, code: Sequence[Tensor], other: Sequence[Tensor] | None = None) -> Tensor:
        """Return ‖Φ − Φ0‖²/‖Φ0‖² of each image, (B,), or with another code Φ' ‖Φ − Φ'‖²/‖Φ0‖²."""
        return self._weighted([d / getattr(self, f"norm{k}") for k, d in enumerate(self.distances(code, other))])

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of :meth:`measures`."""
        return ("error", "root_error", "distance", "code_norm")

    def measures(self, code: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the error, its root, and ‖M⊙(Φ − Φ0)‖² and ‖M⊙Φ0‖² over all parts without weights, (B,) each.

        Of several parts ``error/NAME`` is that of each by itself.
        """
        error, distances = self.value(code), self.distances(code)
        each = {
            f"error/{name}": d / getattr(self, f"norm{k}")
            for k, (name, d) in enumerate(zip(self.names, distances, strict=True))
        }
        norms = [target.flatten(1).square().sum(1) for target in self.target]
        return {
            "error": error,
            "root_error": error.sqrt(),
            "distance": torch.stack(distances).sum(0),
            "code_norm": torch.stack(norms).sum(0),
            **(each if self.parts > 1 else {}),
        }


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


class MatchFile(Match):
    """The code shall be one that lies on disk, or the average of several; no photo is needed.

    Args:
        code: see :class:`Objective`, as are phi and shape.
        path: a file with the tensors part0, part1, … (:func:`invrep.codes.save_code`), or a list of such files.
        zero_channels: of the average, channels that shall be 0; written as ``channels`` is.
        phi: the representation.
        shape: of the images.
        options: region, channels and weight of :class:`Match`.

    Raises:
        InvrepError: a file cannot be read, or files do not fit each other.
        UnfitError: the code has not the shape that Φ gives to the images.
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
                given = given * (1 - zero)
            target.append(given)
        super().__init__(target, phi=phi, shape=shape, **options)


def _average(paths: Any, code: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of the codes in files, whose parts have to have the shapes of ``code``, (B, …) each."""
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


class InnerProduct(Objective):
    """The code shall be large along a direction: minimise −weight·⟨Φ, w⟩ (paper.md §1); the value is ⟨Φ, w⟩."""

    shows = "activation"

    def _direct(self, directions: Sequence[Tensor], *, shared: bool) -> None:
        """Set w for each part, (B, …), or (1, …) where all images share it."""
        self.parts = len(directions)
        for k, direction in enumerate(directions):
            (self.register_buffer if shared else self.hold)(f"direction{k}", direction)

    def value(self, code: Sequence[Tensor]) -> Tensor:
        """Return ⟨Φ, w⟩ of each image, (B,)."""
        return self._weighted([(p * getattr(self, f"direction{k}")).flatten(1).sum(1) for k, p in enumerate(code)])

    def energy(self, value: Tensor) -> Tensor:
        """Return −weight·⟨Φ, w⟩, (B,)."""
        return value * -self.weight


class Maximise(InnerProduct):
    """A unit, a channel or a class shall be as active as an image can make it; no photo is needed.

    The value is the mean of the chosen units of Φ. By ``weight=auto`` it is weighted as in IJCV (exp_maximization.m),
    by (10000/rf²)/max: rf is the side of the receptive field in pixels, 355 (the paper's fc8) where that is the whole
    image, and max what is a large value in this layer: the largest |Φ| over all channels on five photos of
    scikit-image. (IJCV takes the channel's own largest over a thousand ImageNet photos; over a few photos that would
    be an accident: of most classes they show none.) IJCV's prior has the strength of λ_V = 94 (paper.md §1), so that
    by a lower one activations rise higher and pictures are rougher than theirs.

    Args:
        code: see :class:`Objective`, as are phi and shape.
        channels: which, see :class:`Match`; for example the number or the name of a class.
        region: which positions, see :class:`Match`; ``1x1`` is the central unit. None: all, a whole channel.
        weight: a factor of the activation, or ``auto``.
        phi: the representation; ``auto`` needs it.
        shape: of the images; ``auto`` needs it.

    Raises:
        InvrepError: region or channels are not in a part of the code, or cannot be read.
    """

    needs_photo = False

    def __init__(
        self,
        code: Sequence[Tensor],
        *,
        channels: Channels,
        region: str | None = None,
        weight: float | str = "auto",
        phi: Representation | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(code, phi=phi, shape=shape)
        masks = [mask_of(p, axis, region, channels, classes_of(phi)) for p, axis in zip(code, self.axes, strict=True)]
        masks = [part.new_ones((1, *part.shape[1:])) if m is None else m for m, part in zip(masks, code, strict=True)]
        self._direct([mask / mask.sum() for mask in masks], shared=True)
        if weight != "auto":
            self.weight = number("objective.weight", weight, above=0, word="auto")
            return
        if phi is None or shape is None:
            raise InvrepError("objective.weight=auto needs the representation and the images' shape; give a number.")
        self.weight = 10000 / (phi.receptive_field or WHOLE) ** 2 / _large(phi, shape, code[0])


def _large(phi: Representation, shape: tuple[int, int, int], like: Tensor) -> float:
    """Return the largest |Φ| on scikit-image's photos, brought to (C, H, W), without nought; 1 where all are 0."""
    size = InputSize(crop=shape[1:], resize=shape[1:])
    largest = 0.0
    for name in PHOTOS:
        photo = read(bundled(name), color="gray" if shape[0] == 1 else "rgb", resize="squash", input_size=size)
        with torch.no_grad():
            largest = max(largest, *(float(part.abs().max()) for part in phi(photo[None].to(like))))
    return largest or 1.0


class Caricature(InnerProduct):
    """The photo's own code shall grow, from the photo on: w = max(Φ0, 0)/‖max(Φ0, 0)‖² (paper.md §1, exp_enhance.m).

    The value is 1 for an image with the photo's code, as far as that is positive.

    Args:
        code: Φ0, see :class:`Objective`, as are phi and shape.
        phi: the representation.
        shape: of the images.
        region: see :class:`Match`.
        channels: see :class:`Match`.
        weight: a factor of the energy.

    Raises:
        InvrepError: region or channels are not in a part of the code, or cannot be read.
    """

    starts_from_photo = True

    def __init__(
        self,
        code: Sequence[Tensor],
        *,
        phi: Representation | None = None,
        shape: tuple[int, int, int] | None = None,
        region: str | None = None,
        channels: Channels = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(code, phi=phi, shape=shape)
        self.weight = number("objective.weight", weight, above=0)
        directions = []
        for part, axis in zip(code, self.axes, strict=True):
            mask = mask_of(part, axis, region, channels, classes_of(phi))
            part = part.detach().clamp(min=0)
            part = part if mask is None else part * mask
            norm = part.flatten(1).square().sum(1).reshape(-1, *[1] * (part.ndim - 1))
            directions.append(part / torch.where(norm > 0, norm, torch.ones_like(norm)))
        self._direct(directions, shared=False)
