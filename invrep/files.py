"""Files that appear whole or not at all, tables and tensors that are written and read without being held in memory."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError

from invrep.errors import InvrepError


def _whole(text: str) -> int:
    return int(float(text))  # earlier versions wrote passes as 20.0


TEXT = ("image", "content", "class", "boxes", "remark")
NUMBERS = {"restart": int, "restarts": int, "passes": int, "pass": _whole, **dict.fromkeys(TEXT, str)}
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
    except (SafetensorError, OSError, csv.Error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise edited(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file by ``write(place)`` beside its own place, and rename it when it is whole."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{hashlib.sha256(path.name.encode(errors='surrogateescape')).hexdigest()[:16]}.tmp")
        try:
            try:
                write(beside)
            except SafetensorError as error:  # its way to report a full disk
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from None
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


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


def read_table(path: Path, *columns: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV file, numbers as such, NaN for what is blank; none where there is no file.

    Raises:
        InvrepError: it lacks one of ``columns``, or is no such table.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        while True:
            # not round the yield, through which an error of the caller's would come
            with as_written(path):
                if lacking := set(columns) - set(rows.fieldnames or ()):
                    raise LookupError(f"no column {', '.join(sorted(lacking))}")
                row = next(rows, None)
                row = row and {name: NUMBERS.get(name, _float)(value) for name, value in row.items()}
            if row is None:
                return
            yield row


def _float(text: str) -> float:
    return float(text) if text else math.nan


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV file, blank for NaN and for what a row lacks."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({n: "" if isinstance(v, float) and math.isnan(v) else v for n, v in row.items()})


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor where it lies in a safetensors file.

    Attributes:
        path: of the file.
        dtype: as the format names it.
        shape: of the tensor.
        start: its first byte.
        length: its bytes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


def stored(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and its metadata."""
    with as_written(path), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > os.fstat(file.fileno()).st_size:
            raise ValueError("its header is longer than it is")
        header = json.loads(file.read(size))
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: Stored(path, entry["dtype"], tuple(entry["shape"]), 8 + size + start, end - start)
            for name, entry in header.items()
            for start, end in [entry["data_offsets"]]
        }
    return tensors, metadata


def join(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Write a safetensors file of tensors of others, in the order of their names, one at a time in memory.

    The format (huggingface.co/docs/safetensors) is the header's length in eight bytes, the header as JSON, and the
    tensors; the library itself can only write what it holds as a whole.
    """
    header, at = {}, 0
    names = sorted(tensors)
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [at, at := at + tensor.length],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            with tensors[name].path.open("rb") as file:
                file.seek(tensors[name].start)
                out.write(file.read(tensors[name].length))
