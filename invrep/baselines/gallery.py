"""Read the photos of a folder in one size, with their codes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from invrep.data.photo import Photos
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.validation import number

BATCH = 8  # photos that Φ sees at once
ROOM = 2**30  # bytes of photos and codes that stay in memory


class Gallery:
    """Iterate over the photos at a path in one size, in batches (b, C, H, W) in [0, 1] with their codes.

    A photo is read as the job reads its own, then enlarged or reduced until it covers the size, and cropped about its
    centre. The first batches stay in memory, up to 1 GiB.

    Args:
        path: source of the photos, as ``data.path``.
        phi: representation Φ.
        shape: (C, H, W) of a photo after reading.
        limit: greatest number of photos; None for all.
        resize: ``model``, ``squash`` or ``none``, as ``data.resize``; None: ``model`` where Φ has an input size.

    Raises:
        InvrepError: there is no photo at the path.
    """

    def __init__(
        self,
        path: str | None,
        phi: Representation,
        shape: tuple[int, int, int],
        *,
        limit: int | None = None,
        resize: str | None = None,
    ) -> None:
        self.photos = photos_at(path, limit)
        self.phi, self.shape = phi, shape
        self.resize = resize or ("model" if phi.input_size else "none")
        self._kept: list[tuple[Tensor, list[Tensor]]] = []
        self._room = ROOM

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "photo channel row column"], list[Tensor]]]:
        yield from self._kept
        for begin in range(len(self._kept) * BATCH, len(self), BATCH):
            images = torch.stack([self._read(place) for place in range(begin, min(begin + BATCH, len(self)))])
            with torch.no_grad():
                code = self.phi(images.to(self.phi.mean))
            found = images, [part.cpu() for part in code]
            size = sum(part.nbytes for part in (found[0], *found[1]))
            if size <= self._room and begin == len(self._kept) * BATCH:
                self._kept.append(found)
                self._room -= size
            else:
                self._room = 0  # what is kept is the beginning
            yield found

    def _read(self, place: int) -> Tensor:
        photo, (channels, *size) = self.photos[place], self.shape
        image = read(
            io.BytesIO(photo.fetch()),
            color="rgb" if channels == 3 else "gray",
            resize=self.resize,
            input_size=self.phi.input_size,
            name=photo.name,
        )
        return cover(image, size)


def cover(image: Float[Tensor, "channel row column"], size: Sequence[int]) -> Float[Tensor, "channel height width"]:
    """Return an image enlarged or reduced until it covers a size in pixels, and cropped about its centre."""
    sides = image.shape[1:]
    scale = max(wanted / side for wanted, side in zip(size, sides, strict=True))
    if scale != 1:
        near = [max(round(side * scale), wanted) for side, wanted in zip(sides, size, strict=True)]
        image = F.interpolate(image[None], near, mode="bilinear", antialias=True)[0]
    top, left = ((side - wanted) // 2 for side, wanted in zip(image.shape[1:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def photos_at(path: str | None, limit: int | None = None) -> Photos:
    """Return the photos at a baseline's path.

    Raises:
        InvrepError: the path is missing, or no photo is there.
    """
    if path is None:
        raise InvrepError("The baseline needs photos of its own; give baseline.path=photos/.")
    limit = None if limit is None else number("baseline.limit", limit, minimum=1, whole=True, word="null")
    try:
        return find(path, limit)
    except InvrepError as error:
        raise InvrepError(str(error).replace("data.path", "baseline.path")) from None


@lru_cache(maxsize=1)  # the batches of a job share it
def gallery_of(
    path: str | None, phi: Representation, shape: tuple[int, int, int], limit: int | None, resize: str | None
) -> Gallery:
    """Return the gallery of a path, see :class:`Gallery`; the last one if the arguments are the same."""
    return Gallery(path, phi, shape, limit=limit, resize=resize)
