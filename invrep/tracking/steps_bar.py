"""Show the progress of counted work, stage after stage: a bar, or a line every half minute, with the time left."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.live import Live

from invrep.reporting.terminal import is_live
from invrep.tracking.bar_text import Line, Parts, about, clock, joined
from invrep.tracking.progress import QUIET_SECONDS


class StepsBar:
    """Draw a bar over the steps of a stage, inside a context; a new stage begins a new bar.

    Args:
        console: console on which the bar is drawn.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.line = console, Line()
        self.live = Live(self.line, console=console, transient=True) if is_live(console) else None
        self._stage, self._from, self._began, self._told = "", 0, 0.0, 0.0

    def __enter__(self) -> StepsBar:
        if self.live is not None:
            self.live.start()
            self.console.show_cursor()  # a process that is killed could not bring it back
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage.

        Args:
            stage: what is counted, such as ``photos``.
            done: number of steps done, among them those of an earlier process at the stage's first call.
            total: number of all steps.
        """
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._from, self._began, self._told = stage, done, now, now
        here = done - self._from
        left = (total - done) * (now - self._began) / here if here else math.nan
        remains = f"{clock(left)} left" if clock(left) else ""
        self.line.parts, self.line.share = Parts(image=f"{stage} {done}/{total}", left=remains), done / max(total, 1)
        if self.live is None and now - self._told >= QUIET_SECONDS:
            self._told = now
            said = [f"{stage} {done}/{total}", f"{about(left)} left" if remains else ""]
            self.console.print(joined(said), soft_wrap=True, markup=False)
