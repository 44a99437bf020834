"""The end of a job: what needs all photos or restarts, the picture, and what the user is told."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl
import polars.selectors as cs
import torch

from invrep import metrics
from invrep.config import layer_name
from invrep.data import Key, Keys
from invrep.exports import export
from invrep.figures import MOST_COLUMNS, MOST_ROWS, GridRow, grid, marked
from invrep.job import Job, Read
from invrep.objectives import Match
from invrep.parts import boxes_in
from invrep.progress import worded
from invrep.results import SPREADS, as_rows, decoded
from invrep.sources import Photo
from invrep.spread import code_spread, lpips_at_hand, pixel_spread
from invrep.table import KEY

TABLE_ROWS = 1000  # of the table in a logger; all are in metrics.csv
MOST_NAMED = 5  # photos in a line
AHEAD = 8  # photos that are read while the last one's code is computed


@dataclass(frozen=True)
class Summed:
    """What is told of a column: of its finite values the mean, the sum and the rest; NaN where there are none.

    Attributes:
        deviation: with n − 1; NaN below two values.
    """

    count: int
    total: float
    mean: float
    deviation: float
    least: float
    most: float

    @classmethod
    def of(cls, column: pl.Series) -> Summed:
        """Sum a column up."""
        values = column.cast(pl.Float64).fill_nan(None).drop_nulls()
        told = values.sum(), values.mean(), values.std(), values.min(), values.max()
        return cls(len(values), *(math.nan if value is None else value for value in told))


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


def finish(job: Job, places: Sequence[int]) -> Found:
    """Bring the rows into few files, fill in what needs all photos or restarts, draw the grid, export the tables.

    Args:
        job: whose inversions are done.
        places: of its photos, but those that cannot be read.

    Returns:
        What was found.
    """
    results, keys = job.results, Keys({job.photos.ids[place] for place in places}, job.config.restarts)
    rows = results.frame(keys)
    if rows.is_empty():
        return Found()
    done = {decoded(image) for image in rows["image"].unique()}
    here = array("Q", (place for place in places if job.photos.ids[place] in done))
    pairwise = math.nan
    if not (settled := results.table.settled()) or rows["pairwise_error"].is_nan().any():
        pairwise = _pairwise(job, here)
    if not settled or not math.isnan(pairwise):
        results.compact(pairwise, keys.images)
        rows = results.frame(keys)
    if job.config.save_codes:
        _save_codes(job, here)
    found = Found(rows.height, len(done), list(as_rows(rows.head(TABLE_ROWS))))
    for image, remark in rows.filter(pl.col("remark") != "").select("image", "remark").iter_rows():
        found.bare += 1
        found.remarked.setdefault(remark, {})[decoded(image)] = None
    sound = rows.filter(pl.col("remark") == "").select(cs.numeric())
    found.columns = {column.name: Summed.of(column) for column in sound} | _spreads(job, here, found)
    _draw(job, here[:MOST_ROWS])
    export(results)
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


def _spreads(job: Job, places: Sequence[int], found: Found) -> dict[str, Summed]:
    """Bring the rows of ``spread.csv`` up to date, and return what is told of those of the job's photos.

    Of a photo with several finished restarts all that are of its present content count, those of earlier runs too.
    """
    results = job.results
    rows = results.table.collect(lambda rows: rows.select(*KEY, "content"))
    several = rows.group_by("image").agg(pl.struct("restart", "content").sort_by("restart").alias("all"))
    several = {decoded(image): found for image, found in several.filter(pl.col("all").list.len() > 1).iter_rows()}
    known, new, told = results.spreads(), [], []
    lpips: list[Any] = []
    for photo in (job.photos[place] for place in places if job.photos.ids[place] in several):
        content = photo.content()
        keys = [(photo.id, one["restart"]) for one in several[photo.id] if one["content"] == content]
        row = known.get(photo.id)
        if len(keys) > 1 and (row is None or (row["restarts"], row["content"]) != (len(keys), content)):
            lpips = lpips or [lpips_at_hand()]
            row = {"image": photo.id, "restarts": len(keys), **_spread(job, photo, keys, *lpips), "content": content}
            if any(photo.id in images for images in found.remarked.values()):
                row["spread_code"] = math.nan
            new.append(row)
        if len(keys) > 1:
            told.append(row)
    results.save_spreads(new)
    return {name: Summed.of(pl.Series([row[name] for row in told], dtype=pl.Float64)) for name in SPREADS if told}


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
    """Draw the picture, unless what it would show is what it shows."""
    ids, shows = job.photos.ids, job.kind.shows
    rows = job.results.rows(Keys([ids[place] for place in places], min(job.config.restarts, MOST_COLUMNS)))
    title = " ".join(filter(None, (job.config.name, layer_name(job.config.layer))))
    if not job.kind.needs_photo and shows == "activation":
        title += f" {job.config.objective.channels}"
    exact = [{name: value for name, value in row.items() if name != "seconds"} for row in rows.values()]
    shown = [title, job.config.display, [ids[place] for place in places], exact]
    mark = hashlib.sha256(repr(shown).encode(errors="surrogateescape")).hexdigest()
    if marked(job.results.grid) == mark:
        return
    pixels, drawn = job.results.pixels(list(rows)), []
    for photo, read in _read(job, places):
        some = [key for key in rows if key[0] == photo.id]
        captions = [rows[key].get("remark") or f"{shows} {_short(shows, rows[key][shows])}" for key in some]
        seen = read.pixels if photo.open else None
        drawn.append(GridRow(seen, [pixels[key] for key in some], captions, boxes_in(rows[some[0]])))
    if drawn:
        picture = partial(grid, drawn, title=title, display=job.config.display, mark=mark)
        job.results.write(job.results.grid, lambda path: picture(path=path))


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
