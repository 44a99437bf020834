"""A photo of a job: its id, and its file when it is opened."""

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
    """A photo of the job.

    Attributes:
        id: its path relative to ``data.path``, with forward slashes; a single file's name; in a tar, the tar's own
            such path and the member's; in a dataset its number.
        name: what a message calls it.
        open: opens its image file; None where a job needs no photo.
    """

    id: str
    name: str
    open: Callable[[], BinaryIO] | None

    def fetch(self) -> bytes:
        """Return the bytes of its image file.

        Raises:
            InvrepError: they cannot be read.
        """
        assert self.open is not None  # nothing asks for the file of NO_PHOTO
        with in_a_sentence(self.name), self.open() as file:
            return file.read()

    def content(self) -> str:
        """Return :func:`content_of` its image file, nothing where there is none."""
        return content_of(self.fetch()) if self.open else ""


def content_of(data: bytes) -> str:
    """Return 16 hexadecimal digits that change with the content of a file."""
    return hashlib.sha256(data).hexdigest()[:16]


NO_PHOTO = Photo("none", "none", None)


class Photos(Sequence[Photo]):
    """Photos by their place, each made when it is asked for.

    Args:
        ids: of all, each once.
        photo: the photo of a place and its id.
        left_out: file → why it is left out, of what looks like a photo beside them.
    """

    def __init__(
        self, ids: Sequence[str], photo: Callable[[int, str], Photo], left_out: Mapping[str, str] | None = None
    ) -> None:
        self.ids = ids
        self.left_out = left_out or {}
        self._photo = photo

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Photo:  # type: ignore[override]  # no slices: nothing takes a part of them
        return self._photo(place, self.ids[place])


def alone(photo: Photo) -> Photos:
    """Return one photo as a sequence."""
    return Photos([photo.id], partial(_alone, photo))


def _alone(photo: Photo, place: int, name: str) -> Photo:
    return photo


def photo_of(name: str, path: Path) -> Photo:
    """Return the photo in a file."""
    return Photo(name, str(path), partial(_open, path))


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise InvrepError(f"{path} is no file; give data.path a photo or a folder of photos.")
    return path.open("rb")


def file_below(folder: Path, place: int, name: str) -> Photo:
    """Return the photo in a file of that name below a folder."""
    return photo_of(name, folder / name)


def repeated(ids: Iterable[str]) -> str | None:
    """Return the first id that comes a second time; None where all differ."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None
