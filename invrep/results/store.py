"""What a job leaves on disk: the only source for going on, for tables and for figures.

A finished pre-image is a tensor file, ``parts/IMAGE.RESTART.safetensors``, and then a row of a
:mod:`invrep.results.table` in ``table/``, by which it counts as finished; its curve is in the row. ``spread/`` is a
table of the photos with several pre-images. ``metrics.csv``, ``curves.csv``, ``spread.csv`` and
``reconstructions.safetensors`` are made of these for people. Nothing reads them. Every file is there whole or not at
all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import polars as pl
import polars.selectors as cs
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import load, save_file
from torch import Tensor
from yaml import YAMLError

from invrep.data.batching import Done, Key, Keys
from invrep.data.code_files import save_code
from invrep.data.display import shown, to_pil
from invrep.errors import InvrepError
from invrep.results.atomic_files import as_written, atomic, disk
from invrep.results.file_names import file_name
from invrep.results.rows import FIRST, LAST, Finished, as_rows, decoded, encoded, row_of
from invrep.results.table import CURVE, KEY, Table

FORMAT = "2"  # of the folder; 1 had no number


class Results:
    """The folder of one job.

    Args:
        folder: the job's output folder; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.format = folder / "format"
        self.parts = folder / "parts"
        self.reconstructions = folder / "reconstructions.safetensors"
        self.metrics = folder / "metrics.csv"
        self.curves = folder / "curves.csv"
        self.spread = folder / "spread.csv"
        self.grid = folder / "grid.png"
        self.config = folder / "config.yaml"
        self.checkpoints = folder / "checkpoints"  # of inversions that are not finished
        self.ranks = folder / "ranks"  # where ranks that torchrun or SLURM started leave word
        self._table = Table(folder / "table", self.write)
        self._spreads = Table(folder / "spread", self.write)
        self._begun = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it while inside.

        Raises:
            InvrepError: another process is at work in it, or it cannot be written.
        """
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise InvrepError(
                    f"Another process is at work in {self.folder}; wait for it, or choose another folder with "
                    f"output=FOLDER."
                ) from None
        try:
            self._begin()
            yield
            for left in self.folder.glob(".*.tmp"):  # by a process that was killed when it made the folder
                left.unlink(missing_ok=True)
        finally:
            lock.release()

    # --- format -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check that this version reads what is in the folder.

        Raises:
            InvrepError: the results are of another format.
        """
        try:
            number = self.format.read_text("ascii", "replace").strip()
        except OSError:
            if not (self.metrics.exists() or self.parts.exists() or self._table.folder.exists()):
                return
            number = "1"
        if number != FORMAT:
            raise InvrepError(
                f"{self.folder} holds results of format {number[:9]}, but this version reads format {FORMAT}; remove "
                f"that folder, or choose another one with output=FOLDER."
            )

    def _begin(self) -> None:
        self.check()
        if not self.format.exists():
            # several processes may begin at once
            atomic(self.format, lambda path: path.write_text(f"{FORMAT}\n"), beside=uuid4().hex)
        self._begun = True

    def write(self, path: Path, write: Callable[[Path], Any], **options: Any) -> None:
        """Write a file of the folder, see :func:`invrep.results.atomic_files.atomic`.

        Raises:
            InvrepError: the folder has gone since this process wrote to it first, or it cannot be written.
        """
        if not self._begun:
            self._begin()
        elif not self.format.exists():
            raise InvrepError(
                f"{self.folder} was removed while this job was at work in it; run the same command again, which makes "
                f"it anew."
            )
        atomic(path, write, **options)

    @property
    def table(self) -> Table:
        """The rows, with their curves in columns that begin with ``curve.``."""
        self.check()
        return self._table

    @property
    def spread_table(self) -> Table:
        """The rows of ``spread.csv``; their restart is 0."""
        self.check()
        return self._spreads

    # --- reading ------------------------------------------------------------------------------------------------------

    def frame(self, keys: Collection[Key] | Keys | None = None) -> pl.DataFrame:
        """Return the rows of the given finished pre-images, or of all, in the order of image and restart.

        Every column of :data:`FIRST` and :data:`LAST` is there; images are :func:`encoded`.
        """
        rows = self.table.collect(lambda rows: _chosen(rows, keys).select(pl.exclude(f"^{CURVE}.*$"))).sort(KEY)
        blank = [pl.lit(math.nan).alias(name) for name in (*FIRST, *LAST) if name not in rows.columns]
        return rows.with_columns(blank)

    def rows(self, keys: Collection[Key] | Keys | None = None) -> dict[Key, dict[str, Any]]:
        """Return rows as :meth:`frame` does, as dictionaries with NaN for a blank number."""
        return {(row["image"], row["restart"]): row for row in as_rows(self.frame(keys))}

    def done(self) -> Done:
        """Return which pre-images are finished: they have a row and a tensor file."""
        rows = self.table.collect(lambda rows: rows.select(*KEY, "content"))
        keyed = (((decoded(image), restart), content) for image, restart, content in rows.iter_rows())
        return Done(item for item in keyed if os.path.exists(self.part(*item[0])))

    def curve_points(self, keys: Collection[Key]) -> dict[Key, list[dict[str, Any]]]:
        """Return the recorded points of some pre-images' curves: pass, error or activation, energy and its terms."""
        curves = self.table.collect(lambda rows: _chosen(rows, keys).select(*KEY, f"^{CURVE}.*$"))
        points: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        for image, restart, *lists in curves.iter_rows():
            names = [name.removeprefix(CURVE) for name in curves.columns[2:]]
            points[decoded(image), restart] = [dict(zip(names, at, strict=True)) for at in zip(*lists, strict=True)]
        return points

    def mean_curves(self, keys: Collection[Key] | Keys | None = None) -> list[tuple[int, dict[str, float]]]:
        """Return the means over some pre-images, or all, of each recorded pass's values; without remarked ones."""
        if not self.table.files():
            return []
        curves = self.table.collect(
            lambda rows: (
                _chosen(rows, keys)
                .filter(pl.col("remark") == "")
                .select(f"^{CURVE}.*$")
                .explode(cs.all())
                .group_by(f"{CURVE}pass")
                .agg(pl.all().fill_nan(None).mean())
            )
        ).sort(f"{CURVE}pass")
        names = [name.removeprefix(CURVE) for name in curves.columns]
        named = (dict(zip(names, values, strict=True)) for values in curves.iter_rows())
        return [(at.pop("pass"), {name: value for name, value in at.items() if value is not None}) for at in named]

    def pixels(self, keys: Collection[Key] | None = None) -> dict[Key, Tensor]:
        """Return the reconstructions, (C, H, W) each, of the given keys or of all that are finished."""
        pixels = {}
        for key in sorted(self.rows() if keys is None else keys):
            path = self.part(*key)
            if not path.exists():
                raise InvrepError(f"{path} is missing; run the same command again, which makes it anew.")
            with as_written(path):  # not mapped into memory: a process may map 65530 files
                pixels[key] = load(path.read_bytes())["reconstruction"]
        return pixels

    def spreads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``spread.csv``, by image."""
        rows = self.spread_table.collect(lambda rows: rows.drop("restart", "remark")).sort("image")
        return {row["image"]: row for row in as_rows(rows)}

    def read_config(self) -> dict[str, Any] | None:
        """Return the resolved config as data: nothing that it names is imported, called or filled in; None without one.

        Raises:
            InvrepError: it is damaged.
        """
        if not self.config.is_file():
            return None
        with as_written(self.config):
            try:
                config = OmegaConf.to_container(OmegaConf.load(self.config), resolve=False)
            except (YAMLError, OmegaConfBaseException) as error:
                raise ValueError(" ".join(str(error).split())[:100]) from None
            if not isinstance(config, dict):
                raise ValueError("it is no config")
            return cast("dict[str, Any]", config)

    def picture(self, image: str, restart: int) -> Path:
        """Return where a reconstruction's PNG is."""
        return self.folder / "reconstructions" / f"{file_name(image)}.{restart}.png"

    def part(self, image: str, restart: int) -> Path:
        """Return where the pixels of a pre-image are: a safetensors file with the key ``reconstruction``."""
        return self.parts / f"{file_name(image)}.{restart}.safetensors"

    def photo(self, image: str) -> Path:
        """Return where the PNG of a photo, as Φ saw it, is."""
        return self.folder / "photos" / f"{file_name(image)}.png"

    def film(self, image: str, restart: int, suffix: str) -> Path:
        """Return where the film of a reconstruction is, with suffix ``mp4`` or ``gif``."""
        return self.folder / "videos" / f"{file_name(image)}.{restart}.{suffix}"

    def code(self, image: str) -> Path:
        """Return where the code of a photo is."""
        return self.folder / "codes" / f"{file_name(image)}.safetensors"

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, finished: Finished, display: str) -> None:
        """Write a finished pre-image: its PNG, its tensor file, then its row, by which it counts as finished."""
        picture, tensors = to_pil(shown(finished.pixels, display)), {"reconstruction": finished.pixels.contiguous()}
        self.write(self.picture(*finished.key), lambda path: picture.save(path, format="PNG"))
        self.write(self.part(*finished.key), lambda path: save_file(tensors, path))
        self._table.add([row_of(finished)])

    def save_photo(self, image: str, pixels: Tensor) -> None:
        """Write the PNG of a photo as Φ saw it, (C, H, W) in [0, 1]."""
        self.write(self.photo(image), lambda path: to_pil(shown(pixels, "clip")).save(path, format="PNG"))

    def save_code(self, image: str, code: Sequence[Tensor], size: tuple[int, int]) -> None:
        """Write the code of a photo; see :func:`invrep.data.code_files.save_code`."""
        self.write(self.code(image), lambda path: save_code(path, code, size))

    def save_spreads(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of ``spread.csv`` in the place of those of the same images."""
        if rows:
            self._spreads.add([{**row, "image": encoded(row["image"]), "restart": 0} for row in rows])
        if not self._spreads.settled():
            self._spreads.compact()

    def save_config(self, config: DictConfig) -> None:
        """Write the resolved config."""
        self.write(self.config, lambda path: OmegaConf.save(config, path))

    def compact(self, pairwise: float, images: Collection[str]) -> None:
        """Bring the rows into few files, with their ``pairwise_error``; no other process is at work in the folder.

        Args:
            pairwise: mean_ij ‖Φ0_i − Φ0_j‖² over ``images``; NaN leaves ``pairwise_error`` blank.
            images: the ids over which that mean was taken; other rows keep what they had.
        """
        own = pl.col("image").is_in([encoded(image) for image in images])
        error = pl.col("distance") / pairwise if pairwise > 0 else pl.lit(math.nan)
        error = pl.when(own).then(error).otherwise("pairwise_error").alias("pairwise_error")
        self._table.compact(lambda rows: rows.with_columns(error))


def _chosen(rows: pl.LazyFrame, keys: Collection[Key] | Keys | None) -> pl.LazyFrame:
    if keys is None:
        return rows
    if isinstance(keys, Keys):
        images = pl.LazyFrame({"image": [encoded(image) for image in keys.images]}, schema={"image": pl.String})
        return rows.filter(pl.col("restart") < keys.restarts).join(images, on="image", how="semi")
    chosen = [(encoded(image), restart) for image, restart in keys]
    schema = {"image": pl.String, "restart": pl.Int64}
    return rows.join(pl.LazyFrame(chosen, schema=schema, orient="row"), on=KEY, how="semi")
