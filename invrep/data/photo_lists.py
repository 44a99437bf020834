"""Find the photos of a list: a text file, or a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from invrep.data.photo import Photo, Photos, photo_of, repeated
from invrep.errors import InvrepError


def listed_photos(path: Path, limit: int | None) -> Photos:
    """Return the photos of a list of paths (.txt) or of a table of paths and ids (.csv).

    Args:
        path: list or table; relative paths in it start at its folder.
        limit: largest number of photos, from the first; None for all.

    Raises:
        InvrepError: the list cannot be read, is empty, has no column ``path``, or repeats an id.
    """
    ids, paths = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".txt":
                for line in (line.rstrip("\r\n") for line in file):
                    if line.strip() and not (line.startswith("#") and not (path.parent / line).exists()):  # a comment
                        paths.append(line)
                        ids.append(line.lstrip("/"))
            else:
                heading = file.readline().rstrip("\r\n")
                mark = next((mark for mark in ",;\t" if "path" in _cells(heading, mark)), ",")
                for row in csv.DictReader(file, _cells(heading, mark), delimiter=mark):
                    if "path" not in row:
                        raise InvrepError(f"data.path={path} has no column path; expected path and perhaps id.")
                    ids.append((row.get("id") or row["path"]).lstrip("/"))
                    paths.append(row["path"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvrepError(f"data.path={path} cannot be read as a list of photos ({error}).") from None
    if not ids:
        raise InvrepError(f"data.path={path} names no photo; expected one path on each line.")
    if (twice := repeated(ids)) is not None:
        raise InvrepError(f"data.path={path} names {twice} twice; give each photo an id of its own in a .csv.")
    return Photos(ids[:limit], partial(_listed_file, path.parent, paths[:limit]))


def _cells(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark), [])


def _listed_file(folder: Path, paths: Sequence[str], place: int, name: str) -> Photo:
    return photo_of(name, folder / Path(paths[place]).expanduser())
