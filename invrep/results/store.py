"""Store a job's results on disk: the only source for resuming, tables and figures.

A finished pre-image has a tensor file, ``parts/IMAGE.RESTART.safetensors``. Its row is written after that file, into
the :mod:`invrep.results.table` in ``table/``, and marks it as finished. The row holds the curve. The table in
``spread/`` has a row for each photo with several pre-images, the table in ``certificate/`` one for each certified
pre-image. Exports for people are ``metrics.csv``, ``curves.csv``, ``spread.csv``, ``certificate.csv`` and
``reconstructions.safetensors``; the program never reads them. Every file appears whole or not at all.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import polars as pl
import polars.selectors as cs
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
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

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
FORMAT = "2"  # number of the folder's format; format 1 wrote no number


class Results:
    """Read and write the folder of one job.

    Args:
        folder: output folder of the job; the first write makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.format = folder / "format"
        self.parts = folder / "parts"
        self.reconstructions = folder / "reconstructions.safetensors"
        self.metrics = folder / "metrics.csv"
        self.curves = folder / "curves.csv"
        self.spread = folder / "spread.csv"
        self.certificate = folder / "certificate.csv"
        self.grid = folder / "grid.png"
        self.config = folder / "config.yaml"
        self.checkpoints = folder / "checkpoints"  # states of interrupted descents
        self.ranks = folder / "ranks"  # messages between ranks that torchrun or SLURM started
        self._table = Table(folder / "table", self.write)
        self._spreads = Table(folder / "spread", self.write)
        self._certificates = Table(folder / "certificate", self.write)
        self._begun = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it against other processes inside this context.

        Raises:
            InvrepError: another process holds the lock, the folder has another format, or it cannot be written.
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
            for left in self.folder.glob(".*.tmp"):  # left by a process that was killed while it made the folder
                left.unlink(missing_ok=True)
        finally:
            lock.release()

    # --- format -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check that the folder's format is the one that this version reads.

        Raises:
            InvrepError: the results have another format.
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
            # several processes may start at once, so each has a temporary file of its own
            atomic(self.format, lambda path: path.write_text(f"{FORMAT}\n"), beside=uuid4().hex)
        self._begun = True

    def write(self, path: Path, write: Callable[[Path], Any], **options: Any) -> None:
        """Write a file of the folder whole or not at all; see :func:`invrep.results.atomic_files.atomic`.

        Args:
            path: path of the file.
            write: function of a temporary path; writes the content.
            options: further arguments of ``atomic``.

        Raises:
            InvrepError: the folder was removed after this process first wrote to it, or the file cannot be written.
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
        """Return the table of finished pre-images; columns ``curve.NAME`` hold the curves."""
        self.check()
        return self._table

    @property
    def spread_table(self) -> Table:
        """Return the table of spreads between restarts, one row for each photo; its key's restart is 0."""
        self.check()
        return self._spreads

    @property
    def certificate_table(self) -> Table:
        """Return the table of certificates, one row for each certified pre-image."""
        self.check()
        return self._certificates

    # --- reading ------------------------------------------------------------------------------------------------------

    def frame(self, keys: Collection[Key] | Keys | None = None) -> pl.DataFrame:
        """Return the rows of finished pre-images without their curves, in the order of image and restart.

        Every column of :data:`FIRST` and :data:`LAST` is present; images are :func:`encoded`.

        Args:
            keys: image ids and restarts; None: all.

        Raises:
            InvrepError: a file of the table is damaged, or the folder has another format.
        """
        rows = self.table.collect(lambda rows: _chosen(rows, keys).select(pl.exclude(f"^{CURVE}.*$"))).sort(KEY)
        blank = [pl.lit(math.nan).alias(name) for name in (*FIRST, *LAST) if name not in rows.columns]
        return rows.with_columns(blank)

    def rows(self, keys: Collection[Key] | Keys | None = None) -> dict[Key, dict[str, Any]]:
        """Return the rows of :meth:`frame` by key, as dictionaries with NaN for a blank number."""
        return {(row["image"], row["restart"]): row for row in as_rows(self.frame(keys))}

    def done(self) -> Done:
        """Return the finished pre-images: keys with a row and a tensor file, and their photos' content hashes."""
        rows = self.table.collect(lambda rows: rows.select(*KEY, "content"))
        keyed = (((decoded(image), restart), content) for image, restart, content in rows.iter_rows())
        return Done(item for item in keyed if os.path.exists(self.part(*item[0])))

    def curve_points(
        self, keys: Collection[Key], names: Collection[str] | None = None
    ) -> dict[Key, dict[str, list[Any]]]:
        """Return the curve of each pre-image: lists of ``pass``, error or activation, energy and its terms.

        Args:
            keys: image ids and restarts.
            names: names of the lists that are wanted; None: all. A name that the table lacks is left out.
        """
        wanted = "" if names is None else f"({'|'.join(map(re.escape, names))})$"
        curves = self.table.collect(lambda rows: _chosen(rows, keys).select(*KEY, f"^{re.escape(CURVE)}{wanted}.*$"))
        found = [name.removeprefix(CURVE) for name in curves.columns[2:]]
        points: dict[Key, dict[str, list[Any]]] = {key: {} for key in keys}
        for image, restart, *lists in curves.iter_rows():
            points[decoded(image), restart] = dict(zip(found, lists, strict=True))
        return points

    def mean_curves(self, keys: Collection[Key] | Keys | None = None) -> list[tuple[int, dict[str, float]]]:
        """Return the mean curve of pre-images without a remark, as (pass, {name: mean}).

        A pre-image counts at every pass: with its latest point, and after its descent's end with its last one.

        Args:
            keys: image ids and restarts; None: all.
        """
        if not self.table.files():
            return []
        values = pl.all().exclude(f"{CURVE}pass").fill_nan(None)
        sums = self.table.collect(  # for each axis of passes, of which a job has few
            lambda rows: (
                _chosen(rows, keys)
                .filter(pl.col("remark") == "")
                .select(f"^{CURVE}.*$")
                .with_columns(pl.col(f"{CURVE}pass").hash().alias("axis"))
                .explode(cs.starts_with(CURVE))
                .group_by("axis", f"{CURVE}pass")
                .agg(values.mean(), values.count().name.suffix("."))
            )
        )
        names = [name.removeprefix(CURVE) for name in sums.columns if name.startswith(CURVE) and name[-1] != "."]
        return [
            (at.pop("pass"), {name: value for name, value in at.items() if value is not None})
            for at in (dict(zip(names, row, strict=True)) for row in _merged(sums).iter_rows())
        ]

    def pixels(self, keys: Collection[Key] | None = None) -> dict[Key, Tensor]:
        """Return reconstructions by key, each (C, H, W); 0 to 1 is black to white, unclipped.

        Args:
            keys: image ids and restarts; None: all finished ones.

        Raises:
            InvrepError: a tensor file is missing or damaged.
        """
        pixels = {}
        for key in sorted(self.rows() if keys is None else keys):
            path = self.part(*key)
            if not path.exists():
                raise InvrepError(f"{path} is missing; run the same command again, which makes it anew.")
            with as_written(path):  # read, not mapped into memory: a process can map 65530 files at most
                pixels[key] = load(path.read_bytes())["reconstruction"]
        return pixels

    def spreads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``spread.csv``, by image."""
        rows = self.spread_table.collect(lambda rows: rows.drop("restart", "remark")).sort("image")
        return {row["image"]: row for row in as_rows(rows)}

    def certificates(self) -> dict[Key, dict[str, Any]]:
        """Return the rows of ``certificate.csv`` by image id and restart, with NaN for a blank number."""
        if not self.certificate_table.files():
            return {}
        rows = self.certificate_table.collect(lambda rows: rows.drop("remark")).sort(KEY)
        return {(row["image"], row["restart"]): row for row in as_rows(rows)}

    def read_config(self) -> dict[str, Any] | None:
        """Return the resolved config as plain data; None without a config file.

        No ``_target_`` is imported or called, and no interpolation is resolved.

        Raises:
            InvrepError: the file is damaged.
        """
        if not self.config.is_file():
            return None
        with as_written(self.config):
            try:
                config = yaml.load(self.config.read_bytes(), LOADER)
            except YAMLError as error:
                raise ValueError(" ".join(str(error).split())[:100]) from None
            if not isinstance(config, dict):
                raise ValueError("it is no config")
            return cast("dict[str, Any]", config)

    def picture(self, image: str, restart: int) -> Path:
        """Return the path of a reconstruction's PNG."""
        return self.folder / "reconstructions" / f"{file_name(image)}.{restart}.png"

    def part(self, image: str, restart: int) -> Path:
        """Return the path of a pre-image's tensor file: safetensors with the key ``reconstruction``, (C, H, W)."""
        return self.parts / f"{file_name(image)}.{restart}.safetensors"

    def photo(self, image: str) -> Path:
        """Return the path of the PNG of a photo as Φ saw it."""
        return self.folder / "photos" / f"{file_name(image)}.png"

    def film(self, image: str, restart: int, suffix: str) -> Path:
        """Return the path of a reconstruction's film; the suffix is ``mp4`` or ``gif``."""
        return self.folder / "videos" / f"{file_name(image)}.{restart}.{suffix}"

    def code(self, image: str) -> Path:
        """Return the path of a photo's code."""
        return self.folder / "codes" / f"{file_name(image)}.safetensors"

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, finished: Finished, display: str) -> None:
        """Write a finished pre-image: its PNG, its tensor file, and last its row, which marks it as finished.

        Args:
            finished: pre-image with its row and curve.
            display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`.

        Raises:
            InvrepError: a file cannot be written.
        """
        picture, tensors = to_pil(shown(finished.pixels, display)), {"reconstruction": finished.pixels.contiguous()}
        self.write(self.picture(*finished.key), lambda path: picture.save(path, format="PNG"))
        self.write(self.part(*finished.key), lambda path: save_file(tensors, path))
        self._table.add([row_of(finished)])

    def save_photo(self, image: str, pixels: Tensor, display: str) -> None:
        """Write the PNG of a photo as Φ saw it, displayed as its pre-images are.

        Args:
            image: id of the photo.
            pixels: photo (C, H, W) in [0, 1].
            display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`.

        Raises:
            InvrepError: the file cannot be written.
        """
        self.write(self.photo(image), lambda path: to_pil(shown(pixels, display)).save(path, format="PNG"))

    def save_code(self, image: str, code: Sequence[Tensor], size: tuple[int, int]) -> None:
        """Write the code of a photo, see :func:`invrep.data.code_files.save_code`.

        Args:
            image: id of the photo.
            code: list of tensors.
            size: height and width of the photo, in pixels.
        """
        self.write(self.code(image), lambda path: save_code(path, code, size))

    def save_spreads(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the table of spreads; a row replaces the earlier row of its image."""
        if rows:
            self._spreads.add([{**row, "image": encoded(row["image"]), "restart": 0} for row in rows])
        if not self._spreads.settled():
            self._spreads.compact()

    def save_certificates(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the table of certificates; a row replaces the earlier row of its image and restart."""
        if rows:
            self._certificates.add([{**row, "image": encoded(row["image"])} for row in rows])

    def save_config(self, config: DictConfig) -> None:
        """Write the resolved config."""
        self.write(self.config, lambda path: OmegaConf.save(config, path))

    def compact(self, pairwise: float, images: Collection[str]) -> None:
        """Compact the rows into few files, and fill in ``pairwise_error``, ‖Φ−Φ0‖² / mean_ij ‖Φ0_i − Φ0_j‖².

        The caller holds the folder's lock.

        Args:
            pairwise: mean_ij ‖Φ0_i − Φ0_j‖² over ``images``; NaN leaves ``pairwise_error`` blank.
            images: ids of the photos in that mean; rows of other photos keep their ``pairwise_error``.
        """
        own = pl.col("image").is_in([encoded(image) for image in images])
        error = pl.col("distance") / pairwise if pairwise > 0 else pl.lit(math.nan)
        error = pl.when(own).then(error).otherwise("pairwise_error").alias("pairwise_error")
        self._table.compact(lambda rows: rows.with_columns(error))


def _merged(means: pl.DataFrame) -> pl.DataFrame:
    """Return the mean of several mean curves at every pass that one of them has, in the order of the passes.

    Args:
        means: points with the columns ``axis``, ``curve.pass``, ``curve.NAME`` and ``curve.NAME.``, the number of
            values in the mean.
    """
    at, means = f"{CURVE}pass", means.sort(f"{CURVE}pass")
    every = means.select(pl.col(at).unique().sort()).join(means.select(pl.col("axis").unique()), how="cross")
    latest = every.sort(at).join_asof(means, on=at, by="axis", strategy="backward", check_sortedness=False)
    names = [name for name in means.columns if f"{name}." in means.columns]
    weighed = [(pl.col(name) * pl.col(f"{name}.")).sum() / pl.col(f"{name}.").sum() for name in names]
    whole = latest.group_by(at).agg(weighed).sort(at)
    return whole.select(at, pl.col(names).fill_nan(None))


def _chosen(rows: pl.LazyFrame, keys: Collection[Key] | Keys | None) -> pl.LazyFrame:
    if keys is None:
        return rows
    if isinstance(keys, Keys):
        images = pl.LazyFrame({"image": [encoded(image) for image in keys.images]}, schema={"image": pl.String})
        return rows.filter(pl.col("restart") < keys.restarts).join(images, on="image", how="semi")
    chosen = [(encoded(image), restart) for image, restart in keys]
    schema = {"image": pl.String, "restart": pl.Int64}
    return rows.join(pl.LazyFrame(chosen, schema=schema, orient="row"), on=KEY, how="semi")
