"""What the jobs of a multirun leave word of: ``<sweep folder>/jobs/<number>.yaml``, one file for each job."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from invrep.errors import LayerError
from invrep.files import atomic
from invrep.ranks import launched
from invrep.results import Results

JOBS = "jobs"


@dataclass(frozen=True)
class SweptJob:
    """A job of a multirun.

    Attributes:
        number: its place in the sweep, from 0.
        overrides: those of the job, ``key=value``.
        results: its folder; None where it failed before it had one.
        status: ``running``, ``done`` or ``failed``.
        message: why it failed, else nothing.
        reason: the same in a word or three, for a table's cell.
    """

    number: int
    overrides: tuple[str, ...]
    results: Results | None
    status: str
    message: str
    reason: str = "failed"

    @property
    def values(self) -> dict[str, Any]:
        """What the job's overrides set, by dotted key: ``cell={layer:fc8}`` sets ``cell.layer``."""
        found: dict[str, Any] = {}
        for override in OverridesParser.create().parse_overrides(list(self.overrides)):
            found |= _flat(override.key_or_group, override.value())
        return found


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, inner in value.items() for k, v in _flat(f"{key}.{name}", inner).items()}


class Multirun(Callback):
    """Hydra's callback that remembers the multirun which this process runs, for :mod:`invrep.ending`.

    Attributes:
        config: composed for the whole multirun, with its ``hydra`` node; None where there is none.
    """

    config: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remember it; nothing else in this process is told."""
        Multirun.config = config


def in_multirun() -> bool:
    """Return whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def swept(folder: Path) -> list[SweptJob]:
    """Return the jobs that have left word in a sweep's folder, in the order of their numbers."""
    jobs = []
    for path in sorted((folder / JOBS).glob("*.yaml"), key=lambda path: int(path.stem)):
        note = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        results = None if note["folder"] is None else Results(Path(os.path.normpath(folder / note["folder"])))
        known = (int(path.stem), tuple(note["overrides"]), results, note["status"], note["message"] or "")
        jobs.append(SweptJob(*known, note.get("reason") or "failed"))
    return jobs


def forget(folder: Path) -> None:
    """Remove what an earlier multirun in the same folder has left word of; results stay."""
    shutil.rmtree(folder / JOBS, ignore_errors=True)


@contextmanager
def noted() -> Iterator[Callable[[Path], None]]:
    """Leave word that a job runs, then how it has ended; outside a multirun do nothing.

    Yields a function to be told the job's folder of results.
    """
    rank = launched()
    if not in_multirun() or (rank is not None and rank.index > 0):
        yield lambda _: None
        return
    hydra = HydraConfig.get()
    sweep, overrides = Path(hydra.sweep.dir), list(hydra.overrides.task)
    path = sweep / JOBS / f"{hydra.job.num:03d}.yaml"
    command = shlex.join(["python", "train.py", *overrides])
    note = {"overrides": overrides, "folder": None, "status": "running", "message": None, "command": command}

    def write(**news: str | None) -> None:
        note.update(news)
        atomic(path, lambda beside: OmegaConf.save(OmegaConf.create(note), beside))

    def tell(folder: Path) -> None:
        write(folder=Path(os.path.relpath(folder, sweep)).as_posix())

    write()
    try:
        yield tell
    except BaseException as error:
        reason = "no such layer" if isinstance(error, LayerError) else "failed"
        write(status="failed", message=str(error) or type(error).__name__, reason=reason)
        raise
    write(status="done")
