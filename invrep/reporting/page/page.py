"""Write a page of finished jobs, one HTML file: ``invrep report FOLDER…``.

The page embeds its script, style and thumbnails. It also embeds pictures in full size and films, up to
``MOST_EMBEDDED`` bytes. Beyond that, the page links them by paths relative to it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import OmegaConf
from rich.console import Console

from invrep.data.batching import Key
from invrep.objectives.code_selection import boxes_in
from invrep.reporting.comparison import Run, compare, sweep_runs, words
from invrep.reporting.page.starts import start_of
from invrep.reporting.page.table import HEADINGS, OF_A_PICTURE, PERCENT, SYMBOLS, label, table_of
from invrep.reporting.page.thumbnails import Pictures, as_base64
from invrep.reporting.terminal import make_console
from invrep.results.atomic_files import atomic

log = logging.getLogger(__name__)

NAME = "report.html"

TEMPLATES = Path(__file__).parent

# the order matters: the top-level code of a part uses the parts before it
SCRIPT = (
    *("vendor/panzoom.min", "script/elements", "script/pictures", "script/words", "script/plot", "script/rows"),
    *("script/grid", "script/grid_keys", "script/stage", "script/pre_image", "script/closer", "script/address"),
    *("script/charts", "script/table", "script/controls"),
)

STYLE = ("report", "gallery", "viewer", "print")

MOST_PICTURES = 12_000  # most thumbnails on a page; further photos are only in the table and the plots

MOST_EXACT = 8 * 2**20  # most bytes of PNGs that are embedded without loss, for differences of photo and pre-image
MOST_EMBEDDED = 24 * 2**20  # most bytes of embedded full-size pictures and films; more are linked

# (most pictures in the grid, pixels of a thumbnail's longer side): 520 for screens of two pixels to one of the style's
SIDES = ((300, 520), (2000, 260), (5000, 192), (MOST_PICTURES, 128))
SMALL = 96  # side of the thumbnails of further restarts, which are buttons

MOST_STARTS = 400  # most pictures of a page that has the start of each descent too

BLOCK = 64  # pictures in a block of JSON, which the script parses when it needs one of them


def write(runs: Sequence[Run], path: Path, console: Console) -> None:
    """Write the page of some jobs, whole or not at all.

    Args:
        runs: jobs, at least one of them with results.
        path: path of the HTML file.
        console: console for a progress bar.

    Raises:
        InvrepError: results are damaged, or the page cannot be written.
    """
    swept = compare(runs)
    data, box = _data(runs, swept, path.parent, console)
    script = "\n".join((TEMPLATES / f"{part}.js").read_text(encoding="utf-8") for part in SCRIPT)
    style = "\n".join((TEMPLATES / f"{part}.css").read_text(encoding="utf-8") for part in STYLE)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    html = environment.get_template("report.html.j2").render(
        script=Markup(script),
        script_hash=as_base64(hashlib.sha256(script.encode()).digest()),
        style=Markup(style),
        title=_title(runs, swept),
        facts=_facts(runs, data),
        table=table_of(runs, swept),
        data=data,
        thumbs=_blocks(box.thumbs),
        full=_blocks(box.full),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    # a file name may hold bytes that are no Unicode
    content = html.encode("utf-8", errors="replace")
    atomic(path, lambda beside: beside.write_bytes(content))


def _title(runs: Sequence[Run], swept: Mapping[str, Sequence[Any]]) -> str:
    """Return the title of the page: the representation and layer that all jobs share, and the keys that were swept."""
    used = next((run for run in runs if run.config is not None), runs[0]).used
    same = [words(used[key]) for key in ("rep", "layer") if key not in swept and used.get(key)]
    names = [SYMBOLS.get(key, key) for key in swept]
    if not names:
        return " ".join(same) or "invrep"
    return f"{' '.join(same) or 'Pre-images'} by {' and '.join([', '.join(names[:-1]), names[-1]][len(names) == 1 :])}"


def _facts(runs: Sequence[Run], data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts under the title, as (term, description)."""
    images = {image for run in runs for image, _ in run.rows}
    most = max((restart + 1 for run in runs for _, restart in run.rows), default=0)
    failed = sum(run.status == "failed" for run in runs)
    facts = [("jobs", f"{len(runs)}{f', {failed} failed' if failed else ''}"), ("photos", str(len(images)))]
    facts += [("restarts", str(most))]
    for key in ("prior", "optim", "objective", "passes", "tv_weight"):
        values = list(dict.fromkeys(words(run.used[key]) for run in runs if run.used.get(key) is not None))
        if values:
            name = {"tv_weight": "λ_V", "optim": "descent"}.get(key, key)
            facts.append((name, ", ".join(values[:6]) + (", …" if len(values) > 6 else "")))
    commits = [run.config.get("provenance", {}).get("commit") for run in runs if run.config is not None]
    if any(commits):
        facts.append(("commit", ", ".join(dict.fromkeys(commit[:8] for commit in commits if commit))))
    if data["left_out"]:
        facts.append(("shown", f"the first {len(data['photos'])} photos; the table and the plots are of all"))
    if not data["embedded"]:
        facts.append(("full size", "linked, not embedded: keep this file where it is beside its runs"))
    return facts


