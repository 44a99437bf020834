"""Show a job's progress: a bar, or a line every half minute, with the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
from rich.console import Console
from rich.live import Live

from invrep.inversion.module import Inversion
from invrep.messages import count
from invrep.reporting.terminal import is_live
from invrep.tracking.bar_text import Line, Parts, about, clock, joined, speed, which_images

QUIET_SECONDS = 30  # seconds between two lines of progress without a terminal


def worded(shows: str, value: float) -> str:
    """Return a value as text: an error in percent, an activation with four digits."""
    return f"{100 * value:.2f} %" if shows == "error" else f"{value:.4g}"


class Report(NamedTuple):
    """Report the progress of a process. The unit of work is one pixel in one pass.

    Attributes:
        done: work done, in pixels times passes.
        resumed: part of ``done`` that an earlier process did and a checkpoint kept.
        value: mean error or activation of the current batch; NaN before its first pass.
        shows: name of ``value``, ``error`` or ``activation``.
        compiling: bool; True while torch.compile runs.
        compiled: time that torch.compile has taken, in seconds.
        place: pass of the current batch, as text.
        images: first and last image of the current batch among those of the process, from 1; (0, 0) if unknown.
    """

    done: float
    resumed: float
    value: float
    shows: str
    compiling: bool
    compiled: float
    place: str = ""
    images: tuple[int, int] = (0, 0)


class Ticks(pl.Callback):
    """Report the progress of a process a few times a second.

    Args:
        report: function of a :class:`Report`.
    """

    def __init__(self, report: Callable[[Report], None]) -> None:
        super().__init__()
        self.report = report
        self.images = (0, 0)  # first and last image of the current batch, from 1
        self.done = self.resumed = self.compiled = 0.0
        self.within = 0.0  # work done in the current batch
        self._since: float | None = None  # start of torch.compile, in seconds of the monotonic clock

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Register the report as the inversion's ``on_tick``."""
        pl_module.on_tick = self._tell

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count the work in a resumed checkpoint as done, but not as work of this process."""
        work = self._work(pl_module)
        self.resumed += max(work - self.within, 0.0)
        self.within = work

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count the batch as done."""
        pl_module.on_tick = None
        self.within = self._work(pl_module, max(pl_module.steps, 1))  # a baseline's picture counts as one pass
        if pl_module.last:
            self.done, self.within = self.done + self.within, 0.0
        self._tell(pl_module, ended=True)

    def _work(self, inversion: Inversion, passes: int | None = None) -> float:
        height, width = inversion.size
        passes = min(inversion.passes, inversion.steps) if passes is None else passes
        return passes * len(inversion.image) * height * width

    def _tell(self, inversion: Inversion, *, ended: bool = False) -> None:
        now = time.monotonic()
        if inversion.compiling and self._since is None:
            self._since = now
        elif not inversion.compiling and self._since is not None:
            self.compiled, self._since = self.compiled + now - self._since, None
        self.within = self.within if ended else self._work(inversion)
        shows = inversion.objective.shows
        values = inversion.latest[shows][inversion.counted] if shows in inversion.latest else None
        value = math.nan if values is None or not len(values) else float(values.mean())
        done, place = self.done + self.within, "" if inversion.still else f"pass {inversion.passes}/{inversion.steps}"
        self.report(Report(done, self.resumed, value, shows, inversion.compiling, self.compiled, place, self.images))


