"""Convert images from Python: tensors, arrays, Pillow images, lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from invrep.data.photo_reading import from_pillow
from invrep.errors import InvrepError

EXPECTED = (
    "expected values in [0, 1] as a floating-point tensor or array of shape (n, channels, height, width), a Pillow "
    "image, or a list of images"
)
BANDS = (1, 3, 4)  # usual numbers of channels


def is_shape(given: object) -> TypeGuard[Sequence[int]]:
    """Return whether an argument holds the sides of an image, such as (3, 32, 32), instead of an image."""
    return (
        isinstance(given, tuple | list)
        and len(given) > 0
        and all(isinstance(side, Integral) and not isinstance(side, bool) for side in given)
    )


def as_images(given: object, color: str | None = None) -> Float[Tensor, "image channel row column"]:
    """Return images as a tensor on the CPU: float64 for float64 images, float32 for others.

    Args:
        given: tensor or array, (n, C, H, W) or (C, H, W) in [0, 1], a Pillow image, or a list of images.
        color: colour of converted Pillow images, ``rgb`` or ``gray``; None: 1 channel for grey ones, 3 for others.

    Returns:
        The images, (n, C, H, W), n ≥ 1.

    Raises:
        InvrepError: the argument is no image, has another shape or different sizes, or values outside [0, 1].
    """
    if isinstance(given, tuple | list) and given:
        parts = [_tensor(one, color) for one in given]
        parts = [part[0] if part.ndim == 4 and len(part) == 1 else part for part in parts]
        shapes = list(dict.fromkeys(tuple(part.shape) for part in parts))
        if len(shapes) > 1:
            raise InvrepError(
                f"images is a list of images of the shapes {' and '.join(map(str, shapes[:3]))}; expected one size: "
                f"call invert for each size."
            )
        images = torch.stack(parts)
    else:
        images = _tensor(given, color)
    images = images[None] if images.ndim == 3 else images
    _check(images)
    precision = torch.float64 if images.dtype == torch.float64 else torch.float32
    # Autograd refuses a tensor that was made in inference mode; it takes a copy.
    return images.to(precision, copy=True)


def _tensor(given: object, color: str | None) -> Tensor:
    """Return one image or several as a tensor, without checking the values."""
    if isinstance(given, Tensor):
        if given.layout != torch.strided or given.is_meta:
            raise InvrepError(f"images is a tensor on {given.device} of layout {given.layout}; {EXPECTED}.")
        given = given.detach().cpu()
        return given.float() if given.is_floating_point() and given.itemsize == 1 else given  # float8 lacks kernels
    if isinstance(given, Image.Image):
        grey = given.mode in ("1", "L", "I", "F") or given.mode.startswith("I;")
        return from_pillow(given, color or ("gray" if grey else "rgb"))
    if isinstance(given, np.ndarray | np.generic) or hasattr(given, "__array__"):
        array = np.asarray(given)
        if array.dtype.kind in "fiub":
            array = array.astype(array.dtype.newbyteorder("="))  # a copy, since torch takes no negative strides
            array = array if array.dtype.itemsize <= 8 else array.astype(np.float64)
            return torch.from_numpy(array)
        raise InvrepError(f"images is an array of {array.dtype}; {EXPECTED}.")
    if isinstance(given, str | os.PathLike):
        raise InvrepError(f"images is the name {str(given)!r}; give the photo itself: PIL.Image.open({str(given)!r}).")
    shown = given if given is None else f"of the class {type(given).__name__}"
    raise InvrepError(f"images is {shown}; {EXPECTED}.")


def _check(images: Tensor) -> None:
    """Check that images are (n, C, H, W) in [0, 1].

    Raises:
        InvrepError: the images have another shape or type, or values that are not finite or far outside [0, 1].
    """
    shape = tuple(images.shape)
    if not images.is_floating_point():
        hint = "" if images.is_complex() else f": divide by {255 if images.dtype == torch.uint8 else 'what is white'}"
        raise InvrepError(f"images is {images.dtype} of shape {shape}; {EXPECTED}{hint}.")
    if images.ndim == 4 and images.numel() and shape[3] in BANDS and shape[1] not in BANDS:
        raise InvrepError(
            f"images has the shape {shape}, which looks like (n, height, width, channels); expected (n, channels, "
            f"height, width): use torch.as_tensor(images).movedim(-1, -3)."
        )
    if images.ndim != 4 or not images.numel():
        raise InvrepError(f"images is {images.dtype} of shape {shape}; {EXPECTED}.")
    if not bool(images.isfinite().all()):
        raise InvrepError("images holds NaN or infinity; expected values in [0, 1].")
    # A pre-image that is given again may lie a little outside [0, 1].
    if float(images.min()) < -0.5 or float(images.max()) > 1.5 or float(images.mean()) < 0:
        raise InvrepError(
            f"images has values from {float(images.min()):g} to {float(images.max()):g}; expected [0, 1]: divide by "
            f"255, or undo a normalisation."
        )