def _blocks(pictures: Sequence[str]) -> list[list[str]]:
    return [list(pictures[k : k + BLOCK]) for k in range(0, len(pictures), BLOCK)]


def _data(
    runs: Sequence[Run], swept: Mapping[str, Sequence[Any]], page: Path, console: Console
) -> tuple[dict[str, Any], Pictures]:
    """Return the data of the page's script, as values that JSON can represent, and the pictures that it counts."""
    # a photo is identified by id and content, since two folders may have photos of the same name
    there = sorted({(image, row["content"]) for run in runs for (image, _), row in run.rows.items()})
    pictures = sum(len(run.rows) for run in runs) + len(there)
    order = there[: max(1, MOST_PICTURES * len(there) // max(pictures, MOST_PICTURES))]
    photos = {key: k for k, key in enumerate(order)}
    shown = [(run, [key for key, row in run.rows.items() if (key[0], row["content"]) in photos]) for run in runs]
    box = _pictures(shown, page, console)
    thumbs: dict[int, int] = {}
    for run, keys in shown:
        for image, restart in keys:
            number = photos[image, run.rows[image, restart]["content"]]
            thumbs.setdefault(number, box.paths[run.results.photo(image)].thumb)
    return {
        "keys": [
            {"name": SYMBOLS.get(key, key), "key": key, "values": [_text(words(value)) for value in values]}
            for key, values in swept.items()
        ],
        "photos": [{"name": _text(image), "thumb": thumbs[k]} for k, (image, _) in enumerate(order)],
        "jobs": [_job(run, keys, swept, photos, box) for run, keys in shown],
        "measures": [{"key": name, "name": HEADINGS[name], "percent": name in PERCENT} for name in OF_A_PICTURE],
        "block": BLOCK,
        "aspect": box.aspect,
        "embedded": box.quality is not None,
        "left_out": len(order) < len(there),
    }, box


def _pictures(shown: Sequence[tuple[Run, Sequence[Key]]], page: Path, console: Console) -> Pictures:
    """Return the pictures of some jobs' pre-images and photos: how many there are decides how they are kept.

    Args:
        shown: jobs with the image ids and restarts of their pre-images, in the order of restarts.
        page: folder of the page.
        console: console for a progress bar.
    """
    grid: dict[Path, None] = {}
    others: list[Path] = []
    for run, keys in shown:
        for image, restart in keys:
            path, photo = run.results.picture(image, restart), run.results.photo(image)
            if photo in grid:
                others.append(path)
            else:
                grid |= {path: None, photo: None}
    films = [film for run, keys in shown for key in keys if (film := _film(run, key))]
    size = sum(path.stat().st_size for path in [*grid, *others] if path.is_file())
    # a WebP of quality 90 has about a third of a PNG's bytes
    embed = sum(film.stat().st_size for film in films) + size / 3 <= MOST_EMBEDDED
    quality = None if not embed else 100 if size <= MOST_EXACT else 90
    box = Pictures(page, quality)
    box.add(list(grid), next((side for most, side in SIDES if len(grid) <= most), SIDES[-1][1]), console)
    box.add(others, SMALL, console)
    return box


def _film(run: Run, key: Key) -> Path | None:
    return next((p for suffix in ("mp4", "gif") if (p := run.results.film(*key, suffix)).is_file()), None)


def _job(
    run: Run,
    keys: Sequence[Key],
    swept: Mapping[str, Sequence[Any]],
    photos: Mapping[tuple[str, str], int],
    box: Pictures,
) -> dict[str, Any]:
    """Return the data of one job: its point in the sweep, its means, its mean curve, and its cells by photo number.

    Args:
        run: job.
        keys: image ids and restarts of its pre-images on the page.
        swept: values of each swept key, in order.
        photos: number of each photo on the page, by id and content.
        box: pictures of the page.
    """
    points = run.results.curve_points(keys) if keys else {}
    axes: list[list[int]] = []
    cells: dict[int, dict[str, Any]] = {}
    for key in keys:
        row, curve = run.rows[key], points[key]
        number = photos[key[0], row["content"]]
        axis = [int(point["pass"]) for point in curve]
        if axis not in axes:
            axes.append(axis)
        film = _film(run, key)
        picture = box.paths[run.results.picture(*key)]
        start = start_of(run, key) if box.quality is not None and len(box.paths) <= MOST_STARTS else None
        seen = box.paths[run.results.photo(key[0])]
        cell = cells.setdefault(number, {"photo": [seen.thumb, seen.full], "boxes": boxes_in(row), "restarts": []})
        cell["restarts"].append(
            {
                "n": key[1],
                "value": _short(row.get(run.shows)),
                "picture": [picture.thumb, picture.full],
                "measures": [_short(row.get(name)) for name in OF_A_PICTURE],
                "class": row.get("class") or "",
                "axis": axes.index(axis),
                "curve": [_short(point.get(run.shows)) for point in curve],
            }
            | ({"film": box.film(film), "mp4": film.suffix == ".mp4"} if film else {})
            | ({"start": box.put(start, SMALL)} if start else {})
        )
    config = run.config
    mean, std = run.means.get(run.shows, (None, None))
    return {
        "point": [values_.index(run.point[key]) for key, values_ in swept.items()],
        "label": label(run),
        "shows": run.shows,
        "status": run.status,
        "message": _text(run.job.message if run.job else ""),
        "n": len(run.rows),
        "mean": _short(mean),
        "std": _short(std),
        "curve": [[at, _short(terms.get(run.shows))] for at, terms in run.results.mean_curves(run.rows)],
        "field": run.used.get("receptive_field"),
        "stride": run.used.get("stride"),
        "start": run.used.get("start"),
        "region": None if config is None else config.get("objective", {}).get("region"),
        "command": _command(run),
        "config": _text(OmegaConf.to_yaml(config)) if config is not None else "",
        "folder": box.link(run.results.folder),
        "axes": axes,
        "cells": cells,
    }


def _command(run: Run) -> str:
    """Return the command that runs this job alone; for a job without a sweep, the command that was typed."""
    if run.job is not None:
        return _text(shlex.join(["python", "train.py", *run.job.overrides]))
    return _text(f"python {(run.config or {}).get('provenance', {}).get('command', 'train.py')}")


def _text(text: str) -> str:
    """Return text as valid UTF-8: bytes of a file name that are no UTF-8 are replaced."""
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _short(value: float | None) -> float | None:
    """Return a number rounded to the four digits that a page shows; None for None, NaN and infinity."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def page_of(folder: Path) -> None:
    """Write the page of the sweep in a folder, and print its path; an error becomes a warning, never a failed sweep.

    Args:
        folder: folder of the sweep.
    """
    console = make_console()
    try:
        runs = sweep_runs(folder)
        if any(run.rows for run in runs):
            write(runs, folder / NAME, console)
            console.print(f"page of the sweep: {folder / NAME}", soft_wrap=True)
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        log.warning("There is no page of the sweep (%s: %s).", type(error).__name__, "".join(first))
