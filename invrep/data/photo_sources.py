"""Find a job's photos: files, lists, tars, torchvision's datasets; memory holds their names only."""

from __future__ import annotations

import glob
import os
from functools import partial
from pathlib import Path

from invrep.data.folders import contents, is_tar, matches, some_of
from invrep.data.photo import Photos, alone, file_below, photo_of, repeated
from invrep.data.photo_lists import listed_photos
from invrep.data.photo_reading import bundled
from invrep.data.tar_photos import tar_photos
from invrep.data.torchvision_photos import DATASET, dataset_photos
from invrep.errors import InvrepError

BUNDLED = "bundled:"


def find(path: str, limit: int | None = None, *, root: str | None = None, split: str | None = None) -> Photos:
    """Return the photos of the setting ``data.path``.

    Args:
        path: source of the photos. A photo or a tar of photos. A folder with its subfolders, or a pattern such as
            ``photos/**/*.jpg`` or ``val-*.tar``: its photos are sorted by id. A list: ``.txt`` with a path on each
            line, or ``.csv`` with a column ``path`` and optionally ``id``; its relative paths start at its folder.
            ``bundled:NAME`` or ``bundled:NAME+NAME``, photos of scikit-image, or a dataset ``torchvision:NAME``. Lists,
            tars, datasets and bundled photos keep their order.
        limit: largest number of photos, from the first; None for all.
        root: root folder of a dataset, as torchvision names it.
        split: split of a dataset that has several.

    Raises:
        InvrepError: there is no such file or folder, or no photo in it; a list, tar or dataset cannot be read, or
            repeats an id.
    """
    if path.startswith(BUNDLED):
        return _bundled_photos(path, limit)
    if path.startswith(DATASET):
        return dataset_photos(path.removeprefix(DATASET), root, split, limit)
    where = Path(path).expanduser()
    _check_access(where, path)
    if os.path.isfile(where) and where.suffix.lower() in (".txt", ".csv"):
        return listed_photos(where, limit)
    if os.path.isfile(where) and is_tar(where.name):
        return tar_photos([where.name], where.parent, limit)
    if os.path.isfile(where):
        return alone(photo_of(where.name, where))
    if os.path.isdir(where):
        place, found = where, contents(where)
        what = f"is in the folder data.path={path}"
    elif glob.has_magic(path):
        place, found = matches(where)
        what = f"matches data.path={path}"
    else:
        raise InvrepError(f"There is no file or folder data.path={path}; give a photo or a folder of photos.")
    ids, tars = found.photos, found.tars
    if os.path.isdir(where) and tars and not ids:
        raise InvrepError(f"No photo but tars are in the folder data.path={path}; give data.path='{path}/*.tar'.")
    if tars and ids and not os.path.isdir(where):
        raise InvrepError(f"data.path={path} means photos and tars, such as {ids[0]} and {tars[0]}; expected one kind.")
    if tars and not os.path.isdir(where):
        return tar_photos(sorted(tars), place, limit)
    if not ids:
        left_out = f"; left out: {some_of(found.left_out)}" if found.left_out else ""
        brackets = "; a [ that stands for itself is typed [[]" if "[" in path and not os.path.isdir(where) else ""
        raise InvrepError(f"No photo {what}; expected files such as .jpg, .png or .tif{left_out}{brackets}.")
    ids.sort()
    return Photos(ids[:limit], partial(file_below, place), dict(sorted(found.left_out.items())))


def _bundled_photos(path: str, limit: int | None) -> Photos:
    files = [bundled(name) for name in path.removeprefix(BUNDLED).split("+")]
    ids = [file.name for file in files]
    if (twice := repeated(ids)) is not None:
        raise InvrepError(f"data.path={path} names {twice} twice; expected each photo once.")
    return Photos(ids[:limit], partial(file_below, files[0].parent))


def _check_access(where: Path, path: str) -> None:
    """Refuse a path that the system denies access to; a missing path may be a pattern."""
    try:
        where.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if not glob.has_magic(path):
            raise InvrepError(f"data.path={path} cannot be read ({error.strerror}).") from None