class Bar(Ticks):
    """Draw a bar over all passes of all images of a job, with the error, the speed and the time left.

    Without a terminal (a file, SLURM), it prints a line every half minute instead. The time left is extrapolated from
    the work that the job's processes have done, without the time of torch.compile.

    Args:
        total: work of the whole job, in pixels times passes.
        console: console on which the bar is drawn.
        images: number of the job's images; 0: neither a count of images nor their speed is shown.
        job: which job of a sweep, such as ``job 2/5``; empty outside a sweep.
        of_sweep: function from the time left of this job to that of the sweep, in seconds, NaN if unknown; None outside
            a sweep.
        alone: bool; False if other processes draw on the same terminal, where a bar would overwrite their lines.
    """

    def __init__(
        self,
        total: float,
        console: Console,
        *,
        images: int = 0,
        job: str = "",
        of_sweep: Callable[[float], float] | None = None,
        alone: bool = True,
    ) -> None:
        super().__init__(lambda report: self.tick(None, report))
        self.console, self.total, self.count = console, total, images
        self.job, self.of_sweep = job, of_sweep
        self.ranks: dict[int | None, Report] = {}
        self.began = self.last_line = time.monotonic()
        self.line = Line()
        self.live = Live(self.line, console=console, transient=True) if alone and is_live(console) else None

    def __enter__(self) -> Bar:
        if self.live is not None:
            self.live.start()
            self.console.show_cursor()  # a process that is killed or stopped by Ctrl-Z could not bring it back
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def tick(self, rank: int | None, report: Report) -> None:
        """Show the progress of a rank.

        Args:
            rank: number of the rank; None: this process.
            report: progress of that rank.
        """
        news = report.compiling and not (rank in self.ranks and self.ranks[rank].compiling)
        self.ranks[rank] = report
        compiling = all(other.compiling for other in self.ranks.values())
        self._draw(self._parts(compiling), now=news and compiling)

    def left(self) -> float:
        """Return the time left in seconds; NaN before this launch has done any work."""
        return (self.total - self._done()) / self._speed()

    def _done(self) -> float:
        return sum(report.done for report in self.ranks.values())

    def _speed(self) -> float:
        """Return the work of this launch in a second; NaN at its start."""
        reports = self.ranks.values()
        spent = time.monotonic() - self.began - sum(report.compiled for report in reports) / max(len(reports), 1)
        work = self._done() - sum(report.resumed for report in reports)
        return work / spent if spent > 0 and work > 0 else math.nan

    def _parts(self, compiling: bool) -> Parts:
        """Return the parts of the line; while all ranks compile, nothing is known of the time left."""
        reports = list(self.ranks.values())
        image, place = self._image(), reports[0].place if len(reports) == 1 else ""
        if compiling:
            return Parts(self.job, image, value="compiling")
        values = [report.value for report in reports if not math.isnan(report.value)]
        value = f"{reports[0].shows} {worded(reports[0].shows, sum(values) / len(values))}" if values else ""
        rate, left = speed(self._speed() * self.count / max(self.total, 1)), self.left()
        sweep = "" if self.of_sweep is None else clock(self.of_sweep(left))
        remains = f"{clock(left)} left" if clock(left) else ""
        more = f"sweep {sweep}" if sweep not in ("", clock(left)) else ""  # the last job ends with the sweep
        return Parts(self.job, image, place, value, rate, remains, more)

    def _image(self) -> str:
        """Return which image this process inverts, or how many images several ranks have done."""
        if None not in self.ranks:
            done = sum(max(report.images[0] - 1, 0) for report in self.ranks.values())
            return f"{count(len(self.ranks), 'rank')}, {done}/{self.count} images"
        return which_images(self.ranks[None].images, self.count)

    def _draw(self, parts: Parts, *, now: bool) -> None:
        self.line.parts, self.line.share = parts, self._done() / max(self.total, 1)
        now = now or time.monotonic() - self.last_line >= QUIET_SECONDS
        if self.live is None and now:
            self.last_line = time.monotonic()
            left = about(self.left()) if parts.left else ""
            sweep = about(self.of_sweep(self.left())) if parts.sweep and self.of_sweep is not None else ""
            said = [*parts[:5], f"{left} left" if left else "", f"sweep {sweep}" if sweep else ""]
            self.console.print(joined(said), soft_wrap=True, markup=False, highlight=False)
