"""Where a job's photos come from: files, lists, tars, torchvision's datasets; only their names are held in memory."""

from __future__ import annotations

import csv
import glob
import hashlib
import inspect
import io
import os
import tarfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from invrep.errors import InvrepError, nearest
from invrep.folders import COMPRESSED, contents, hidden, is_photo, is_tar, matches, some_of, unread
from invrep.images import bundled, in_a_sentence

BUNDLED, DATASET = "bundled:", "torchvision:"


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

    def __getitem__(self, place: int) -> Photo:
        return self._photo(place, self.ids[place])


def alone(photo: Photo) -> Photos:
    """Return one photo as a sequence."""
    return Photos([photo.id], partial(_alone, photo))


def _alone(photo: Photo, place: int, name: str) -> Photo:
    return photo


def find(path: str, limit: int | None = None, *, root: str | None = None, split: str | None = None) -> Photos:
    """Return the photos that the config's ``data.path`` means.

    Args:
        path: a photo or a tar of photos; a folder with its subfolders, or a pattern such as ``photos/**/*.jpg`` or
            ``val-*.tar``, sorted by id; ``.txt``, a file with a path on each line; ``.csv``, one with a column ``path``
            and, if wanted, ``id``; ``bundled:NAME``; or ``torchvision:NAME``, a dataset. Paths in a list are relative
            to its folder. Lists, tars and datasets keep their order.
        limit: at most so many, from the first.
        root: of a dataset, the folder that torchvision calls its root.
        split: of a dataset, where it has several.

    Raises:
        InvrepError: there is no such file or folder, or no photo in it; a list, tar or dataset cannot be read, or names
            an id twice.
    """
    if path.startswith(BUNDLED):
        file = bundled(path.removeprefix(BUNDLED))
        return alone(_file(file.name, file))
    if path.startswith(DATASET):
        return _dataset_photos(path.removeprefix(DATASET), root, split, limit)
    where = Path(path).expanduser()
    _check_access(where, path)
    if os.path.isfile(where) and where.suffix.lower() in (".txt", ".csv"):
        return _listed(where, limit)
    if os.path.isfile(where) and is_tar(where.name):
        return _members([where.name], where.parent, limit)
    if os.path.isfile(where):
        return alone(_file(where.name, where))
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
        return _members(sorted(tars), place, limit)
    if not ids:
        left_out = f"; left out: {some_of(found.left_out)}" if found.left_out else ""
        brackets = "; a [ that stands for itself is typed [[]" if "[" in path and not os.path.isdir(where) else ""
        raise InvrepError(f"No photo {what}; expected files such as .jpg, .png or .tif{left_out}{brackets}.")
    ids.sort()
    return Photos(ids[:limit], partial(_file_below, place), dict(sorted(found.left_out.items())))


def _check_access(where: Path, path: str) -> None:
    """Refuse what the system does not let us look at; what is missing may be a pattern."""
    try:
        where.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if not glob.has_magic(path):
            raise InvrepError(f"data.path={path} cannot be read ({error.strerror}).") from None


def _file(name: str, path: Path) -> Photo:
    return Photo(name, str(path), partial(_open, path))


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise InvrepError(f"{path} is no file; give data.path a photo or a folder of photos.")
    return path.open("rb")


def _file_below(folder: Path, place: int, name: str) -> Photo:
    return _file(name, folder / name)


def _listed(path: Path, limit: int | None) -> Photos:
    """Return the photos of a list of paths (.txt) or a table of paths and ids (.csv)."""
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
    if (twice := _twice(ids)) is not None:
        raise InvrepError(f"data.path={path} names {twice} twice; give each photo an id of its own in a .csv.")
    return Photos(ids[:limit], partial(_listed_file, path.parent, paths[:limit]))


def _cells(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark), [])


def _listed_file(folder: Path, paths: Sequence[str], place: int, name: str) -> Photo:
    return _file(name, folder / Path(paths[place]).expanduser())


def _twice(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in ids if name in seen or seen.add(name)), None)


