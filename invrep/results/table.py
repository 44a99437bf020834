"""Keep a table on disk: Parquet files that several processes add at once, compacted into few when a job ends.

A *part* is a file that one process has added. Compaction merges all parts into a *generation*: files of bounded size,
in the order of the keys. A file is never changed. It appears whole, and it is removed once another file holds its rows.
So every row is in some file at any moment. Where several files have a key, the file with the last name counts. A file's
name ends with a digest of its content, which reveals damage.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import polars as pl

from invrep.results.atomic_files import atomic, edited

TEXT = ("image", "content", "class", "boxes", "remark", "settings")
WHOLE = ("restart", "restarts", "passes")
CURVE = "curve."  # prefix of columns that hold lists, one value for each recorded pass
MOST_PARTS = 256  # parts of one process, after which it merges them into one
MOST_BYTES = 32 * 2**20  # approximate size of a generation's file
KEY = ("image", "restart")
scan = partial(pl.scan_parquet, glob=False, hive_partitioning=False)  # a path's brackets and equals signs are literal


class Table:
    """Store rows with a key of image and restart, and columns of text, numbers or lists of numbers.

    Args:
        folder: folder of the files; the first write makes it.
        write: function that writes a file, with the arguments of :func:`invrep.results.atomic_files.atomic`.
    """

    def __init__(self, folder: Path, write: Callable[..., None] = atomic) -> None:
        self.folder = folder
        self._write = write
        self._sound: set[str] = set()
        self._own: list[Path] = []

    def files(self) -> list[Path]:
        """Return the files in the order of their names; for a key in several files, the last file counts."""
        return sorted(self.folder.glob("*.parquet"), key=lambda path: path.name)

    def settled(self) -> bool:
        """Return whether the last compaction is complete: no parts, and files of at most one generation."""
        return _settled(self.files())

    # --- reading ------------------------------------------------------------------------------------------------------

    def collect(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """Return the result of a query over all rows, with each key once.

        Args:
            query: function from the lazy frame of all rows to the lazy frame that is collected.

        Raises:
            InvrepError: a file is damaged.
        """
        while True:
            files = self.files()
            try:
                return query(self._scan(files)).collect(engine="streaming")
            except FileNotFoundError:
                if files == self.files():  # otherwise another process has just merged its parts
                    raise

    def chunks(self) -> Iterator[pl.DataFrame]:
        """Yield all rows in the order of their keys, in chunks of about ``MOST_BYTES``."""
        files = self.files()
        keys = self.collect(lambda rows: rows.select(KEY)).sort(KEY)
        each = max(1, keys.height * MOST_BYTES // max(sum(path.stat().st_size for path in files), 1))
        for some in keys.iter_slices(each) if keys.height else ():
            between = pl.col("image").is_between(pl.lit(some["image"][0]), pl.lit(some["image"][-1]))
            rows = self.collect(methodcaller("filter", between))
            yield rows.join(some, on=KEY, how="semi").sort(KEY)

    def _scan(self, files: Sequence[Path]) -> pl.LazyFrame:
        schema: dict[str, Any] = {name: _kind(name) for name in (*KEY, "content", "remark")}
        for path in files:
            self._check(path)
            schema |= scan(path.absolute()).collect_schema()
        if not files:
            return pl.LazyFrame(schema=schema)
        rows = scan(
            [path.absolute() for path in files],
            schema=schema,
            extra_columns="ignore",
            missing_columns="insert",
            include_file_paths="file",
        )
        if not _settled(files):
            keys = rows.select(*KEY, "file").collect(engine="streaming")
            last = keys.group_by(KEY).agg(pl.col("file").max())
            if last.height < keys.height:
                rows = rows.join(last.lazy(), on=[*KEY, "file"], how="semi")
        numbers = [name for name, kind in schema.items() if kind == pl.Float64]
        texts = [name for name, kind in schema.items() if kind == pl.String]
        return rows.drop("file").with_columns(
            pl.col(numbers).fill_null(float("nan")), pl.col(texts).fill_null(""), *_whole_curves(schema)
        )

    def _check(self, path: Path) -> None:
        """Compare a file with the digest in its name; each process checks a file once.

        Raises:
            InvrepError: the content does not match the digest.
        """
        if path.name not in self._sound:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest[:16] != path.stem.rpartition("-")[2]:
                raise edited(path, "its content does not fit its name")
            self._sound.add(path.name)

    # --- writing ------------------------------------------------------------------------------------------------------

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as a part; columns ``curve.NAME`` hold lists."""
        self._own.append(self._add(_frame(list(rows))))
        if len(self._own) >= MOST_PARTS:
            own, self._own = self._own, []
            self._add(self._scan(own).collect(engine="streaming"))
            for path in own:
                path.unlink(missing_ok=True)

    def _add(self, rows: pl.DataFrame) -> Path:
        first = hashlib.sha256(repr(rows.select(KEY).row(0)).encode()).hexdigest()[:8]
        return self._save(rows, self.folder / f"part{time.time_ns():020}-{first}", f"part-{first}")

    def _save(self, rows: pl.DataFrame, stem: Path, beside: str | None = None) -> Path:
        """Write a file and return its path: ``stem`` with the content's digest and ``.parquet``."""
        buffer = io.BytesIO()
        rows.write_parquet(buffer)
        data = buffer.getbuffer()
        path = stem.with_name(f"{stem.name}-{hashlib.sha256(data).hexdigest()[:16]}.parquet")
        self._write(path, lambda place: place.write_bytes(data), beside=beside)
        self._sound.add(path.name)
        return path

    def compact(self, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> None:
        """Merge all files into a new generation; memory is bounded by one of its files.

        Args:
            change: function from the rows of a file to the rows that are written.
        """
        files, beside = self.files(), self.folder / ".compacting"
        shutil.rmtree(beside, ignore_errors=True)  # left by a compaction that was killed
        generation = max((_made(path) or 0 for path in files), default=0) + 1
        chunks = enumerate(self.chunks())
        made = [self._save(change(rows), beside / f"{generation:06}-{number:06}") for number, rows in chunks]
        for path in made:
            os.replace(path, self.folder / path.name)
        shutil.rmtree(beside, ignore_errors=True)
        for path in files:
            path.unlink(missing_ok=True)
        self._own = []


def _made(path: Path) -> int | None:
    """Return the number of a file's generation; None for a part."""
    name = path.name.partition("-")[0]
    return int(name) if name.isdecimal() else None


def _settled(files: Sequence[Path]) -> bool:
    generations = {_made(path) for path in files}
    return len(generations) <= 1 and None not in generations


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: pl.Series(name, [row.get(name) for row in rows], _kind(name)) for name in names})


def _kind(name: str) -> Any:
    if name.startswith(CURVE):
        return pl.List(pl.Int64 if name == f"{CURVE}pass" else pl.Float64)
    return pl.String if name in TEXT else pl.Int64 if name in WHOLE else pl.Float64


def _whole_curves(schema: Mapping[str, Any]) -> Iterable[pl.Expr]:
    """Return expressions that fill a curve that a row lacks with one NaN for each of the row's points."""
    blank = pl.col(f"{CURVE}pass").list.eval(pl.element().cast(pl.Float64) * float("nan"))
    return [pl.col(name).fill_null(blank) for name, kind in schema.items() if kind == pl.List(pl.Float64)]
