"""Files that appear whole or not at all, and names that any file system takes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError

from invrep.errors import InvrepError

LONGEST_NAME = 200  # bytes, of the 255 that file systems take; ours has a restart and a suffix as well
LONGEST_PATH = 1000  # bytes, of the 4096 that Linux takes


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InvrepError(
                f"No space is left to write {path}; free some and run the same command again: it goes on from what "
                f"is finished."
            ) from None
        raise InvrepError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder with output=FOLDER."
        ) from None


def edited(path: Path, reason: str) -> InvrepError:
    """Return the error for a file that is not as it was written."""
    return InvrepError(
        f"{path} is not as it was written ({reason}); remove it and run the same command again, which makes it anew."
    )


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Turn what comes of reading a file that somebody has edited, or a disk damaged, into one sentence."""
    try:
        yield
    except InvrepError:
        raise
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise edited(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def atomic(path: Path, write: Callable[[Path], Any], beside: str | None = None) -> None:
    """Write a file by ``write(place)`` beside its own place, and rename it when it is whole.

    Args:
        path: of the file.
        write: is given the path of the other place.
        beside: what the other place is named by; the file's own name where it is None. What a killed process leaves
            there is gone when the same is written again.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256((beside or path.name).encode(errors="surrogateescape")).hexdigest()[:16]
        place = path.with_name(f".{name}.tmp")
        try:
            try:
                write(place)
            except SafetensorError as error:  # its way to report a full disk
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from None
            with place.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(place, path)
        finally:
            place.unlink(missing_ok=True)


def file_name(image: str) -> str:
    """Return an image id as a relative path that any file system takes and that no other id has.

    Control characters, a percent sign and what other systems forbid are percent-encoded; other scripts stay readable.
    So are ``.`` and ``..``, which would lead elsewhere, and the end of a folder that is named as a file of ours may
    be. What is too long for a file system ends with a hash instead.
    """

    def part_name(part: str) -> str:
        if part in ("", ".", ".."):
            return "%2E" * len(part) or "%"
        return "".join(
            quote(c, errors="surrogateescape") if not c.isprintable() or c in '%<>:"\\|?*' else c for c in part
        )

    def short(name: str, most: int) -> str:
        whole = name.encode(errors="surrogateescape")
        if len(whole) <= most:
            return name
        head = whole[: most - 20].decode(errors="ignore").replace("/", "%")
        return f"{head}%-{hashlib.sha256(whole).hexdigest()[:16]}"

    *folders, last = map(part_name, image.split("/"))
    folders = [re.sub(r"\.(png|safetensors)$", r"%2E\1", name) for name in folders]
    names = [short(name, LONGEST_NAME) for name in (*folders, last)]
    joined = "/".join(names)
    return joined if len(joined.encode()) <= LONGEST_PATH else short(joined, LONGEST_NAME)
