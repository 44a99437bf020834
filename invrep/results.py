"""What a job leaves on disk: the only source for going on, for tables and for figures.

A finished pre-image is first a *part*, one safetensors file with its pixels, its row of the table and its curve. At the
job's end the parts are merged into ``reconstructions.safetensors``, ``metrics.csv`` and ``curves.csv``, and removed.
Every file is written beside its place and then renamed, so that it is there whole or not at all.
"""

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

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrep.codes import save_code
from invrep.errors import InvrepError
from invrep.images import shown, to_pil

Key = tuple[str, int]  # image id, restart
FIRST = ("image", "restart", "error", "root_error", "pairwise_error", "psnr", "ssim", "energy")
SPREADS = ("spread_ssim", "spread_lpips", "spread_code")
LAST = ("passes", "seconds", "distance", "code_norm", "content")
ALWAYS = ("image", "restart", "pairwise_error", "energy", "passes", "seconds", "content")  # whatever the objective
LONGEST_NAME = 200  # bytes, of the 255 that file systems take; ours has a restart and a suffix as well
LONGEST_PATH = 1000  # bytes, of the 4096 that Linux takes
NUMBERS = {"restart": int, "restarts": int, "passes": int, "image": str, "content": str, "class": str}


@contextmanager
def _disk(path: Path) -> Iterator[None]:
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


