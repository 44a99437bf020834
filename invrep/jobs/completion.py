"""The end of a job: what needs all photos or restarts, the picture, and what the user is told."""

from __future__ import annotations

import hashlib
import math
import shutil
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import polars as pl
import polars.selectors as cs
import torch

from invrep.data.batching import Key, Keys
from invrep.data.photo import Photo
from invrep.evaluation import metrics
from invrep.evaluation.column_statistics import Summed
from invrep.evaluation.restart_spread import code_spread, lpips_at_hand, pixel_spread
from invrep.jobs.executors import Executor
from invrep.jobs.failures import note_gone
from invrep.jobs.job import Job, Read
from invrep.jobs.plan import Plan
from invrep.jobs.process import return_memory
from invrep.jobs.provenance import provenance
from invrep.jobs.summary import Summary
from invrep.jobs.sweep_note import sweep_name
from invrep.messages import layer_name
from invrep.objectives.code_selection import boxes_in
from invrep.objectives.match import Match
from invrep.reporting.job_grid import MOST_COLUMNS, MOST_ROWS, GridRow, grid, marked
from invrep.results.exports import export
from invrep.results.lists import write_list
from invrep.results.rows import SPREADS, as_rows, decoded
from invrep.results.table import KEY
from invrep.tracking.logger import Record

TABLE_ROWS = 1000  # of the table in a logger; all are in metrics.csv
AHEAD = 8  # photos that are read while the last one's code is computed


def complete(job: Job, plan: Plan, executor: Executor) -> Summary:
    """Have a plan executed, then make what needs all photos.

    Args:
        job: its parts.
        plan: the job's.
        executor: does what is left of it.
    """
    config, results = job.config, job.results
    with results.held():
        write_list(results.folder / "left_out.txt", job.photos.left_out)
        results.save_config(provenance(job, job.photos[plan.places[0]]))
        record = Record(
            config.logger,
            folder=results.folder,
            name=results.folder.name,
            group=sweep_name(),
            every=config.images_every,
            display=config.display,
        )
        record.write_config(results.read_config() or {})
        summary, whole = Summary(), False
        try:
            late = executor.execute(job, plan, record)
            return_memory()
            note_gone(job, plan.batches)
            summary = finish(job, plan.places)
            summary.late = late
            whole = not job.failures
            if whole:  # what batches that were made up otherwise have left, and a launch that failed
                for place in [results.checkpoints, *([results.ranks] if executor.index is None else [])]:
                    shutil.rmtree(place, ignore_errors=True)
        finally:
            summary.seen = record.close(summary.table, results.grid, not whole, summary.means)
    return summary


def finish(job: Job, places: Sequence[int]) -> Summary:
    """Bring the rows into few files, fill in what needs all photos or restarts, draw the grid, export the tables.

    Args:
        job: whose inversions are done.
        places: of its photos, but those that cannot be read.

    Returns:
        What the job has come to.
    """
    results, keys = job.results, Keys({job.photos.ids[place] for place in places}, job.config.restarts)
    rows = results.frame(keys)
    if rows.is_empty():
        return Summary()
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
    summary = Summary(rows.height, len(done), list(as_rows(rows.head(TABLE_ROWS))))
    for image, remark in rows.filter(pl.col("remark") != "").select("image", "remark").iter_rows():
        summary.bare += 1
        summary.remarked.setdefault(remark, {})[decoded(image)] = None
    sound = rows.filter(pl.col("remark") == "").select(cs.numeric())
    summary.columns = {column.name: Summed.of(column) for column in sound} | _spreads(job, here, summary)
    _draw(job, here[:MOST_ROWS])
    export(results)
    return summary


def _read(job: Job, places: Sequence[int]) -> Iterator[tuple[Photo, Read]]:
    """Yield those of some photos that can be read."""
    for place, read in job.read_ahead(places, AHEAD):
        if read is not None:
            yield job.photos[place], read


def _pairwise(job: Job, places: Sequence[int]) -> float:
    """Return mean_ij ‖Φ0_i − Φ0_j‖² over photos, NaN for fewer than two or codes of several shapes.

    NaN as well where Φ0 is not the photos' own.
    """
    distance = metrics.PairwiseDistance(sync_on_compute=False)  # this process has them all
    shape = None
    if len(places) < 2 or not job.kind.needs_photo or not issubclass(job.kind, Match):
        return math.nan
    for _, read in _read(job, places):
        code = torch.cat([part.flatten(1) for part in cast(Match, job.asked_of(read.pixels)).target], 1)
        shape = code.shape if shape is None else shape
        if code.shape != shape:
            return math.nan
        distance.to(code.device).update(code)
    return math.nan if shape is None else float(distance.compute())


@torch.no_grad()
def _save_codes(job: Job, places: Sequence[int]) -> None:
    """Write the whole code of every photo."""
    for photo, read in _read(job, places) if "path" in job.config.data else ():
        code = job.phi(read.pixels[None].to(job.phi.mean.device))
        job.results.save_code(photo.id, [part[0] for part in code], (read.pixels.shape[1], read.pixels.shape[2]))


def _spreads(job: Job, places: Sequence[int], summary: Summary) -> dict[str, Summed]:
    """Bring the rows of ``spread.csv`` up to date, and return what is told of those of the job's photos.

    Of a photo with several finished restarts all that are of its present content count, those of earlier runs too.
    """
    results = job.results
    rows = results.table.collect(lambda rows: rows.select(*KEY, "content"))
    grouped = rows.group_by("image").agg(pl.struct("restart", "content").sort_by("restart").alias("all"))
    several = {decoded(image): restarts for image, restarts in grouped.filter(pl.col("all").list.len() > 1).iter_rows()}
    known, new, told = results.spreads(), [], list[dict[str, Any]]()
    lpips: list[Any] = []
    for photo in (job.photos[place] for place in places if job.photos.ids[place] in several):
        content = photo.content()
        keys = [(photo.id, one["restart"]) for one in several[photo.id] if one["content"] == content]
        row = known.get(photo.id)
        if len(keys) > 1 and (row is None or (row["restarts"], row["content"]) != (len(keys), content)):
            lpips = lpips or [lpips_at_hand()]
            row = {"image": photo.id, "restarts": len(keys), **_spread(job, photo, keys, *lpips), "content": content}
            if any(photo.id in images for images in summary.remarked.values()):
                row["spread_code"] = math.nan
            new.append(row)
        if len(keys) > 1 and row is not None:
            told.append(row)
    results.save_spreads(new)
    return {name: Summed.of(pl.Series([row[name] for row in told], dtype=pl.Float64)) for name in SPREADS if told}


@torch.no_grad()
def _spread(job: Job, photo: Photo, keys: Sequence[Key], lpips: Any) -> dict[str, float]:
    """Return how far the pre-images of one photo are from each other; see :mod:`invrep.evaluation.restart_spread`."""
    pixels = torch.stack(list(job.results.pixels(keys).values()))
    pixels = pixels.to(job.phi.mean.device, getattr(torch, job.config.dtype))
    spread = {**pixel_spread(pixels, lpips), "spread_code": math.nan}
    original = job.read(photo) if issubclass(job.kind, Match) else None
    if original is not None:
        codes = [torch.cat(parts) for parts in zip(*(job.phi(image[None]) for image in pixels), strict=True)]
        spread["spread_code"] = code_spread(codes, cast(Match, job.asked_of(original.pixels)))
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