def _members(tars: Sequence[str], folder: Path, limit: int | None) -> Photos:
    """Return the photos in tars: members with the suffix of an image, by where their bytes lie."""
    ids: list[str] = []
    left_out: dict[str, str] = {}
    where = array("L"), array("Q"), array("Q")  # which tar, the first byte, how many
    for number, tar in enumerate(tars):
        if tar.lower().endswith(COMPRESSED):
            raise InvrepError(
                f"{folder / tar} is compressed, so that no photo in it can be reached by itself; unpack it to a .tar."
            )
        try:
            with tarfile.open(folder / tar, "r:") as opened:
                while (member := opened.next()) is not None and len(ids) != limit:
                    opened.members.clear()  # else it keeps a kilobyte of each
                    name = f"{tar}/{member.name}"
                    if hidden(member.name) or member.isdir():
                        continue
                    if (why := unread(name)) or (is_photo(name) and not member.isreg()):
                        left_out[name] = why or "a link or no regular file"
                    elif is_photo(name):
                        ids.append(name)
                        for column, value in zip(where, (number, member.offset_data, member.size), strict=True):
                            column.append(value)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InvrepError(f"{folder / tar} cannot be read as a tar ({error}); replace it by a whole one.") from None
    if not ids:
        also = f"; left out: {some_of(left_out)}" if left_out else ""
        raise InvrepError(f"No photo is in {folder / tars[0]}; expected members such as .jpg, .png or .tif{also}.")
    if (twice := _twice(ids)) is not None:
        raise InvrepError(f"{twice} is there twice; give each photo in a tar a name of its own.")
    return Photos(ids, partial(_member, folder, tars, where), left_out)


def _member(folder: Path, tars: Sequence[str], where: Sequence[Sequence[int]], place: int, name: str) -> Photo:
    number, start, length = (column[place] for column in where)
    return Photo(name, str(folder / name), partial(_part_of, folder / tars[number], start, length))


def _part_of(path: Path, start: int, length: int) -> BinaryIO:
    with path.open("rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))


def _dataset_photos(name: str, root: str | None, split: str | None, limit: int | None) -> Photos:
    """Return the photos of one of torchvision's datasets."""
    if root is None:
        raise InvrepError(
            f"data.path={DATASET}{name} needs a folder; give data=torchvision data.name={name} data.root=FOLDER"
        )
    dataset = _dataset(name, root, split)
    if isinstance(dataset, datasets.DatasetFolder):  # photos in files, which we read with all that they say
        base = os.path.abspath(dataset.root)
        ids = [Path(os.path.relpath(file, base)).as_posix() for file, _ in dataset.samples[:limit]]
        return Photos(ids, partial(_file_below, Path(base)))
    count = len(dataset)
    ids = [str(k).zfill(len(str(count - 1))) for k in range(count if limit is None else min(limit, count))]
    return Photos(ids, partial(_item, name, root, split))


@lru_cache(maxsize=1)
def _dataset(name: str, root: str, split: str | None) -> Dataset[Any]:
    """Open a dataset of torchvision's; nothing is downloaded."""
    known = [n for n in datasets.__all__ if isinstance(getattr(datasets, n), type)]
    if name not in known:
        raise InvrepError(f"torchvision has no dataset {name!r}; {nearest(name, known)}.")
    kind = getattr(datasets, name)
    takes = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {"root": str(Path(root).expanduser())} if "root" in takes else {}
    given |= {"download": False} if "download" in takes else {}
    if split is not None:
        if "train" in takes and "split" not in takes:
            if split not in ("train", "test"):
                raise InvrepError(f"data.split={split} is not valid for {name}: expected train or test.")
            given["train"] = split == "train"
        elif "split" in takes or "image_set" in takes or name == "EMNIST":
            given["image_set" if "image_set" in takes else "split"] = split
        else:
            raise InvrepError(f"data.split={split} is not valid for {name}, which has one part; leave data.split out.")
    try:
        dataset = kind(**given)
        if not isinstance(dataset[0][0], Image.Image):
            raise TypeError("its items are not photos")
    except Exception as error:
        # torchvision says what is not there, or not valid, by exceptions of many kinds
        first = str(error).partition(" You can use download")[0].strip().partition("\n")[0]
        raise InvrepError(
            f"torchvision's {name} cannot be opened in data.root={root} ({first}); put it there as torchvision lays it "
            f"out: nothing is downloaded."
        ) from None
    return dataset


def _item(name: str, root: str, split: str | None, place: int, number: str) -> Photo:
    return Photo(number, f"{name} {number}", partial(_encoded, name, root, split, place))


def _encoded(name: str, root: str, split: str | None, place: int) -> BinaryIO:
    """Return a dataset's photo as a file of plain pixels."""
    image = _dataset(name, root, split)[place][0]
    file = io.BytesIO()
    (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(file, "PPM")
    file.seek(0)
    return file
