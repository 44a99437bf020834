"""The end of a job: what needs all photos or restarts, the picture, and what the user is told."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch

from invrep import metrics
from invrep.config import layer_name
from invrep.data import Key, Keys
from invrep.figures import MOST_COLUMNS, MOST_ROWS, GridRow, grid
from invrep.job import Job, Read
from invrep.merge import merge
from invrep.objectives import Match
from invrep.parts import boxes_in
from invrep.progress import worded
from invrep.results import SPREADS
from invrep.sources import Photo
from invrep.spread import code_spread, lpips_at_hand, pixel_spread

TABLE_ROWS = 1000  # of the table in a logger; all are in metrics.csv
MOST_NAMED = 5  # photos in a line
AHEAD = 8  # photos that are read while the last one's code is computed


@dataclass
class Summed:
    """What is told of a column: its finite values are summed, not kept."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0  # of the differences from the mean
    least: float = math.inf
    most: float = -math.inf

    def add(self, value: float) -> None:
        """Take a value (Welford's update)."""
        if math.isnan(value):
            return
        before = self.total / self.count if self.count else value
        self.count += 1
        self.total += value
        self.squares += (value - before) * (value - self.mean)
        self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def mean(self) -> float:
        """NaN where there is no value."""
        return self.total / self.count if self.count else math.nan

    @property
    def deviation(self) -> float:
        """With n − 1; NaN below two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else math.nan


@dataclass
class Found:
    """What a job has found.

    Attributes:
        count: how many pre-images.
        images: of how many photos.
        table: the first rows of ``metrics.csv``.
        columns: of its numbers, and of those of ``spread.csv``, what is told; rows with a remark are left out.
        remarked: remark → the photos that bear it; their numbers say nothing about Φ.
        bare: how many pre-images bear one.
    """

    count: int = 0
    images: int = 0
    table: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Summed] = field(default_factory=dict)
    remarked: dict[str, dict[str, None]] = field(default_factory=dict)
    bare: int = 0

    @property
    def means(self) -> dict[str, float]:
        """The means of the columns."""
        return {name: column.mean for name, column in self.columns.items() if column.count}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take the numbers of a row, or its remark."""
        if remark := row.get("remark"):
            self.bare += 1
            self.remarked.setdefault(remark, {})[row["image"]] = None
            return
        for name, value in row.items():
            if isinstance(value, int | float):
                self.columns.setdefault(name, Summed()).add(value)


@dataclass(frozen=True)
class SpreadPlan:
    """What is to become of a row of ``spread.csv``.

    Attributes:
        photo: one of the job's with several pre-images; None for a row of another.
        keys: its pre-images.
        content: its present one.
        row: the row where it is up to date.
    """

    photo: Photo | None
    keys: list[Key]
    content: str
    row: dict[str, Any] | None


def finish(job: Job, places: Sequence[int], *, new: bool) -> Found:
    """Merge the parts, fill in what needs all photos or restarts, draw the grid, and return what was found.

    Args:
        job: whose inversions are done.
        places: of its photos, but those that cannot be read.
        new: whether anything has been inverted since the files were last written.
    """
    results, restarts = job.results, job.config.restarts
    done = results.done()
    if not done:
        return Found()
    keys = Keys({job.photos.ids[place] for place in places}, restarts)
    here = array("Q", (p for p in places if any((job.photos.ids[p], r) in done for r in range(restarts))))
    del done
    new = new or results.parts.is_dir()  # a merge was killed
    if new or any(math.isnan(row["pairwise_error"]) for _, row in results.walk(keys)):
        merge(results, _pairwise(job, here), keys.images)
    if job.config.save_codes:
        _save_codes(job, here)
    found, last = Found(), None
    for (image, _), row in results.walk(keys):
        found.count += 1
        found.images += image != last
        last = image
        found.add(row)
        if found.count <= TABLE_ROWS:
            found.table.append(row)
    _spreads(job, here, found)
    if found.count and (new or not results.grid.exists()):
        _draw(job, here[:MOST_ROWS])
    return found


