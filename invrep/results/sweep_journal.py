"""Read the status of a multirun's jobs: ``<sweep folder>/jobs/<number>.yaml``, one file for each job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

JOBS = "jobs"


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
