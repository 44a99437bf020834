"""Identify the photos of a job, and open their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from invrep.data.photo_reading import in_a_sentence
from invrep.errors import InvrepError


@dataclass(frozen=True)
class Photo:
    """Identify a photo of the job, and open its file.

    Attributes:
        id: path relative to ``data.path``, with forward slashes. A single file has its name. A member of a tar has the
            tar's relative path and its own. An item of a dataset has its number.
        name: name of the photo in messages.
        open: function that opens the image file; None where a job needs no photo.
    """

    id: str
    name: str
    open: Callable[[], BinaryIO] | None

    def fetch(self) -> bytes:
        """Return the bytes of the image file.

        Raises:
            InvrepError: the file cannot be read.
        """
        assert self.open is not None  # no caller fetches NO_PHOTO
        with in_a_sentence(self.name), self.open() as file:
            return file.read()

    def content(self) -> str:
        """Return :func:`content_of` the image file; an empty string without a file."""
        return content_of(self.fetch()) if self.open else ""


def content_of(data: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


NO_PHOTO = Photo("none", "none", None)


class Photos(Sequence[Photo]):
    """Hold photos by their place; access makes each one.

    Args:
        ids: ids of all photos, each once.
        photo: function of a place and an id that returns the photo.
        left_out: file that looks like a photo → reason why it is left out.
    """

    def __init__(
        self, ids: Sequence[str], photo: Callable[[int, str], Photo], left_out: Mapping[str, str] | None = None
    ) -> None:
        self.ids = ids
        self.left_out = left_out or {}
        self._photo = photo

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Photo:  # type: ignore[override]  # no slices, since no caller takes one
        return self._photo(place, self.ids[place])


def alone(photo: Photo) -> Photos:
    """Return one photo as a sequence."""
    return Photos([photo.id], partial(_alone, photo))


def _alone(photo: Photo, place: int, name: str) -> Photo:
    return photo


def photo_of(name: str, path: Path) -> Photo:
    """Return the photo of a file."""
    return Photo(name, str(path), partial(_open, path))


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # a pipe would block for ever
        raise InvrepError(f"{path} is no file; give data.path a photo or a folder of photos.")
    return path.open("rb")


def file_below(folder: Path, place: int, name: str) -> Photo:
    """Return the photo of the file ``name`` below a folder."""
    return photo_of(name, folder / name)


def repeated(ids: Iterable[str]) -> str | None:
    """Return the first id that occurs twice; None where all differ."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None