def _read(job: Job, places: Sequence[int]) -> Iterator[tuple[Photo, Read]]:
    """Yield those of some photos that can be read."""
    for place, read in job.read_ahead(places, AHEAD):
        if read is not None:
            yield job.photos[place], read


def _pairwise(job: Job, places: Sequence[int]) -> float:
    """Return mean_ij ‖Φ0_i − Φ0_j‖² over photos, NaN for fewer than two or codes of several shapes.

    NaN as well where Φ0 is not the photos' own.
    """
    error = metrics.PairwiseError()
    shape = None
    if len(places) < 2 or not job.kind.needs_photo or not issubclass(job.kind, Match):
        return math.nan
    for _, read in _read(job, places):
        code = torch.cat([part.flatten(1) for part in job.asked_of(read.pixels).target], 1)
        shape = code.shape if shape is None else shape
        if code.shape != shape:
            return math.nan
        error.to(code.device).add_code(code)
    return float(error.normaliser())


@torch.no_grad()
def _save_codes(job: Job, places: Sequence[int]) -> None:
    """Write the whole code of every photo."""
    for photo, read in _read(job, places) if "path" in job.config.data else ():
        code = job.phi(read.pixels[None].to(job.phi.mean.device))
        job.results.save_code(photo.id, [part[0] for part in code], tuple(read.pixels.shape[1:]))


def _spread_plan(job: Job, places: Sequence[int]) -> Iterator[SpreadPlan]:
    """Yield what is to become of each row of ``spread.csv``, in the order of images.

    Of a photo with several finished restarts all that are of its present content count, those of earlier runs too.
    """
    ids = job.photos.ids
    by_image = heapq.merge(
        ((ids[place], "place", place) for place in sorted(places, key=ids.__getitem__)),
        ((key[0], "row", (key, row["content"])) for key, row in job.results.walk()),
        ((row["image"], "old", row) for row in job.results.walk_spreads()),
        key=itemgetter(0),
    )
    for _, some in groupby(by_image, key=itemgetter(0)):
        known: dict[str, list[Any]] = {"place": [], "row": [], "old": []}
        for _, kind, value in some:
            known[kind].append(value)
        old = next(iter(known["old"]), None)
        if known["place"] and len(known["row"]) > 1:
            photo = job.photos[known["place"][0]]
            content = photo.content()
            keys = [key for key, of in known["row"] if of == content]
            if len(keys) > 1:
                same = old is not None and (old["restarts"], old["content"]) == (len(keys), content)
                yield SpreadPlan(photo, keys, content, old if same else None)
                continue
        if old is not None:
            yield SpreadPlan(None, [], "", old)


def _spreads(job: Job, places: Sequence[int], found: Found) -> None:
    """Bring ``spread.csv`` up to date, and add the rows of this job's photos to what was found."""
    if job.config.restarts == 1 and not job.results.spread.exists():
        return
    lpips = None

    def rows() -> Iterator[dict[str, Any]]:
        for plan in _spread_plan(job, places):
            row = plan.row
            if row is None:
                spread = _spread(job, plan.photo, plan.keys, lpips)
                if any(plan.photo.id in images for images in found.remarked.values()):
                    spread["spread_code"] = math.nan
                row = {"image": plan.photo.id, "restarts": len(plan.keys), **spread, "content": plan.content}
            if plan.photo is not None:
                found.add({name: row[name] for name in SPREADS})
            yield row

    if any(plan.row is None for plan in _spread_plan(job, places)):
        lpips = lpips_at_hand()
        job.results.save_spreads(rows())
    else:
        deque(rows(), maxlen=0)


@torch.no_grad()
def _spread(job: Job, photo: Photo, keys: Sequence[Key], lpips: Any) -> dict[str, float]:
    """Return how far the pre-images of one photo are from each other; see :mod:`invrep.spread`."""
    pixels = torch.stack(list(job.results.pixels(keys).values()))
    pixels = pixels.to(job.phi.mean.device, getattr(torch, job.config.dtype))
    spread = {**pixel_spread(pixels, lpips), "spread_code": math.nan}
    original = job.read(photo) if issubclass(job.kind, Match) else None
    if original is not None:
        codes = [torch.cat(parts) for parts in zip(*(job.phi(image[None]) for image in pixels), strict=True)]
        spread["spread_code"] = code_spread(codes, job.asked_of(original.pixels))
    return spread


