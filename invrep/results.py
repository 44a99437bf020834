"""What a job leaves on disk: the only source for going on, for tables and for figures.

A finished pre-image is first a *part*, one safetensors file with its pixels, its row of the table and its curve. At the
job's end :mod:`invrep.merge` brings the parts into ``metrics.csv``, ``curves.csv`` and ``reconstructions.safetensors``
(of more than 256 MiB also ``reconstructions.1.safetensors``, …) and removes them. Every file is written beside its
place and then renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrep.codes import save_code
from invrep.data import Key
from invrep.errors import InvrepError
from invrep.files import as_written, atomic, disk, edited, file_name, read_table, stored, write_table
from invrep.images import shown, to_pil

ALWAYS = ("image", "restart", "pairwise_error", "energy", "passes", "seconds", "content")  # whatever the objective
SPREADS = ("spread_ssim", "spread_lpips", "spread_code")


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


class Numbered:
    """A 64-bit number for each of many pre-images, in sixteen bytes each.

    Args:
        numbers: by the pre-images' names (:func:`name_of`). Of a million names two are taken for one in one of 40
            million jobs.
    """

    def __init__(self, numbers: Iterable[tuple[str, int]]) -> None:
        flat = array("Q", chain.from_iterable((_short(name), number) for name, number in numbers))
        pairs = np.asarray(flat).reshape(-1, 2)
        self._names, self._numbers = pairs[np.argsort(pairs[:, 0])].T.copy()

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> int | None:
        """Return the number of a name, or None."""
        short = np.uint64(_short(name))
        at = int(np.searchsorted(self._names, short))
        return int(self._numbers[at]) if at < len(self) and self._names[at] == short else None


class Done:
    """Which pre-images are finished, and of what content of their photo.

    Args:
        rows: of all.
    """

    def __init__(self, rows: Iterable[tuple[Key, Mapping[str, Any]]]) -> None:
        self._contents = Numbered((name_of(key), int(row["content"] or "0", 16)) for key, row in rows)

    def __bool__(self) -> bool:
        return len(self._contents) > 0

    def __contains__(self, key: Key) -> bool:
        return self._contents.get(name_of(key)) is not None

    def of(self, key: Key, content: str) -> bool:
        """Return whether a pre-image is finished of a photo with this content."""
        return self._contents.get(name_of(key)) == int(content or "0", 16)


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
        self.checkpoints = folder / "checkpoints"  # of inversions that are not finished
        self.ranks = folder / "ranks"  # where ranks that torchrun or SLURM started leave word
        self._shards: tuple[list[tuple[int, int]], Numbered] = [], Numbered(())
        self._unmerged: tuple[tuple[int, int], list[Key]] = (0, 0), []

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
            yield
        finally:
            lock.release()

    # --- reading ------------------------------------------------------------------------------------------------------

    def walk(self, keys: Container[Key] | None = None) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield key and row of the given finished pre-images, or of all, in the order of image and restart."""
        merged = self._merged()
        table = (((row["image"], row["restart"]), row) for row in read_table(self.metrics, *ALWAYS))
        # a row without pixels is not finished
        table = ((key, row) for key, row in table if merged.get(name_of(key)) is not None)
        parts = ((key, row_of(self.part(key))) for key in self.unmerged())
        return (item for item in _joined(table, parts) if keys is None or item[0] in keys)

    def walk_curves(self, keys: Container[Key] | None = None) -> Iterator[tuple[Key, list[dict[str, Any]]]]:
        """Yield key and points of the curves of the given pre-images, or of all; see :meth:`curve_points`."""
        points = (
            ((point.pop("image"), point.pop("restart")), point)
            for point in read_table(self.curves, "image", "restart", "pass")
        )
        table = ((key, [point for _, point in some]) for key, some in groupby(points, key=itemgetter(0)))
        parts = ((key, curve_of(self.part(key))) for key in self.unmerged())
        return (item for item in _joined(table, parts) if keys is None or item[0] in keys)

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the rows of all finished pre-images, in the order of image and restart."""
        return dict(self.walk())

    def done(self) -> Done:
        """Return which pre-images are finished."""
        return Done(self.walk())

    def curve_points(self, keys: Collection[Key]) -> dict[Key, list[dict[str, Any]]]:
        """Return the recorded points of some pre-images' curves: pass, error or activation, energy and its terms."""
        found: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        return found | dict(self.walk_curves(found))

    def mean_curves(self, keys: Container[Key] | None = None) -> list[tuple[int, dict[str, float]]]:
        """Return the means over some pre-images, or all, of each recorded values; without those with a remark."""
        sums: dict[int, dict[str, list[float]]] = {}
        bare = {key for key, row in self.walk(keys) if row.get("remark")}
        for key, points in self.walk_curves(keys):
            for point in points if key not in bare else ():
                for name, value in point.items():
                    if name != "pass" and not math.isnan(value):
                        total = sums.setdefault(point["pass"], {}).setdefault(name, [0.0, 0])
                        total[0] += value
                        total[1] += 1
        return [(at, {name: total / n for name, (total, n) in sums[at].items()}) for at in sorted(sums)]

    def pixels(self, keys: Collection[Key] | None = None) -> dict[Key, Tensor]:
        """Return the reconstructions, (C, H, W) each, of the given keys or of all that are finished."""
        merged = self._merged()
        where: dict[Path, list[Key]] = {}
        for key in [key for key, _ in self.walk()] if keys is None else keys:
            if (part := self.part(key)).exists():
                where[part] = [key]
            elif (number := merged.get(name_of(key))) is not None:
                where.setdefault(self.shard(number), []).append(key)
        found = {}
        for path, some in where.items():
            with as_written(path), safe_open(path, "pt") as file:
                for key in some:
                    found[key] = file.get_tensor("reconstruction" if path.parent == self.parts else name_of(key))
        if lost := set(keys or ()) - found.keys():
            raise edited(self.reconstructions, f"{name_of(min(lost))} is missing")
        return dict(sorted(found.items()))

    def walk_spreads(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of ``spread.csv``, in the order of images."""
        return read_table(self.spread, "image", "restarts", "content", *SPREADS)

    def spreads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``spread.csv``, by image."""
        return {row["image"]: row for row in self.walk_spreads()}

    def picture(self, image: str, restart: int) -> Path:
        """Return where a reconstruction's PNG is."""
        return self.folder / "reconstructions" / f"{file_name(image)}.{restart}.png"

    def photo(self, image: str) -> Path:
        """Return where the PNG of a photo, as Φ saw it, is."""
        return self.folder / "photos" / f"{file_name(image)}.png"

    def film(self, image: str, restart: int, suffix: str) -> Path:
        """Return where the film of a reconstruction is, with suffix ``mp4`` or ``gif``."""
        return self.folder / "videos" / f"{file_name(image)}.{restart}.{suffix}"

    def code(self, image: str) -> Path:
        """Return where the code of a photo is."""
        return self.folder / "codes" / f"{file_name(image)}.safetensors"

    def shards(self) -> dict[int, Path]:
        """Return the files of merged reconstructions by their numbers, in order."""
        found = {0: self.reconstructions} if self.reconstructions.exists() else {}
        for path in self.folder.glob("reconstructions.*.safetensors"):
            if (number := path.name.split(".")[1]).isdecimal():
                found[int(number)] = path
        return dict(sorted(found.items()))

    def shard(self, number: int) -> Path:
        """Return where the file of merged reconstructions with a number, from 0, is."""
        return self.folder / f"reconstructions.{number}.safetensors" if number else self.reconstructions

    def part(self, key: Key) -> Path:
        """Return where the part of a pre-image is, until it is merged."""
        digest = hashlib.sha256(f"{key[0]}/{key[1]}".encode(errors="surrogateescape")).hexdigest()[:24]
        return self.parts / f"{digest}.safetensors"

    def unmerged(self) -> list[Key]:
        """Return the pre-images that have a part, in order."""
        if not self.parts.is_dir():
            return []
        # a part's name is made from its key, so that the same files are of the same keys
        stamp = self.parts.stat().st_mtime_ns, sum(1 for _ in self.parts.glob("*.safetensors"))
        if stamp != self._unmerged[0]:
            rows = map(row_of, self.parts.glob("*.safetensors"))
            self._unmerged = stamp, sorted((row["image"], row["restart"]) for row in rows)
        return self._unmerged[1]

    def _merged(self) -> Numbered:
        """Return the number of the file where each merged reconstruction is."""
        shards = self.shards()
        stamps = [(number, path.stat().st_mtime_ns) for number, path in shards.items()]
        if stamps != self._shards[0]:
            names = ((name, number) for number, path in shards.items() for name in stored(path)[0])
            self._shards = stamps, Numbered(names)
        return self._shards[1]

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, image: str, restart: int, finished: Finished, display: str) -> None:
        """Write a finished pre-image: its PNG and its part."""
        picture = self.picture(image, restart)
        atomic(picture, lambda path: to_pil(shown(finished.pixels, display)).save(path, format="PNG"))
        meta = {"row": json.dumps(finished.row), "curve": json.dumps(finished.curve)}
        tensors = {"reconstruction": finished.pixels.contiguous()}
        atomic(self.part((image, restart)), lambda path: save_file(tensors, path, metadata=meta))

    def save_photo(self, image: str, pixels: Tensor) -> None:
        """Write the PNG of a photo as Φ saw it, (C, H, W) in [0, 1]."""
        atomic(self.photo(image), lambda path: to_pil(shown(pixels, "clip")).save(path, format="PNG"))

    def save_code(self, image: str, code: Sequence[Tensor], size: tuple[int, int]) -> None:
        """Write the code of a photo; see :func:`invrep.codes.save_code`."""
        atomic(self.code(image), lambda path: save_code(path, code, size))

    def save_spreads(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``spread.csv`` of rows in the order of images."""
        atomic(self.spread, lambda path: write_table(path, rows, ("image", "restarts", *SPREADS, "content")))

    def save_config(self, config: DictConfig) -> None:
        """Write the resolved config."""
        atomic(self.config, lambda path: OmegaConf.save(config, path))

    def save_picture(self, path: Path, save: Callable[[Path], Any]) -> None:
        """Write a picture by ``save(path)``, whole or not at all."""
        atomic(path, save)


def name_of(key: Key) -> str:
    """Return what a pre-image is called in ``reconstructions.safetensors``: ``IMAGE/RESTART``.

    Bytes of a file's name that are no UTF-8 are percent-encoded, since the format takes no other text.
    """
    image = "".join(quote(c, errors="surrogateescape") if "\ud800" <= c <= "\udfff" else c for c in key[0])
    return f"{image}/{key[1]}"


def row_of(part: Path) -> dict[str, Any]:
    """Return a part's row of ``metrics.csv``."""
    with as_written(part):
        row = json.loads(stored(part)[1]["row"])
        if lacking := {*ALWAYS} - row.keys():
            raise LookupError(f"no {', '.join(sorted(lacking))}")
        return row


def curve_of(part: Path) -> list[dict[str, Any]]:
    """Return the points of a part's curve."""
    with as_written(part):
        return [{"pass": at, **values} for at, values in json.loads(stored(part)[1]["curve"])]


def _short(name: str) -> int:
    """Return 64 bits in a name's stead."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _joined(old: Iterator[tuple[Key, Any]], new: Iterator[tuple[Key, Any]]) -> Iterator[tuple[Key, Any]]:
    """Yield two sorted streams as one; where both have a key the new one's."""
    for _, some in groupby(heapq.merge(new, old, key=itemgetter(0)), key=itemgetter(0)):
        yield next(some)
