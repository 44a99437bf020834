"""Read photos, as RGB or grey floats in [0, 1].

Files, measures and Φ's public call use this range. The optimised image tensor is ``(255·rgb − mean) / scale``, with the
mean of the representation and the scale of the descent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from invrep.data.pixel_depth import Depth, depth_of, scaled
from invrep.errors import InvrepError, nearest
from invrep.representations.base import LUMA
from invrep.representations.geometry import InputSize

# The formats to read: Pillow's other parsers are old and rare, and its EPS parser runs Ghostscript.
PHOTOS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")


@cache
def formats() -> tuple[str, ...]:
    """Return the readable formats by Pillow's names; HEIF, the format of phones' HEIC, needs the plugin pillow-heif."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in PHOTOS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of readable files, in lower case."""
    names = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in names)


def bundled(name: str) -> Path:
    """Return the path of a photo in scikit-image's wheel.

    Raises:
        InvrepError: scikit-image's wheel has no photo of that name.
    """
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    photos = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg", ".gif", ".jpeg")}
    if name not in photos:
        raise InvrepError(f"No photo named {name!r} is bundled with scikit-image; {nearest(name, photos)}.")
    return photos[name]


@contextmanager
def in_a_sentence(name: str) -> Iterator[None]:
    """Turn an exception from reading a photo into one sentence.

    Args:
        name: name of the photo in messages.

    Raises:
        InvrepError: the file system or Pillow raised inside the context.
    """
    try:
        yield
    except InvrepError:
        raise
    except FileNotFoundError:
        raise InvrepError(f"There is no file {name}; give data.path a photo or a folder of photos.") from None
    except Image.DecompressionBombError:
        raise InvrepError(f"{name} has over {Image.MAX_IMAGE_PIXELS} pixels; make it smaller first.") from None
    except UnidentifiedImageError:
        raise InvrepError(
            f"{name} holds no image of a kind that is read, whatever its name says; convert it to PNG or JPEG, or "
            f"remove it."
        ) from None
    except PermissionError:
        raise InvrepError(f"{name} cannot be read: permission denied; change its permissions.") from None
    except MemoryError:
        raise InvrepError(f"{name} does not fit into memory; make it smaller first.") from None
    except Exception as error:  # Pillow's parsers raise any exception on a damaged file
        reason = str(error) or type(error).__name__
        raise InvrepError(f"{name} is damaged ({reason}); replace it by a whole image.") from None


@contextmanager
def _opened(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open a photo's header; a failure there or inside the context becomes one sentence."""
    with in_a_sentence(name), Image.open(file, formats=formats()) as image:
        # Pillow only warns up to twice its limit, where decoding would exhaust memory.
        if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        yield image


def _open(file: Path | BinaryIO, name: str) -> tuple[Image.Image, Depth | None]:
    """Open and decode a still photo, upright; return it with the depth of its values, None for plain 8 bits."""
    with _opened(file, name) as image:
        # The further frames of an MPO are a phone's depth or gain map, or a stereo image.
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise InvrepError(
                f"{name} is an animation of {frames} frames; expected a still photo: save one frame of it as PNG."
            )
        image.load()
        return ImageOps.exif_transpose(image), depth_of(image)


def _decode(
    image: Image.Image, depth: Depth | None, given: tuple[float, float] | None, name: str
) -> Image.Image | Tensor:
    """Return an 8-bit RGB image; for more than 8 bits a float tensor (3, H, W), black at 0 and white at 1."""
    if depth is not None:
        return torch.from_numpy(scaled(image, depth, given, name)).float().expand(3, -1, -1).contiguous()
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def size_of(file: Path | BinaryIO, name: str | None = None) -> tuple[int, int]:
    """Return the height and width in pixels of :func:`read` without resizing, from the file's header alone.

    Args:
        file: image file that Pillow can read.
        name: name of the photo in messages; by default its path.

    Raises:
        InvrepError: the file is missing or is no image.
    """
    with _opened(file, str(file) if name is None else name) as image:
        width, height = image.size
        # EXIF orientations 5 to 8 swap the sides. Pillow has swapped a TIFF's already.
        turned = image.format != "TIFF" and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def read(
    file: Path | BinaryIO,
    *,
    color: str = "rgb",
    resize: str = "none",
    input_size: InputSize | None = None,
    values: tuple[float, float] | None = None,
    name: str | None = None,
) -> Float[Tensor, "channel row column"]:
    """Read a photo.

    EXIF rotation is applied, and transparency is laid on white. Palettes and CMYK become RGB, and 16 bits are kept.

    Args:
        file: image file that Pillow can read.
        color: colour of the result, ``rgb``, or ``gray`` by the weights .2989/.5870/.1140.
        resize: kind of resize, ``model`` (the model's published resize and centre crop), ``squash`` (to the model's
            input without a crop, as in the paper) or ``none``.
        input_size: published input size of the model; None keeps the photo's size.
        values: black and white of a photo of more than 8 bits, in its own units; values beyond are clipped. None takes
            them from the photo's type.
        name: name of the photo in messages; by default its path.

    Returns:
        The photo, (C, H, W) float32 in [0, 1].

    Raises:
        InvrepError: the file is missing, damaged, animated, no image or larger than Pillow's limit; or its type does
            not say which values are black and white.
    """
    name = str(file) if name is None else name
    image = _decode(*_open(file, name), values, name)
    if input_size is not None and resize != "none":
        mode = InterpolationMode(input_size.interpolation)
        if resize == "squash":
            image = F.resize(image, list(input_size.crop), mode, antialias=True)
        else:
            side = input_size.resize
            image = F.resize(image, list(side) if isinstance(side, tuple) else [side], mode, antialias=True)
            image = F.center_crop(image, list(input_size.crop))
    return _coloured(image, color)


def from_pillow(image: Image.Image, color: str) -> Float[Tensor, "channel row column"]:
    """Return a Pillow image as (C, H, W) float32 in [0, 1], as :func:`read` returns its file.

    Args:
        image: Pillow image.
        color: colour of the result, ``rgb`` or ``gray``.

    Raises:
        InvrepError: the image's type does not say which values are black and white.
    """
    return _coloured(_decode(ImageOps.exif_transpose(image), depth_of(image), None, "The Pillow image"), color)


def _coloured(image: Image.Image | Tensor, color: str) -> Tensor:
    tensor = image if isinstance(image, Tensor) else F.to_tensor(image)
    tensor = tensor.clamp(0, 1)  # bicubic interpolation overshoots
    if color == "gray":
        tensor = torch.einsum("c,chw->hw", tensor.new_tensor(LUMA), tensor)[None]
    return tensor
