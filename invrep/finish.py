"""The end of a job: what needs all photos or restarts, the picture, and what the user is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from invrep import metrics
from invrep.callbacks import worded
from invrep.data import Photo
from invrep.figures import MOST_COLUMNS, MOST_ROWS, GridRow, grid
from invrep.job import Job
from invrep.objectives import Match
from invrep.parts import channel_axes, region_of
from invrep.results import SPREADS, Key
from invrep.spread import code_spread, lpips_at_hand, pixel_spread


@dataclass(frozen=True)
class Found:
    """What a job has found.

    Attributes:
        rows: this job's rows of ``metrics.csv``.
        spreads: its rows of ``spread.csv``.
    """

    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    spreads: Sequence[dict[str, Any]] = ()


def finish(job: Job, photos: Sequence[Photo], *, new: bool) -> Found:
    """Merge the parts, fill in what needs all photos or restarts, draw the grid, and return what was found.

    Args:
        job: whose inversions are done.
        photos: of the job.
        new: whether anything has been inverted since the files were last written.
    """
    results, restarts = job.results, job.config.restarts
    done = results.rows()
    if not done:
        return Found()
    here = [photo for photo in photos if any((photo.id, r) in done for r in range(restarts))]
    if new or any(
        math.isnan(done[(p.id, r)]["pairwise_error"]) for p in here for r in range(restarts) if (p.id, r) in done
    ):
        results.merge(_pairwise(job, here), [photo.id for photo in here])
    if job.config.save_codes:
        _save_codes(job, here)
    rows = results.rows()
    chosen = {(photo.id, r): rows[(photo.id, r)] for photo in here for r in range(restarts) if (photo.id, r) in rows}
    spreads = _spreads(job, here, rows)
    if chosen and (new or not results.grid.exists()):
        _draw(job, here[:MOST_ROWS], chosen)
    return Found(chosen, spreads)


def _pairwise(job: Job, photos: Sequence[Photo]) -> float:
    """Return mean_ij ‖Φ0_i − Φ0_j‖² over photos, NaN for fewer than two or codes of several shapes.

    NaN as well where Φ0 is not the photos' own.
    """
    error = metrics.PairwiseError()
    shapes = set()
    if len(photos) < 2 or not job.kind.needs_photo or not issubclass(job.kind, Match):
        return math.nan
    for photo in photos:
        pixels = job.read(photo)
        if pixels is None:
            continue
        code = torch.cat([part.flatten(1) for part in job.asked_of(pixels).target], 1)
        shapes.add(code.shape)
        if len(shapes) > 1:
            return math.nan
        error.to(code.device).add_code(code)
    return float(error.normaliser())


@torch.no_grad()
def _save_codes(job: Job, photos: Sequence[Photo]) -> None:
    """Write the whole code of every photo."""
    for photo in photos:
        pixels = job.read(photo) if photo.path is not None else None
        if pixels is not None:
            code = job.phi(pixels[None].to(job.phi.mean.device))
            job.results.save_code(photo.id, [part[0] for part in code], tuple(pixels.shape[1:]))


def _spreads(job: Job, photos: Sequence[Photo], rows: dict[Key, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of ``spread.csv`` for photos with several finished restarts, having brought the file up to date.

    All finished restarts of the photo as it is now count, those of earlier runs too.
    """
    kept, found, lpips = job.results.spreads(), [], None
    new = False
    for photo in photos:
        content = photo.content()
        keys = [key for key, row in rows.items() if key[0] == photo.id and row["content"] == content]
        if len(keys) < 2:
            continue
        old = kept.get(photo.id)
        if old is not None and (old["restarts"], old["content"]) == (len(keys), content):
            found.append(old)
            continue
        lpips = lpips if new else lpips_at_hand()
        new = True
        spread = _spread(job, photo, keys, lpips)
        found.append({"image": photo.id, "restarts": len(keys), **spread, "content": content})
    if new:
        job.results.save_spreads((kept | {row["image"]: row for row in found}).values())
    return found