def _draw(job: Job, places: Sequence[int]) -> None:
    ids = job.photos.ids
    rows = dict(job.results.walk(Keys([ids[place] for place in places], min(job.config.restarts, MOST_COLUMNS))))
    pixels = job.results.pixels(list(rows))
    drawn, shows = [], job.kind.shows
    for photo, read in _read(job, places):
        some = [key for key in rows if key[0] == photo.id]
        captions = [rows[key].get("remark") or f"{shows} {_short(shows, rows[key][shows])}" for key in some]
        shown = read.pixels if photo.open else None
        drawn.append(GridRow(shown, [pixels[key] for key in some], captions, boxes_in(rows[some[0]])))
    title = " ".join(filter(None, (job.config.name, layer_name(job.config.layer))))
    if not job.kind.needs_photo and shows == "activation":
        title += f" {job.config.objective.channels}"
    job.results.save_picture(
        job.results.grid, lambda path: grid(drawn, title=title, display=job.config.display, path=path)
    )


def _short(shows: str, value: float) -> str:
    return f"{100 * value:.2g} %" if shows == "error" else f"{value:.3g}"


def _remarks(found: Found) -> Iterator[str]:
    """Yield a line for each remark, with the photos that bear it."""
    for remark, images in found.remarked.items():
        some = f"{len(images)} photo{'s have' if len(images) > 1 else ' has'} no relative error, since {remark}"
        names = ", ".join(list(images)[:MOST_NAMED]) + (", …" if len(images) > MOST_NAMED else "")
        yield f"{some}: {names}; the numbers leave {'them' if len(images) > 1 else 'it'} out"


def summary(job: Job, found: Found, seen: str | None) -> None:
    """Say where the picture is, how good it is, and how to look closer."""
    console, columns = job.console, found.columns
    if not found.count:
        return
    for line in _remarks(found):
        console.print(line, soft_wrap=True, markup=False)
    if found.bare == found.count:
        pass  # there is no number to tell
    elif job.kind.shows == "error":
        error = columns["error"]
        spread = "" if math.isnan(error.deviation) else f" ± {100 * error.deviation:.2f}"
        root = f" (root {100 * math.sqrt(error.mean):.1f} %)" if found.count == 1 and error.mean else ""
        console.print(f"error ‖Φ−Φ0‖²/‖Φ0‖²: {100 * error.mean:.2f}{spread} %{root}")
        layers = {name.removeprefix("error/"): one.mean for name, one in columns.items() if name.startswith("error/")}
        if layers:
            console.print(f"of each layer: {', '.join(f'{name} {100 * mean:.2f} %' for name, mean in layers.items())}")
    else:
        value = columns["activation"]
        some = f", {value.least:.4g} to {value.most:.4g}" if value.count > 1 else ""
        console.print(f"activation: {worded('activation', value.mean)}{some}")
    if (kept := columns.get("class_kept")) is not None and kept.count:
        console.print(
            f"top-1 class kept: {int(kept.total)} of {kept.count} (mean probability of the photo's class "
            f"{columns['class_probability'].mean:.2f})"
        )
    if any(name in columns for name in SPREADS):
        means = {name: columns[name].mean for name in SPREADS}
        said = [f"{word} {means[name]:.3f}" for name, word in zip(SPREADS, ("1−SSIM", "LPIPS"), strict=False)]
        said = [words for words in said if "nan" not in words]
        if not math.isnan(means["spread_code"]):
            said.append(f"code {100 * means['spread_code']:.2f} %")
        console.print(f"spread between restarts: {', '.join(said)}")
    console.print(f"picture: {job.results.grid}", soft_wrap=True, markup=False)
    if seen:
        console.print(f"more:    {seen}", soft_wrap=True, style="dim", markup=False)
