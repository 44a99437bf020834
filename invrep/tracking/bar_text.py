"""Lay out a job's progress in one line that fits the width of its terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHORTEST = 8  # columns of a bar that still tells something
SPARE = 3  # free columns at the end of the line
BETWEEN = 2  # columns between two parts of the line


class Parts(NamedTuple):
    """Hold the parts of a line of progress, from left to right; an empty text has no place in the line.

    Attributes:
        job: which of a sweep's jobs.
        image: which of the job's images.
        place: pass of the batch.
        value: error or activation.
        rate: images in a unit of time.
        left: time left of the job.
        sweep: time left of the sweep.
    """

    job: str = ""
    image: str = ""
    place: str = ""
    value: str = ""
    rate: str = ""
    left: str = ""
    sweep: str = ""


DROPPED = ("rate", "bar", "place", "job", "sweep", "image", "value")  # parts in the order in which they give way


def shown(parts: Parts, width: int) -> list[str]:
    """Return the names of the parts that fit into a width, from left to right; ``bar`` is the bar.

    Args:
        parts: parts of the line.
        width: width of the line, in columns.
    """
    sizes = {name: len(text) for name, text in parts._asdict().items() if text}
    order = [*(name for name in ("job", "image") if name in sizes), "bar"]
    order += [name for name in ("place", "value", "rate", "left", "sweep") if name in sizes]
    sizes["bar"] = SHORTEST
    for name in DROPPED:
        if sum(sizes[kept] + BETWEEN for kept in order) - BETWEEN <= width:
            break
        order = [kept for kept in order if kept != name]
    return order


class Line:
    """Render a line of progress; parts give way where the terminal is narrow.

    Attributes:
        parts: parts of the line.
        share: done share of the work, 0 to 1.
    """

    def __init__(self) -> None:
        self.parts = Parts()
        self.share = 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line for the width of the console, with room for the terminal's ``^C``, which else would wrap."""
        width = max(options.max_width - SPARE, 1)
        order = shown(self.parts, width)
        row: list[Text | ProgressBar] = []
        table = Table.grid(padding=(0, BETWEEN, 0, 0), pad_edge=False, expand="bar" in order)
        for name in order:
            table.add_column(no_wrap=True, ratio=1 if name == "bar" else None)
            row.append(self._bar() if name == "bar" else Text(getattr(self.parts, name), overflow="crop"))
        table.add_row(*row)
        yield from console.render(table, options.update(width=width, height=1))

    def _bar(self) -> ProgressBar:
        return ProgressBar(total=1.0, completed=min(self.share, 1.0))


def which_images(images: tuple[int, int], count: int) -> str:
    """Return which of how many images a batch holds, as ``images 9–16/40``; empty if either is unknown.

    Args:
        images: first and last image of the batch, from 1; 0 if unknown.
        count: number of all images; 0 if unknown.
    """
    first, last = images
    if not first or not count:
        return ""
    return f"image {first}/{count}" if first == last else f"images {first}–{last}/{count}"


def joined(parts: Sequence[str]) -> str:
    """Return texts as one, two spaces apart, without empty ones."""
    return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """Return a time as ``m:ss``, ``h:mm:ss``, or from a day on ``2 d 3 h``; empty for NaN."""
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """Return a time in words for a log, such as ``about 1.7 min``; empty for NaN."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 90:
        return f"about {max(seconds, 0):.0f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def speed(images: float) -> str:
    """Return a number of images per second as text, per minute or per hour where it is low; empty for NaN.

    Args:
        images: images per second.
    """
    if not math.isfinite(images) or images <= 0:
        return ""
    for unit, factor in (("s", 1), ("min", 60), ("h", 3600)):
        if images * factor >= 1 or unit == "h":
            break
    value = images * factor
    return f"{value:.0f} images/{unit}" if value >= 10 else f"{value:.1f} images/{unit}"
