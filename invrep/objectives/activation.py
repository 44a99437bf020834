"""Raise activations: of chosen units, or of the units that a photo excites."""

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

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")  # scikit-image's, to find a large value
WHOLE = 355  # pixels; receptive field of the paper's fc8


class InnerProduct(Objective):
    """Raise the code along a direction: minimise −weight·⟨Φ, w⟩ (paper.md §1); the value is ⟨Φ, w⟩."""

    shows = "activation"

    def _direct(self, directions: Sequence[Tensor], *, shared: bool) -> None:
        """Set the direction w of each part: (B, …), or (1, …) for one w that all images share."""
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
    """Make a unit, a channel or a class as active as an image can; no photo is needed.

    The value is the mean of the chosen units of Φ.

    ``weight=auto`` is IJCV's (10000/rf²)/max (exp_maximization.m). There rf is the side of the receptive field in
    pixels, or 355, as for the paper's fc8, where the field is the whole image. Here max is the largest |Φ| of the layer
    over all channels, on five photos of scikit-image. IJCV takes each channel's own largest value over a thousand
    ImageNet photos. Over five photos a channel's own value would be an accident: most classes are in none of them.

    IJCV's prior has the strength of λ_V = 94 (paper.md §1). With a weaker prior activations rise higher, and pictures
    are rougher than IJCV's.

    Args:
        code: codes of the photos, a list of (B, …); only their shapes are used.
        channels: channels to raise, written as in :class:`Match`; for example the number or the name of a class.
        region: positions to raise, written as in :class:`Match`; ``1x1`` is the central unit. None: all, a whole
            channel.
        weight: factor of the activation, above 0, or ``auto``.
        phi: representation; ``auto`` needs it.
        shape: (C, H, W) of the images; ``auto`` needs it.

    Raises:
        InvrepError: region or channels do not fit a part of the code, or cannot be read; or ``auto`` lacks phi or
            shape.
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
    """Return the largest |Φ| on scikit-image's photos, squashed to (C, H, W); 1 where the code of every photo is 0."""
    size = InputSize(crop=shape[1:], resize=shape[1:])
    largest = 0.0
    for name in PHOTOS:
        photo = read(bundled(name), color="gray" if shape[0] == 1 else "rgb", resize="squash", input_size=size)
        with torch.no_grad():
            largest = max(largest, *(float(part.abs().max()) for part in phi(photo[None].to(like))))
    return largest or 1.0


@known_as("caricature")
class Caricature(InnerProduct):
    """Raise the photo's own code, starting at the photo: w = max(Φ0, 0)/‖max(Φ0, 0)‖² (paper.md §1, exp_enhance.m).

    The value is ⟨Φ, w⟩: 1 at the photo's own code, or 0 where this code has no positive entry.

    Args:
        code: Φ0, a list of (B, …), as in :class:`Objective`.
        phi: representation.
        shape: (C, H, W) of the images.
        region: positions to raise, written as in :class:`Match`; None: all.
        channels: channels to raise, written as in :class:`Match`; None: all.
        weight: factor of the energy, above 0.

    Raises:
        InvrepError: region or channels do not fit a part of the code, or cannot be read.
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
