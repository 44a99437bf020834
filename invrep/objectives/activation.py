"""Raising activations: of chosen units, or of those that a photo excites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.objectives.base import Objective
from invrep.objectives.code_selection import Channels, classes_of, mask_of
from invrep.representations.base import Representation
from invrep.representations.geometry import InputSize
from invrep.stable_names import known_as
from invrep.validation import number

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")  # of scikit-image, for what is a large value
WHOLE = 355  # pixels; the receptive field of the paper's fc8


class InnerProduct(Objective):
    """The code shall be large along a direction: minimise −weight·⟨Φ, w⟩ (paper.md §1); the value is ⟨Φ, w⟩."""

    shows = "activation"

    def _direct(self, directions: Sequence[Tensor], *, shared: bool) -> None:
        """Set w for each part, (B, …), or (1, …) where all images share it."""
        self.parts = len(directions)
        for k, direction in enumerate(directions):
            (self.register_buffer if shared else self.hold)(f"direction{k}", direction)

    def value(self, code: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
        """Return ⟨Φ, w⟩ of each image, (B,)."""
        return self._weighted([(p * getattr(self, f"direction{k}")).flatten(1).sum(1) for k, p in enumerate(code)])

    def energy(self, value: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return −weight·⟨Φ, w⟩, (B,)."""
        return value * -self.weight


@known_as("maximise")
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
        found = [mask_of(p, axis, region, channels, classes_of(phi)) for p, axis in zip(code, self.axes, strict=True)]
        masks = [part.new_ones((1, *part.shape[1:])) if m is None else m for m, part in zip(found, code, strict=True)]
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


@known_as("caricature")
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
