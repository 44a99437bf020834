"""Tell a multirun's job which of how many jobs it is, and how long the whole takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from invrep.jobs.sweep_note import in_multirun
from invrep.results.sweep_journal import INVERTING, Times, note_time, times

ALONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # runs one job after another


@dataclass(frozen=True)
class SweepPlace:
    """Describe the place of this job in its sweep.

    Attributes:
        folder: folder of the sweep.
        number: place of the job, from 0.
        times: times of the jobs when this job began; None if the number of jobs is unknown.
        alone: bool; True if no other job of the sweep writes to the same terminal.
        overrides: overrides of the job.
    """

    folder: Path
    number: int
    times: Times | None
    alone: bool
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """Return the place as ``job 2/5``."""
        return f"job {self.number + 1}" + (f"/{self.times.jobs}" if self.times else "")

    @property
    def what(self) -> str:
        """Return the overrides in which the sweep's jobs differ."""
        keys = set(self.times.keys) if self.times else set()
        parsed = zip(self.overrides, OverridesParser.create().parse_overrides(list(self.overrides)), strict=True)
        some = [
            text.partition("@")[2] if override.package else text  # rep@rep.descriptor was typed as rep.descriptor
            for text, override in parsed
            if not keys or override.get_key_element().lstrip("+") in keys
        ]
        return " ".join(some)

    def left(self, own: float) -> float:
        """Return the seconds until all jobs are done, see :meth:`~invrep.results.sweep_journal.Times.left`."""
        return self.times.left(self.number, own) if self.times else float("nan")

    def invert(self) -> None:
        """Note that this job begins to invert."""
        note_time(self.folder, self.number, INVERTING)


def place_in_sweep() -> SweepPlace | None:
    """Return this job's place in its sweep; None outside a multirun."""
    if not in_multirun():
        return None
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir)
    alone = hydra.launcher._target_ == ALONE
    return SweepPlace(folder, int(hydra.job.num), times(folder), alone, tuple(hydra.overrides.task))
