"""Files that appear whole or not at all, and names that any file system takes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from invrep.errors import InvrepError


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