def _edited(path: Path, reason: str) -> InvrepError:
    return InvrepError(
        f"{path} is not as it was written ({reason}); remove it and run the same command again, which makes it anew."
    )


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """Turn what comes of reading a file that somebody has edited, or a disk damaged, into one sentence."""
    try:
        yield
    except (SafetensorError, OSError, csv.Error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _edited(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def _atomic(path: Path, write: Callable[[Path], Any]) -> None:
    with _disk(path):
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


@dataclass
class Finished:
    """A finished pre-image.

    Attributes:
        row: its row of ``metrics.csv``.
        curve: (pass, {name: value}) at the recorded passes.
        pixels: (C, H, W) float32 in the photo's units, 0 to 1, unclipped.
    """

    row: dict[str, Any]
    curve: list[tuple[int, dict[str, float]]]
    pixels: Tensor


class Results:
    """The folder of one job.

    Args:
        folder: the job's output folder; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / "parts"
        self.reconstructions = folder / "reconstructions.safetensors"
        self.metrics = folder / "metrics.csv"
        self.curves = folder / "curves.csv"
        self.spread = folder / "spread.csv"
        self.grid = folder / "grid.png"
        self.config = folder / "config.yaml"
        self.ranks = folder / "ranks"  # where ranks that torchrun or SLURM started leave word

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it while inside.

        Raises:
            InvrepError: another process is at work in it, or it cannot be written.
        """
        with _disk(self.folder):
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
            yield
        finally:
            lock.release()

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the rows of all finished pre-images, in the order of image and restart."""
        found = {(row["image"], row["restart"]): row for row in self._read(self.metrics, *FIRST, *LAST)}
        if found and not self.reconstructions.exists():
            found = {}  # rows without pixels are not finished
        found |= {key: json.loads(meta["row"]) for key, _, meta in self._parts()}
        return dict(sorted(found.items()))

    def mean_curves(self, keys: Sequence[Key]) -> list[tuple[int, dict[str, float]]]:
        """Return the means over some pre-images of each recorded pass's values."""
        wanted, sums = set(keys), {}
        for point in self._read(self.curves, "image", "restart", "pass"):
            if (point.pop("image"), point.pop("restart")) in wanted:
                for name, value in point.items():
                    if name != "pass" and not math.isnan(value):
                        total = sums.setdefault(int(point["pass"]), {}).setdefault(name, [0.0, 0])
                        total[0] += value
                        total[1] += 1
        return [(at, {name: total / n for name, (total, n) in sums[at].items()}) for at in sorted(sums)]

    def pixels(self, keys: Sequence[Key] | None = None) -> dict[Key, Tensor]:
        """Return the reconstructions, (C, H, W) each, of the given keys or of all that are finished."""
        wanted = None if keys is None else set(keys)
        found = {}
        if self.reconstructions.exists():
            keys_here = {_name(key): key for key in self.rows()}
            with _as_written(self.reconstructions), safe_open(self.reconstructions, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    key = keys_here.get(name)
                    if key is not None and (wanted is None or key in wanted):
                        found[key] = file.get_tensor(name)
        for key, path, _ in self._parts():
            if wanted is None or key in wanted:
                with _as_written(path), safe_open(path, "pt") as file:
                    found[key] = file.get_tensor("reconstruction")
        if lost := (wanted or set()) - found.keys():
            raise _edited(self.reconstructions, f"{_name(min(lost))} is missing")
        return dict(sorted(found.items()))

    def save(self, image: str, restart: int, finished: Finished, display: str) -> None:
        """Write a finished pre-image: its PNG and its part."""
        picture = self.picture(image, restart)
        _atomic(picture, lambda path: to_pil(shown(finished.pixels, display)).save(path, format="PNG"))
        meta = {"row": json.dumps(finished.row), "curve": json.dumps(finished.curve)}
        tensors = {"reconstruction": finished.pixels.contiguous()}
        _atomic(self._part((image, restart)), lambda path: save_file(tensors, path, metadata=meta))

    def save_photo(self, image: str, pixels: Tensor) -> None:
        """Write the PNG of a photo as Φ saw it, (C, H, W) in [0, 1]."""
        _atomic(self.photo(image), lambda path: to_pil(shown(pixels, "clip")).save(path, format="PNG"))

    def save_code(self, image: str, code: Sequence[Tensor], size: tuple[int, int]) -> None:
        """Write the code of a photo; see :func:`invrep.codes.save_code`."""
        _atomic(self.code(image), lambda path: save_code(path, code, size))

    def spreads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``spread.csv``, by image."""
        return {row["image"]: row for row in self._read(self.spread, "image", "restarts", "content", *SPREADS)}

    def save_spreads(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``spread.csv``, in the order of images."""
        ordered = sorted(rows, key=lambda row: row["image"])
        _atomic(self.spread, lambda path: _write(path, ordered, ("image", "restarts", *SPREADS), ("content",)))

    def save_config(self, config: DictConfig) -> None:
        """Write the resolved config."""
        _atomic(self.config, lambda path: OmegaConf.save(config, path))

    def save_picture(self, path: Path, save: Callable[[Path], Any]) -> None:
        """Write a picture by ``save(path)``, whole or not at all."""
        _atomic(path, save)

    def picture(self, image: str, restart: int) -> Path:
        """Return where a reconstruction's PNG is."""
        return self.folder / "reconstructions" / f"{file_name(image)}.{restart}.png"

    def photo(self, image: str) -> Path:
        """Return where the PNG of a photo, as Φ saw it, is."""
        return self.folder / "photos" / f"{file_name(image)}.png"

    def code(self, image: str) -> Path:
        """Return where the code of a photo is."""
        return self.folder / "codes" / f"{file_name(image)}.safetensors"

    def merge(self, pairwise: float, images: Sequence[str]) -> dict[Key, dict[str, Any]]:
        """Bring the parts into the whole files, remove them, and return all rows.

        Args:
            pairwise: mean_ij ‖Φ0_i − Φ0_j‖² over ``images``; NaN leaves ``pairwise_error`` blank.
            images: the ids over which that mean was taken; other rows keep what they had.
        """
        rows = self.rows()
        members = set(images)
        for (image, _), row in rows.items():
            if image in members:
                row["pairwise_error"] = row["distance"] / pairwise if pairwise > 0 else math.nan
        curves = {key: [] for key in rows}
        for point in self._read(self.curves, "image", "restart", "pass"):
            key = (point.pop("image"), point.pop("restart"))
            if key in curves:
                curves[key].append(point)
        for key, _, meta in self._parts():
            curves[key] = [{"pass": at, **values} for at, values in json.loads(meta["curve"])]
        if any(True for _ in self._parts()):
            # the rows' order of files matters: the pixels first, since a row without pixels is not finished
            pixels = {_name(key): tensor for key, tensor in self.pixels().items()}
            _atomic(self.reconstructions, lambda path: save_file(pixels, path))
            points = [
                {"image": image, "restart": restart, **point}
                for (image, restart), curve in curves.items()
                for point in curve
            ]
            shows = "activation" if any("activation" in point for point in points) else "error"
            _atomic(self.curves, lambda path: _write(path, points, ("image", "restart", "pass", shows, "energy"), ()))
        first = (*FIRST[:2], "activation", *FIRST[2:]) if any("activation" in r for r in rows.values()) else FIRST
        _atomic(self.metrics, lambda path: _write(path, list(rows.values()), first, LAST))
        for _, path, _ in list(self._parts()):
            path.unlink()
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()
        return rows

    def _part(self, key: Key) -> Path:
        name = hashlib.sha256(_name(key).encode(errors="surrogateescape")).hexdigest()[:24]
        return self.parts / f"{name}.safetensors"

    def _parts(self) -> Iterator[tuple[Key, Path, dict[str, str]]]:
        for path in sorted(self.parts.glob("*.safetensors")) if self.parts.is_dir() else ():
            with _as_written(path):
                with safe_open(path, "pt") as file:
                    meta = file.metadata()
                row = json.loads(meta["row"])
                if lacking := {*ALWAYS} - row.keys():
                    raise LookupError(f"no {', '.join(sorted(lacking))}")
            yield (row["image"], row["restart"]), path, meta

    def _read(self, path: Path, *columns: str) -> list[dict[str, Any]]:
        """Return the rows of a table, which has to have these columns."""
        if not path.exists():
            return []
        with _as_written(path), path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictReader(file)
            if lacking := set(columns) - set(table.fieldnames or ()):
                raise LookupError(f"no column {', '.join(sorted(lacking))}")
            return [{name: NUMBERS.get(name, _float)(value) for name, value in row.items()} for row in table]


def _float(text: str) -> float:
    return float(text) if text else math.nan


def _name(key: Key) -> str:
    """Return a pre-image's name in ``reconstructions.safetensors``."""
    image, restart = key
    raw = image.encode(errors="surrogateescape")
    readable = raw.decode(errors="replace")
    if readable != image:  # bytes of a file's name that are no text, which safetensors does not take
        image = f"{readable}%-{hashlib.sha256(raw).hexdigest()[:16]}"
    return f"{image}/{restart}"


def _write(path: Path, rows: Sequence[Mapping[str, Any]], first: Sequence[str], last: Sequence[str]) -> None:
    names = dict.fromkeys([*first, *(n for row in rows for n in row if n not in last), *last])
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        for row in rows:
            writer.writerow({n: "" if isinstance(v, float) and math.isnan(v) else v for n, v in row.items()})
