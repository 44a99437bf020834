"""Read the status of a multirun's jobs: ``<sweep folder>/jobs/<number>.yaml``, one file for each job.

``jobs/times.txt`` says how many jobs there are and which keys they differ in. Each job appends a line when it begins,
when it begins to invert, and when it ends. So a job of thousands learns the time left from one small file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

JOBS = "jobs"
TIMES = "times.txt"
BEGUN, INVERTING, ENDED = "begun", "inverting", "ended"  # events in the file of times


@dataclass(frozen=True)
class SweptJob:
    """Describe a job of a multirun.

    Attributes:
        number: place in the sweep, from 0.
        overrides: overrides of the job, ``key=value``.
        values: values that the overrides set, by dotted key: ``cell={layer:fc8}`` sets ``cell.layer``.
        folder: folder of its results; None where the job failed before it had one.
        status: ``running``, ``done`` or ``failed``.
        message: reason of a failure, as a sentence; otherwise empty.
        reason: reason of a failure in one to three words, for a table's cell.
    """

    number: int
    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    folder: Path | None
    status: str
    message: str
    reason: str = "failed"


def swept(folder: Path) -> list[SweptJob]:
    """Return the jobs with a status file in a sweep's folder, in the order of their numbers."""
    jobs = []
    for path in sorted((folder / JOBS).glob("*.yaml"), key=lambda path: int(path.stem)):
        note = yaml.safe_load(path.read_text(encoding="utf-8"))
        place = None if note["folder"] is None else Path(os.path.normpath(folder / note["folder"]))
        known = (int(path.stem), tuple(note["overrides"]), note["values"], place)
        jobs.append(SweptJob(*known, note["status"], note["message"] or "", note.get("reason") or "failed"))
    return jobs


def forget(folder: Path) -> None:
    """Remove the status files of an earlier multirun in the same folder; results stay."""
    shutil.rmtree(folder / JOBS, ignore_errors=True)


def announce(folder: Path, jobs: int, keys: Sequence[str]) -> None:
    """Begin the file of times of a multirun.

    Args:
        folder: folder of the sweep.
        jobs: number of its jobs.
        keys: dotted keys in which the jobs differ.
    """
    place = folder / JOBS
    place.mkdir(parents=True, exist_ok=True)
    (place / TIMES).write_text(json.dumps({"jobs": jobs, "keys": list(keys)}) + "\n", encoding="utf-8")


def note_time(folder: Path, number: int, event: str) -> None:
    """Append an event of a job to the file of times, if the multirun has one.

    Args:
        folder: folder of the sweep.
        number: place of the job in the sweep, from 0.
        event: ``BEGUN``, ``INVERTING`` or ``ENDED``.
    """
    path = folder / JOBS / TIMES
    if path.is_file():
        # the times are a convenience, so that no fault of the disk may end a job
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(f"{number} {event} {time.time():.1f}\n")


@dataclass
class Times:
    """Hold the times of a multirun's jobs.

    Attributes:
        jobs: number of jobs.
        keys: dotted keys in which they differ.
        events: time of each event of a job, in seconds of the epoch, by the job's number.
    """

    jobs: int
    keys: tuple[str, ...]
    events: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def spent(self) -> list[float]:
        """Return the seconds of each ended job that has inverted something; others were finished before."""
        ended = [times for times in self.events.values() if ENDED in times and INVERTING in times]
        return [times[ENDED] - times[BEGUN] for times in ended if BEGUN in times]

    def left(self, number: int, own: float) -> float:
        """Return the seconds until all jobs are done; NaN before a first one has ended.

        Jobs that run at once share the work that is left.

        Args:
            number: number of the asking job.
            own: seconds that it still takes; NaN: as many as a mean job.
        """
        if not self.spent:
            return math.nan
        mean, now = sum(self.spent) / len(self.spent), time.time()
        own = mean if math.isnan(own) else own
        others = {other: times for other, times in self.events.items() if ENDED not in times and other != number}
        waiting = max(self.jobs - len(self.events.keys() | {number}), 0)
        rest = sum(max(mean - (now - times.get(BEGUN, now)), 0.0) for times in others.values())
        return max((own + rest + waiting * mean) / (1 + len(others)), own)


def times(folder: Path) -> Times | None:
    """Return the times of a multirun's jobs; None if its number of jobs is unknown."""
    try:
        first, *lines = (folder / JOBS / TIMES).read_text(encoding="utf-8").splitlines()
        head = json.loads(first)
        found = Times(int(head["jobs"]), tuple(head["keys"]))
    except (OSError, ValueError, LookupError):
        return None
    for line in lines:
        # two machines may write at once, and a killed one half a line
        with contextlib.suppress(ValueError):
            number, event, at = line.split()
            found.events.setdefault(int(number), {})[event] = float(at)
    return found
