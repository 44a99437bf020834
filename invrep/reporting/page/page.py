"""Write a page of finished jobs, one HTML file: ``invrep report FOLDER…``.

The page embeds its script, style and thumbnails. It also embeds pictures in full size and films, up to
``MOST_EMBEDDED`` bytes. Beyond that, the page links them by paths relative to it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console

from invrep.data.batching import Key
from invrep.reporting.comparison import SYMBOLS, Run, sweep_runs, words
from invrep.reporting.groups import Group, apart, grouped
from invrep.reporting.page.job_data import Axes, as_text, film_of, job_data
from invrep.reporting.page.table import HEADINGS, OF_A_PICTURE, PERCENT, table_of
from invrep.reporting.page.thumbnails import Pictures, as_base64
from invrep.reporting.terminal import make_console
from invrep.results.atomic_files import atomic
from invrep.results.rows import SPREADS

log = logging.getLogger(__name__)

NAME = "report.html"

TEMPLATES = Path(__file__).parent

# the order matters: the top-level code of a part uses the parts before it
SCRIPT = (
    *("vendor/panzoom.min", "script/elements", "script/group", "script/pictures", "script/words"),
    *("script/scales", "script/plot", "script/crosshair", "script/rows", "script/curve"),
    *("script/grid", "script/grid_keys", "script/stage", "script/pre_image", "script/closer", "script/address"),
    *("script/charts", "script/download", "script/table", "script/controls", "script/chooser"),
)

STYLE = ("report", "gallery", "viewer", "charts", "print")

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
    groups = grouped(runs)
    data, box = _data(groups, path.parent, console)
    tables = [table_of(group.runs, group.swept) for group in groups]
    data["tables"] = [table.texts for table in tables]
    facts = [_facts(group.runs, data) for group in groups]
    kinds = [{"title": group.title, "facts": f, "table": t} for group, f, t in zip(groups, facts, tables, strict=True)]
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
        title=groups[0].title,
        groups=kinds,
        data=data,
        thumbs=_blocks(box.thumbs),
        full=_blocks(box.full),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    # a file name may hold bytes that are no Unicode
    content = html.encode("utf-8", errors="replace")
    atomic(path, lambda beside: beside.write_bytes(content))


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


def _data(groups: Sequence[Group], page: Path, console: Console) -> tuple[dict[str, Any], Pictures]:
    """Return the data of the page's script, as values that JSON can represent, and the pictures that it counts."""
    runs = [run for group in groups for run in group.runs]
    numbers = iter(range(len(runs)))
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
    axes = Axes(sum(len(keys) for _, keys in shown))
    swept = [group.swept for group in groups for _ in group.runs]
    alone = [numbers for group in groups for numbers in apart(group.runs, list(group.swept))]
    side = SMALL if box.quality is not None and len(box.paths) <= MOST_STARTS else None
    jobs = [
        job_data(run, keys, keys_swept, photos, box, axes, start_side=side) | {"apart": numbers}
        for (run, keys), keys_swept, numbers in zip(shown, swept, alone, strict=True)
    ]
    return {
        "groups": [
            {"title": group.title, "keys": _keys(group.swept), "jobs": [next(numbers) for _ in group.runs]}
            for group in groups
        ],
        "photos": [{"name": as_text(image), "thumb": thumbs[k]} for k, (image, _) in enumerate(order)],
        "jobs": jobs,
        "axes": axes.passes,
        "spreads": [{"key": name, "name": HEADINGS[name], "percent": name in PERCENT} for name in SPREADS],
        "measures": [{"key": name, "name": HEADINGS[name], "percent": name in PERCENT} for name in OF_A_PICTURE],
        "block": BLOCK,
        "aspect": box.aspect,
        "embedded": box.quality is not None,
        "left_out": len(order) < len(there),
    }, box


def _keys(swept: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [
        {"name": SYMBOLS.get(key, key), "key": key, "values": [as_text(words(value)) for value in values]}
        for key, values in swept.items()
    ]


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
    films = [film for run, keys in shown for key in keys if (film := film_of(run, key))]
    size = sum(path.stat().st_size for path in [*grid, *others] if path.is_file())
    # a WebP of quality 90 has about a third of a PNG's bytes
    embed = sum(film.stat().st_size for film in films) + size / 3 <= MOST_EMBEDDED
    quality = None if not embed else 100 if size <= MOST_EXACT else 90
    box = Pictures(page, quality)
    box.add(list(grid), next((side for most, side in SIDES if len(grid) <= most), SIDES[-1][1]), console)
    box.add(others, SMALL, console)
    return box


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
