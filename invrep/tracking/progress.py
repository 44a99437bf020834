"""Show a job's progress: a bar, or a line every half minute, with the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from invrep.inversion.module import Inversion
from invrep.messages import count

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
    """

    done: float
    resumed: float
    value: float
    shows: str
    compiling: bool
    compiled: float
    place: str = ""


class Ticks(pl.Callback):
    """Report the progress of a process a few times a second.

    Args:
        report: function of a :class:`Report`.
    """

    def __init__(self, report: Callable[[Report], None]) -> None:
        super().__init__()
        self.report = report
        self.label = ""  # names the current batch
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
        self.within = self._work(pl_module, pl_module.steps)
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
        done, place = self.done + self.within, f"pass {inversion.passes}/{inversion.steps}"
        self.report(Report(done, self.resumed, value, shows, inversion.compiling, self.compiled, place))


class Bar(Ticks):
    """Draw a bar over all passes of all images of a job, with the error and the time left.

    Without a terminal (a file, SLURM), it prints a line every half minute instead. The time left is extrapolated from
    the work that the job's processes have done, without the time of torch.compile.

    Args:
        total: work of the whole job, in pixels times passes.
        console: console on which the bar is drawn.
    """

    def __init__(self, total: float, console: Console) -> None:
        super().__init__(lambda report: self.tick(None, report))
        self.console = console
        self.ranks: dict[int | None, Report] = {}
        self.total = total
        self.began = self.last_line = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=max(total, 1), state="", left="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def tick(self, rank: int | None, report: Report) -> None:
        """Show the progress of a rank.

        Args:
            rank: number of the rank; None: this process.
            report: progress of that rank.
        """
        news = report.compiling and not (rank in self.ranks and self.ranks[rank].compiling)
        self.ranks[rank] = report
        if rank is not None:
            self.label = count(len(self.ranks), "rank")
        values = [other.value for other in self.ranks.values() if not math.isnan(other.value)]
        state = f"{report.shows} {worded(report.shows, sum(values) / len(values))}" if values else ""
        state = "  ".join(filter(None, (report.place if rank is None else "", state)))
        compiling = all(other.compiling for other in self.ranks.values())
        self._draw("compiling" if compiling else state, now=news and compiling)

    def left(self) -> float:
        """Return the time left in seconds; NaN before this launch has done any work."""
        reports = self.ranks.values()
        done, resumed = sum(report.done for report in reports), sum(report.resumed for report in reports)
        spent = time.monotonic() - self.began - sum(report.compiled for report in reports) / max(len(reports), 1)
        return spent * (self.total - done) / (done - resumed) if done > resumed else math.nan

    def _draw(self, state: str, *, now: bool) -> None:
        done, left, clock = sum(report.done for report in self.ranks.values()), self.left(), time.monotonic()
        known = state != "compiling" and not math.isnan(left)
        self.progress.update(
            self.task,
            completed=done,
            description=self.label,
            state=state,
            left=f"left {timedelta(seconds=round(left))}" if known else "",
        )
        if not self.console.is_terminal and (now or clock - self.last_line >= QUIET_SECONDS):
            self.last_line = clock
            self.console.print(f"{self.label}  {state}{f'  about {left / 60:.1f} min left' if known else ''}")
