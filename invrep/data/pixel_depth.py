"""Find black and white in photos of more than 8 bits: by their type, or by ``data.range``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from invrep.errors import InvrepError

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes
BITS, WHITE_IS_ZERO, FORMAT = 258, 262, 339  # tags of TIFF
UNSIGNED, SIGNED = 1, 2  # values of the tag FORMAT


@dataclass(frozen=True)
class Depth:
    """Describe the values of a photo with one channel.

    Attributes:
        kind: kind of the values, in words.
        dtype: type of the values in the file, where Pillow's array has another; None where both agree.
        white: value of white, where black is 0; None where the type does not define it.
        inverted: whether 0 is white.
    """

    kind: str
    dtype: type[np.generic] | None
    white: float | None
    inverted: bool


def depth_of(image: Image.Image) -> Depth | None:
    """Return the depth of an opened photo's values; None for plain 8 bits, which Pillow reads correctly."""
    tags = getattr(image, "tag_v2", {})  # only a TIFF has them
    bits, signed = tags.get(BITS, (16,))[0], tags.get(FORMAT, (UNSIGNED,))[0] == SIGNED
    inverted = image.mode in DEEP and tags.get(WHITE_IS_ZERO) == 0  # Pillow inverts the other modes itself
    if image.mode == "F":
        return Depth("32-bit floats", None, None, inverted)
    if signed:
        return Depth(f"signed {bits}-bit integers", np.int8 if bits == 8 else None, None, inverted)
    if image.mode == "I" and bits == 32:
        return Depth("32-bit integers", np.uint32, None, inverted)
    return Depth(f"{bits}-bit integers", None, 2**bits - 1, inverted) if image.mode in DEEP else None


def scaled(image: Image.Image, depth: Depth, given: tuple[float, float] | None, name: str) -> np.ndarray:
    """Return a photo's values, (H, W) float64, with black at 0 and white at 1; values beyond are clipped.

    Args:
        image: decoded image.
        depth: depth of its values.
        given: black and white from the user, in the photo's units. None takes them from the type; for floats that all
            lie in [0, 1], they are 0 and 1.
        name: name of the photo in messages.

    Raises:
        InvrepError: a value is not finite, black and white are unknown, or no value lies between the given ones.
    """
    values = np.asarray(image)
    values = (values if depth.dtype is None else values.view(depth.dtype)).astype(np.float64)
    if missing := np.count_nonzero(~np.isfinite(values)):
        raise InvrepError(f"{name} holds {missing} pixels that are NaN or infinite; fill them in, or crop them away.")
    least, most = float(values.min()), float(values.max())
    unit = depth.kind.endswith("floats") and least >= 0 and most <= 1
    white = depth.white or (1.0 if unit else None)
    bounds = given or (None if white is None else (0.0, white))
    if bounds is None:
        usual = next((peak for peak in (255, 65535) if least >= 0 and peak / 4 < most <= peak), None)
        guess = (0, usual) if usual else (least, most)
        raise InvrepError(
            f"{name} holds {depth.kind} from {least:g} to {most:g}, which do not say what black and white are; give "
            f"data.range=[LOW,HIGH], such as data.range=[{guess[0]:.10g},{guess[1]:.10g}]."
        )
    low, high = bounds
    if given is not None and least < most and (most <= low or least >= high):
        raise InvrepError(
            f"{name} holds values from {least:g} to {most:g}, none of them within data.range=[{low:g},{high:g}]."
        )
    parts: np.ndarray = np.clip((values - low) / (high - low), 0, 1)
    return 1 - parts if depth.inverted else parts
