"""Complete a job: measures that need all photos or restarts, the picture, the exports and the summary."""

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
from invrep.jobs.certifying import certify
from invrep.jobs.executors import Executor
from invrep.jobs.failures import note_gone
from invrep.jobs.job import Job, Read
from invrep.jobs.plan import Plan
from invrep.jobs.process import return_memory
from invrep.jobs.provenance import provenance
from invrep.jobs.summary import Summary
from invrep.jobs.summary_table import table_rows
from invrep.jobs.sweep_note import sweep_name
from invrep.objectives.code_selection import boxes_in
from invrep.objectives.match import Match
from invrep.reporting.job_grid import MOST_COLUMNS, MOST_ROWS, GridRow, grid, marked
from invrep.results.exports import export
from invrep.results.lists import write_list
from invrep.results.rows import SPREADS, as_rows, decoded
from invrep.results.table import KEY
from invrep.tracking.destination import Ending
from invrep.tracking.logger import Record

TABLE_ROWS = 1000  # rows of a logger's table; metrics.csv has all
AHEAD = 8  # photos read ahead while a code is computed


def complete(job: Job, plan: Plan, executor: Executor) -> Summary:
    """Execute a plan, and complete the job from the results on disk.

    Args:
        job: parts of the job; its ``failures`` are extended.
        plan: plan of the job.
        executor: executor of the plan's remaining batches.

    Returns:
        Summary of the job.

    Raises:
        InvrepError: the folder is locked or cannot be written, or a mistake has ended a rank.
    """
    config, results = job.config, job.results
    with results.held():
        write_list(results.folder / "left_out.txt", job.photos.left_out)
        results.save_config(provenance(job, job.photos[plan.places[0]]))
        record = Record(
            config.logger,
            results.read_config() or {},
            folder=results.folder,
            title=_title(job),
            group=sweep_name(),
            every=config.images_every,
            display=config.display,
        )
        summary, whole = Summary(), False
        try:
            late = executor.execute(job, plan, record)
            return_memory()
            note_gone(job, plan.batches)
            summary = finish(job, plan.places)
            summary.late = late
            whole = not job.failures
            if whole:  # left by other batches of an earlier run, and by a launch that failed
                for place in [results.checkpoints, *([results.ranks] if executor.index is None else [])]:
                    shutil.rmtree(place, ignore_errors=True)
        finally:
            counts = {"photos": summary.images, "pre_images": summary.count}
            summary.seen = record.close(Ending(summary.table, summary.means, counts, results.grid, not whole))
    return summary


def finish(job: Job, places: Sequence[int]) -> Summary:
    """Compact the rows, fill in measures that need all photos or restarts, certify, draw the grid, export the tables.

    Args:
        job: parts of a job whose inversions are done.
        places: places of its readable photos.

    Returns:
        Summary of the job; an empty one without finished pre-images.
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
    summary.rows = table_rows(rows)
    for image, remark in rows.filter(pl.col("remark") != "").select("image", "remark").iter_rows():
        summary.bare += 1
        summary.remarked.setdefault(remark, {})[decoded(image)] = None
    sound = rows.filter(pl.col("remark") == "").select(cs.numeric())
    if "passes_to_try" in sound.columns and sound["passes_to_try"].is_finite().any():
        summary.passes_to_try = int(cast(float, sound["passes_to_try"].fill_nan(None).quantile(0.5, "lower")))
    summary.columns = {column.name: Summed.of(column) for column in sound} | _spreads(job, here, summary)
    if job.config.get("certificate") is not None:
        summary.take_certificates(certify(job, here))
    _draw(job, here[:MOST_ROWS])
    export(results)
    return summary


def _read(job: Job, places: Sequence[int]) -> Iterator[tuple[Photo, Read]]:
    """Yield the readable photos at some places, with their pixels."""
    for place, read in job.read_ahead(places, AHEAD):
        if read is not None:
            yield job.photos[place], read


def _pairwise(job: Job, places: Sequence[int]) -> float:
    """Return mean_ij ‖Φ0_i − Φ0_j‖² over photos.

    The mean is NaN for fewer than two photos and for codes of several shapes. It is also NaN for an objective whose
    target code is not the photo's own.
    """
    distance = metrics.PairwiseDistance(sync_on_compute=False)  # this process reads the photos of all ranks
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
    """Write the whole code of every photo, whatever part of it the objective compares."""
    for photo, read in _read(job, places) if "path" in job.config.data else ():
        code = job.phi(read.pixels[None].to(job.phi.mean.device))
        job.results.save_code(photo.id, [part[0] for part in code], (read.pixels.shape[1], read.pixels.shape[2]))


def _spreads(job: Job, places: Sequence[int], summary: Summary) -> dict[str, Summed]:
    """Update the table of spreads, and return the statistics of its columns over the job's photos.

    A photo's spread is over all its finished restarts, also of earlier runs, if the photo's content is unchanged.
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
    """Return the spread of one photo's pre-images, see :mod:`invrep.evaluation.restart_spread`.

    Args:
        job: parts of the job.
        photo: photo of the pre-images.
        keys: keys of the pre-images, at least two.
        lpips: LPIPS network; None where its weights are absent.
    """
    pixels = torch.stack(list(job.results.pixels(keys).values()))
    pixels = pixels.to(job.phi.mean.device, getattr(torch, job.config.dtype))
    spread = {**pixel_spread(pixels, lpips), "spread_code": math.nan}
    original = job.read(photo) if issubclass(job.kind, Match) else None
    if original is not None:
        codes = [torch.cat(parts) for parts in zip(*(job.phi(image[None]) for image in pixels), strict=True)]
        spread["spread_code"] = code_spread(codes, cast(Match, job.asked_of(original.pixels)))
    return spread


def _draw(job: Job, places: Sequence[int]) -> None:
    """Draw the grid of photos and pre-images, unless the file already shows these results."""
    ids, shows = job.photos.ids, job.kind.shows
    rows = job.results.rows(Keys([ids[place] for place in places], min(job.config.restarts, MOST_COLUMNS)))
    title = _title(job)
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


def _title(job: Job) -> str:
    """Return the job's title, with the channels that an image without a photo maximises."""
    title = job.title
    return title if job.kind.needs_photo or job.kind.shows == "error" else f"{title} {job.config.objective.channels}"


def _short(shows: str, value: float) -> str:
    return f"{100 * value:.2g} %" if shows == "error" else f"{value:.3g}"