@torch.no_grad()
def _spread(job: Job, photo: Photo, keys: Sequence[Key], lpips: Any) -> dict[str, float]:
    """Return how far the pre-images of one photo are from each other; see :mod:`invrep.spread`."""
    pixels = torch.stack(list(job.results.pixels(keys).values()))
    pixels = pixels.to(job.phi.mean.device, getattr(torch, job.config.dtype))
    spread = {**pixel_spread(pixels, lpips), "spread_code": math.nan}
    original = job.read(photo) if issubclass(job.kind, Match) else None
    if original is not None:
        codes = [job.phi(image[None]) for image in pixels]
        spread["spread_code"] = code_spread([torch.cat(p) for p in zip(*codes, strict=True)], job.asked_of(original))
    return spread


def _draw(job: Job, photos: Sequence[Photo], rows: dict[Key, dict[str, Any]]) -> None:
    keys = {photo: [(photo.id, r) for r in range(MOST_COLUMNS) if (photo.id, r) in rows] for photo in photos}
    pixels = job.results.pixels([key for some in keys.values() for key in some])
    drawn, shows = [], job.kind.shows
    for photo, some in keys.items():
        original = job.read(photo)
        if original is not None:
            captions = [f"{shows} {_short(shows, rows[key][shows])}" for key in some]
            shown = None if photo.path is None else original
            drawn.append(GridRow(shown, [pixels[key] for key in some], captions, _boxes(job, original)))
    title = f"{job.config.name} {job.config.layer}" if job.config.layer is not None else job.config.name
    if not job.kind.needs_photo and shows == "activation":
        title += f" {job.config.objective.channels}"
    job.results.save_picture(
        job.results.grid, lambda path: grid(drawn, title=title, display=job.config.display, path=path)
    )


def _short(shows: str, value: float) -> str:
    return f"{100 * value:.2g} %" if shows == "error" else f"{value:.3g}"


@torch.no_grad()
def _boxes(job: Job, pixels: Tensor) -> list[tuple[int, int, int, int]]:
    """Return what the region of the code that is asked for sees, for each part of the code; nothing for all of it."""
    if (region := job.config.objective.get("region")) is None:
        return []
    code = job.phi(pixels[None].to(job.phi.mean.device))
    regions = [region_of(part, axis, region) for part, axis in zip(code, channel_axes(code, job.phi), strict=True)]
    places = zip(regions, job.phi.geometry(*pixels.shape[1:]), strict=True)
    boxes = [geometry.box(rows, columns) for (rows, columns), geometry in places]
    return [box for box in boxes if box is not None]


def summary(job: Job, found: Found, seen: str | None) -> None:
    """Say where the picture is, how good it is, and how to look closer."""
    console, rows = job.console, found.rows
    if not rows:
        return
    if job.kind.shows == "error":
        error = metrics.RelativeError()
        for row in rows.values():
            error.update(torch.tensor([row["distance"]]), torch.tensor([max(row["code_norm"], 1e-30)]))
        value = {name: 100 * float(number) for name, number in error.compute().items()}
        spread = "" if math.isnan(value["std"]) else f" ± {value['std']:.2f}"
        root = f" (root {100 * math.sqrt(value['mean'] / 100):.1f} %)" if len(rows) == 1 and value["mean"] else ""
        console.print(f"error ‖Φ−Φ0‖²/‖Φ0‖²: {value['mean']:.2f}{spread} %{root}")
    else:
        values = [row["activation"] for row in rows.values()]
        some = f", {min(values):.4g} to {max(values):.4g}" if len(values) > 1 else ""
        console.print(f"activation: {worded('activation', sum(values) / len(values))}{some}")
    kept = [row["class_kept"] for row in rows.values() if not math.isnan(row.get("class_kept", math.nan))]
    if kept:
        given = sum(row["class_probability"] for row in rows.values() if "class_probability" in row) / len(kept)
        console.print(
            f"top-1 class kept: {int(sum(kept))} of {len(kept)} (mean probability of the photo's class {given:.2f})"
        )
    if found.spreads:
        means = {name: float(torch.tensor([row[name] for row in found.spreads]).nanmean()) for name in SPREADS}
        said = [f"{word} {means[name]:.3f}" for name, word in zip(SPREADS, ("1−SSIM", "LPIPS"), strict=False)]
        said = [words for words in said if "nan" not in words]
        if not math.isnan(means["spread_code"]):
            said.append(f"code {100 * means['spread_code']:.2f} %")
        console.print(f"spread between restarts: {', '.join(said)}")
    console.print(f"picture: {job.results.grid}", soft_wrap=True, markup=False)
    if seen:
        console.print(f"more:    {seen}", soft_wrap=True, style="dim", markup=False)
