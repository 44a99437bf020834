"""Which photos a job inverts, what they are called, and which of them share a batch."""

from __future__ import annotations

import csv
import glob
import hashlib
import itertools
from collections import Counter
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
    """Return the photos that the config's ``data.path`` means.

    Args:
        path: a photo; a folder with its subfolders, or a pattern such as ``photos/**/*.jpg``, sorted by id; ``.txt``, a
            file with a path on each line; ``.csv``, one with a column ``path`` and, if wanted, ``id``; or
            ``bundled:NAME``. Paths in a list are relative to its folder, and the list's order is kept.
        limit: at most so many, from the first.

    Raises:
        InvrepError: there is no such file or folder, or no photo in it; a list cannot be read or names an id twice.
    """
    if path.startswith(BUNDLED):
        photo = bundled(path.removeprefix(BUNDLED))
        return [Photo(photo.name, photo)]
    root = Path(path).expanduser()
    if root.is_file() and root.suffix.lower() in (".txt", ".csv"):
        return _listed(root)[:limit]
    if root.is_file():
        return [Photo(root.name, root)]
    if root.is_dir():
        found, place = root.rglob("*"), root
    elif glob.has_magic(path):
        plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), root.parts))
        place = Path(*plain)
        found = place.glob(str(Path(*root.parts[len(plain) :])))
    else:
        raise InvrepError(f"There is no file or folder data.path={path}; give a photo or a folder of photos.")
    photos = [
        Photo(p.relative_to(place).as_posix(), p)
        for p in found
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]
    if not photos:
        raise InvrepError(f"No photo is in the folder data.path={path}; expected files such as .jpg, .png or .tif.")
    return sorted(photos, key=lambda photo: photo.id)[:limit]


def _listed(path: Path) -> list[Photo]:
    """Return the photos of a list of paths (.txt) or a table of paths and ids (.csv)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".txt":
                lines = [line.rstrip("\r\n") for line in file]
                named = [(line.lstrip("/"), line) for line in lines if line.strip()]
            else:
                rows = list(csv.DictReader(file))
                if rows and "path" not in rows[0]:
                    raise InvrepError(f"data.path={path} has no column path; expected path and perhaps id.")
                named = [((row.get("id") or row["path"]).lstrip("/"), row["path"]) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvrepError(f"data.path={path} cannot be read as a list of photos ({error}).") from None
    if not named:
        raise InvrepError(f"data.path={path} names no photo; expected one path on each line.")
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise InvrepError(f"data.path={path} names {twice[0]} twice; give each photo an id of its own in a .csv.")
    return [Photo(name, path.parent / Path(where).expanduser()) for name, where in named]


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
