"""Which photos a job inverts, what they are called, and which of them share a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from invrep.errors import InvrepError
from invrep.images import SUFFIXES, bundled

BUNDLED = "bundled:"


@dataclass(frozen=True)
class Photo:
    """A photo of the job.

    Attributes:
        id: its path relative to ``data.path``, with forward slashes; a single file's name.
        path: where it lies; None where a job needs no photo.
    """

    id: str
    path: Path | None

    def content(self) -> str:
        """Return 16 hexadecimal digits that change with the file's content; nothing without a file."""
        if self.path is None:
            return ""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


NO_PHOTO = Photo("none", None)


def find(path: str, limit: int | None = None) -> list[Photo]:
    """Return the photos of a file, of a folder and its subfolders (sorted by id), or ``bundled:NAME``.

    Args:
        path: the config's ``data.path``.
        limit: at most so many, from the first.

    Raises:
        InvrepError: there is no such file or folder, or no photo in it.
    """
    if path.startswith(BUNDLED):
        photo = bundled(path.removeprefix(BUNDLED))
        return [Photo(photo.name, photo)]
    root = Path(path).expanduser()
    if root.is_file():
        return [Photo(root.name, root)]
    if not root.is_dir():
        raise InvrepError(f"There is no file or folder data.path={path}; give a photo or a folder of photos.")
    photos = [
        Photo(p.relative_to(root).as_posix(), p)
        for p in root.rglob("*")
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]
    if not photos:
        raise InvrepError(f"No photo is in the folder data.path={path}; expected files such as .jpg, .png or .tif.")
    return sorted(photos, key=lambda photo: photo.id)[:limit]


@dataclass(frozen=True)
class Batch:
    """Photos of one size, which are inverted in one tensor.

    Attributes:
        size: height and width in pixels.
        photos: the photos.
    """

    size: tuple[int, int]
    photos: tuple[Photo, ...]


def batches(
    sized: Iterable[tuple[Photo, tuple[int, int]]], batch_size: Callable[[tuple[int, int]], int]
) -> Iterator[Batch]:
    """Yield batches of at most ``batch_size(size)`` photos of one size, in the order in which the sizes first occur.

    The division depends on the whole list only, not on what is finished, so that a job that goes on puts a photo
    beside the same neighbours as an unbroken one.
    """
    groups: dict[tuple[int, int], list[Photo]] = {}
    for photo, size in sized:
        groups.setdefault(size, []).append(photo)
    for size, photos in groups.items():
        most = batch_size(size)
        for k in range(0, len(photos), most):
            yield Batch(size, tuple(photos[k : k + most]))
