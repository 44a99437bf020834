"""Find photos in tar files, as in WebDataset."""

from __future__ import annotations

import io
import tarfile
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from invrep.data.folders import COMPRESSED, hidden, is_photo, some_of, unread
from invrep.data.photo import Photo, Photos, repeated
from invrep.errors import InvrepError


def tar_photos(tars: Sequence[str], folder: Path, limit: int | None) -> Photos:
    """Return the photos in tars: the members with the suffix of an image, by the position of their bytes.

    Args:
        tars: paths of the tars, relative to ``folder``.
        folder: folder of the tars.
        limit: largest number of photos, from the first; None for all.

    Raises:
        InvrepError: a tar is compressed or cannot be read, holds no photo, or repeats an id.
    """
    ids: list[str] = []
    left_out: dict[str, str] = {}
    where = array("L"), array("Q"), array("Q")  # number of the tar, first byte, length in bytes
    for number, tar in enumerate(tars):
        if tar.lower().endswith(COMPRESSED):
            raise InvrepError(
                f"{folder / tar} is compressed, so that no photo in it can be reached by itself; unpack it to a .tar."
            )
        try:
            with tarfile.open(folder / tar, "r:") as opened:
                while (member := opened.next()) is not None and len(ids) != limit:
                    # tarfile would keep a kilobyte of each member. typeshed lacks the attribute.
                    opened.members.clear()  # type: ignore[attr-defined]
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
    if (twice := repeated(ids)) is not None:
        raise InvrepError(f"{twice} is there twice; give each photo in a tar a name of its own.")
    return Photos(ids, partial(_member, folder, tars, where), left_out)


def _member(folder: Path, tars: Sequence[str], where: Sequence[Sequence[int]], place: int, name: str) -> Photo:
    number, start, length = (column[place] for column in where)
    return Photo(name, str(folder / name), partial(_part_of, folder / tars[number], start, length))


def _part_of(path: Path, start: int, length: int) -> BinaryIO:
    with path.open("rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))
