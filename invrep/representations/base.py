"""Φ: what every representation declares and how it is called."""

from __future__ import annotations

import inspect
import math
import threading
from typing import Any, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.errors import InvrepError, UnfitError, out_of_memory, words
from invrep.representations.geometry import Geometry, InputSize
from invrep.representations.surrogate import Surrogate
from invrep.representations.twin import turn_of, twin

LUMA = (0.2989, 0.5870, 0.1140)  # MATLAB's rgb2gray, which the authors used


def as_gray(images: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch 1 row column"]:
    """Return grey images, (B, 1, H, W), of grey or RGB ones."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (weight * images[:, k : k + 1] for k, weight in enumerate(LUMA))
    return red + green + blue


class Representation(nn.Module):
    """A differentiable map Φ from images to codes.

    Subclasses implement :meth:`encode` and declare what they take. Nothing here resizes an image.

    Attributes:
        channels: the numbers of channels that an image may have, ``(3,)``, ``(1,)`` or ``(1, 3)``.
        color: ``rgb`` or ``gray``, how photos are read for it unless the user says otherwise.
        input_size: the published input size of a model; None where any size is as good as another.
        receptive_field: side in pixels of what one position of the code sees; None where it is the whole image.
        stride: distance in pixels between neighbouring positions of the code; None for a code without positions.
        start: the first pixel, in either direction, that position (0, 0) of the code sees; negative within padding.
        grid: the greatest stride on the way to the code, to which jitter is tied; None where it is the stride.
        channel_axes: which dimension of each part of the code is that of its channels; None for the usual one, 1 of
            (B, C, H, W) and the last of (B, tokens, C).
        schedule: learning rate and number of passes of each stage of the CVPR 2015 descent (paper.md §2).
        weights: of the parts of the code in an objective; None where they count alike.
        part_names: of the parts of the code; None where there is one, or they have none.
        weights_id: what changes when trained weights do, for the name of the output folder; None without any.
        weights_file: that the weights were read from; None where they come from no file of the user's.
        mean: buffer (C, 1, 1), (1, 1, 1) or (C, H, W) in [0, 1]: the pixel value that the priors take for zero.
    """

    channels: tuple[int, ...] = (3,)
    color: str = "rgb"
    input_size: InputSize | None = None
    receptive_field: int | None = None
    stride: int | None = None
    start: int = 0
    grid: int | None = None
    channel_axes: tuple[int, ...] | None = None
    schedule: tuple[tuple[float, int], ...] = ((4e-3, 100), (4e-4, 200), (4e-5, 100))
    weights: tuple[float, ...] | None = None
    part_names: tuple[str, ...] | None = None
    weights_id: str | None = None
    weights_file: str | None = None
    mean: Tensor
    _private = False
    _turn: threading.RLock  # of a private Φ

    def __init__(self, mean: Any = 128 / 255) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        try:
            inspect.signature(cls.encode).bind(None, None, None)
        except TypeError:
            raise InvrepError(
                f"{cls.__name__}.encode does not take a surrogate; expected def encode(self, images, surrogate)."
            ) from None

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return the code of images that :meth:`forward` has checked.

        Args:
            images: (B, C, H, W) in [0, 1].
            surrogate: the gradient that the pass takes; a Φ without ReLUs or hard binning has no use for it.
        """
        raise NotImplementedError

    @property
    def jitter(self) -> int:
        """T of the IJCV recipe, the number of offsets in either direction: a quarter of the stride (paper.md §1)."""
        return max(int((self.stride or self.grid or 1) / 4 + 0.5), 1)

    def geometry(self, height: int, width: int) -> list[Geometry]:
        """Return what the positions of each part of the code see in images of this size in pixels."""
        if self.receptive_field is None or self.stride is None:
            return [Geometry((math.inf, math.inf), None)]
        return [Geometry((self.receptive_field,) * 2, (self.stride,) * 2, (self.start,) * 2)]

    def forward(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None = None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return the code of RGB or grey images.

        Args:
            images: RGB or grey.
            surrogate: the gradient that the backward pass takes; None: the exact one.

        Shape:
            - images: (B, C, H, W), floating point, in [0, 1] (values outside are taken as they are).
            - returns: a list of tensors (B, …), one for each part of the code; a single layer is a list of one.

        Raises:
            InvrepError: the tensor has another number of dimensions or channels, or is not floating point.
            UnfitError: the pass itself fails.
        """
        if images.ndim != 4 or images.shape[1] not in self.channels:
            wanted = " or ".join(map(str, self.channels))
            raise InvrepError(
                f"{getattr(self, 'name', type(self).__name__)} takes images of shape (batch, {wanted}, height, width), "
                f"not {tuple(images.shape)}."
            )
        if not images.is_floating_point():
            raise InvrepError(
                f"{type(self).__name__} takes floating-point images in [0, 1], not {images.dtype}; divide by 255."
            )
        phi = self if self._private else self.private()
        with phi._turn:  # what is shared beside the weights, such as a list that a hook fills, is one pass's at a time
            try:
                return phi.encode(images, surrogate)
            except Exception as error:
                if isinstance(error, InvrepError) or out_of_memory(error):
                    raise
                raise UnfitError(self._refusal(images, error)) from error

    def private(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return Φ for a job's own use: in evaluation mode, frozen, and free to be moved, cast and laid out anew.

        None of that reaches the representation itself, nor a module in it. The weights share memory with its own where
        device and dtype are the same. Of one that is private already it is the same one, moved.
        """
        phi = self
        if not self._private:
            with torch.inference_mode(False):  # of what is made within, no gradient can be taken
                phi = cast(Self, twin(self))
            phi._private, phi._turn = True, turn_of(self._shared)
        return phi if device is None and dtype is None else phi.to(device, dtype)

    @property
    def _shared(self) -> nn.Module:
        """The module whose passes take turns, by whichever representation and thread they are made."""
        return self

    def _refusal(self, images: Tensor, error: Exception) -> str:
        """Return what is said of images that Φ cannot take, with the exception's own words."""
        name = getattr(self, "name", type(self).__name__)
        return f"{name} cannot take images of shape (batch, {', '.join(map(str, images.shape[1:]))}): {words(error)}"
