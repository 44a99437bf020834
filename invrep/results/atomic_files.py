"""Write files whole or not at all, and turn file errors into sentences."""

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
def disk(path: Path, remedy: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the file system into one sentence.

    Args:
        path: file or folder that is written inside.
        remedy: clause that says what to type; None: what a job's user types.

    Raises:
        InvrepError: the file system refused to write; a full disk gets its own sentence.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = remedy or "free some and run the same command again: it goes on from what is finished"
            raise InvrepError(f"No space is left to write {path}; {full}.") from None
        other = remedy or "choose another folder with output=FOLDER"
        raise InvrepError(f"{path} cannot be written ({error.strerror or error}); {other}.") from None


def edited(path: Path, reason: str) -> InvrepError:
    """Return the error for a file that was changed or damaged after it was written."""
    return InvrepError(
        f"{path} is not as it was written ({reason}); remove it and run the same command again, which makes it anew."
    )


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Turn errors of reading a file of our own into one sentence: the file was edited or damaged.

    Args:
        path: file that is read inside.

    Raises:
        InvrepError: the file cannot be read.
    """
    try:
        yield
    except InvrepError:
        raise
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise edited(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def atomic(path: Path, write: Callable[[Path], Any], beside: str | None = None, remedy: str | None = None) -> None:
    """Write a file under a temporary name in its folder, and rename it when it is whole.

    Args:
        path: path of the file; its folder is made if needed.
        write: function of the temporary path; writes the content.
        beside: text that determines the temporary name; None: the file's own name. The next write with the same text
            replaces what a killed process left behind.
        remedy: clause of the error that says what to type; None: what a job's user types.

    Raises:
        InvrepError: the file cannot be written.
    """
    with disk(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256((beside or path.name).encode(errors="surrogateescape")).hexdigest()[:16]
        place = path.with_name(f".{name}.tmp")
        try:
            try:
                write(place)
            except SafetensorError as error:  # safetensors reports a full disk by its own exception
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from None
            with place.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(place, path)
        finally:
            place.unlink(missing_ok=True)
