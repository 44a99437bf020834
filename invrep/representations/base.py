"""Define Φ: the base class of representations."""

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
    """Return the grey version, (B, 1, H, W), of grey or RGB images, (B, 1 or 3, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (weight * images[:, k : k + 1] for k, weight in enumerate(LUMA))
    return red + green + blue


class Representation(nn.Module):
    """Map images to codes, differentiably.

    Subclasses implement :meth:`encode` and declare the images that they take. No representation resizes an image.

    Attributes:
        channels: numbers of channels that an image may have, ``(3,)``, ``(1,)`` or ``(1, 3)``.
        color: default colour for reading photos, ``rgb`` or ``gray``.
        input_size: published input size of a model; None where every size is equally good.
        receptive_field: side in pixels of the image area that one position of the code sees; None for the whole image.
        local_field: side in pixels of the image area that each pooled descriptor of the code sees; None for a code that
            pools no descriptors.
        stride: distance in pixels between neighbouring positions of the code; None for a code without positions.
        start: first pixel, in either direction, that position (0, 0) of the code sees; negative within padding.
        grid: largest stride on the way to the code, which sets the jitter; None where it is the stride.
        channel_axes: channel dimension of each part of the code; None for the usual one, 1 of (B, C, H, W) and the last
            of (B, tokens, C).
        ignores_contrast: whether the code is that of the image at any contrast, as with HOG's normalised cells; the
            default recipe keeps the papers' energy for it.
        keeps_color: whether RGB images have another code than their grey versions.
        stepwise: whether the code is constant almost everywhere, as counts of nearest words are; only a surrogate then
            gives a gradient.
        placing: names of the arguments that only set where positions lie: a vocabulary fits whatever they are.
        schedule: learning rate and number of passes of each stage of the CVPR 2015 descent (paper.md §2).
        weights: weights of the code's parts in an objective; None for equal ones.
        part_names: names of the code's parts; None for a single part, or for parts without names.
        weights_id: identity of trained weights, for the name of the output folder; None without any.
        weights_file: file of the weights; None where they come from no file of the user's.
        mean: buffer (C, 1, 1), (1, 1, 1) or (C, H, W) in [0, 1]: the pixel value that the priors take for zero.

    Raises:
        InvrepError: a subclass's :meth:`encode` takes no surrogate.
    """

    channels: tuple[int, ...] = (3,)
    color: str = "rgb"
    input_size: InputSize | None = None
    receptive_field: int | None = None
    local_field: int | None = None
    stride: int | None = None
    start: int = 0
    grid: int | None = None
    channel_axes: tuple[int, ...] | None = None
    ignores_contrast: bool = False
    keeps_color: bool = True
    stepwise: bool = False
    placing: tuple[str, ...] = ()
    schedule: tuple[tuple[float, int], ...] = ((4e-3, 100), (4e-4, 200), (4e-5, 100))
    weights: tuple[float, ...] | None = None
    part_names: tuple[str, ...] | None = None
    weights_id: str | None = None
    weights_file: str | None = None
    mean: Tensor
    _private = False
    _turn: threading.RLock  # a private Φ has one

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
        """Return the code of images that :meth:`forward` has checked: a list of tensors (B, …), one for each part.

        Args:
            images: images, (B, C, H, W) in [0, 1].
            surrogate: gradient of the pass; a Φ without ReLUs or hard binning ignores it.
        """
        raise NotImplementedError

    @property
    def jitter(self) -> int:
        """Return T of the IJCV recipe, a quarter of the stride: the offsets in either direction (paper.md §1)."""
        return max(int((self.stride or self.grid or 1) / 4 + 0.5), 1)

    def geometry(self, height: int, width: int) -> list[Geometry]:
        """Return the image area that the positions of each part of the code see.

        Args:
            height: height of the images in pixels.
            width: width of the images in pixels.
        """
        if self.receptive_field is None or self.stride is None:
            return [Geometry((math.inf, math.inf), None)]
        return [Geometry((self.receptive_field,) * 2, (self.stride,) * 2, (self.start,) * 2)]

    def forward(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None = None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return the code of RGB or grey images.

        Args:
            images: RGB or grey images.
            surrogate: gradient of the backward pass; None for the exact one.

        Shape:
            - images: (B, C, H, W), floating point, in [0, 1]; values outside pass unchanged.
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
        with phi._turn:  # Twins share more than weights, for example a list of a hook: passes take turns.
            try:
                return phi.encode(images, surrogate)
            except Exception as error:
                if isinstance(error, InvrepError) or out_of_memory(error):
                    raise
                raise UnfitError(self._refusal(images, error)) from error

    def private(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return Φ for one job: in evaluation mode, frozen, and free to be moved, cast and laid out anew.

        No such change reaches this representation or a module in it. The weights share memory with the originals where
        device and dtype are the same. A private Φ returns itself, moved.

        Args:
            device: device of the copy; None for the present one.
            dtype: floating-point type of the copy; None for the present one.
        """
        phi = self
        if not self._private:
            with torch.inference_mode(False):  # autograd takes no gradient of tensors made in inference mode
                phi = cast(Self, twin(self))
            phi._private, phi._turn = True, turn_of(self._shared)
        return phi if device is None and dtype is None else phi.to(device, dtype)

    @property
    def _shared(self) -> nn.Module:
        """Return the module that identifies the lock of this representation's passes."""
        return self

    def _refusal(self, images: Tensor, error: Exception) -> str:
        """Return the message about images that Φ cannot take, with the exception's own words."""
        name = getattr(self, "name", type(self).__name__)
        return f"{name} cannot take images of shape (batch, {', '.join(map(str, images.shape[1:]))}): {words(error)}"
