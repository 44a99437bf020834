"""Write the status file of a multirun's job into its sweep's folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from invrep.errors import LayerError
from invrep.jobs.ranks import launched
from invrep.results.atomic_files import atomic
from invrep.results.sweep_journal import BEGUN, ENDED, JOBS, note_time


def in_multirun() -> bool:
    """Return whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name() -> str | None:
    """Return the name of the multirun's folder; None outside a multirun."""
    return Path(HydraConfig.get().sweep.dir).name if in_multirun() else None


@contextmanager
def noted() -> Iterator[Callable[[Path], None]]:
    """Write the status of a job inside this context: ``running``, then ``done`` or ``failed`` with the reason.

    Only a multirun's jobs write it, and among several ranks only rank 0.

    Yields:
        A function that adds the job's folder of results to the file.
    """
    rank = launched()
    if not in_multirun() or (rank is not None and rank.index > 0):
        yield lambda _: None
        return
    hydra = HydraConfig.get()
    sweep, overrides = Path(hydra.sweep.dir), list(hydra.overrides.task)
    path = sweep / JOBS / f"{hydra.job.num:03d}.yaml"
    command = shlex.join(["python", "train.py", *overrides])
    note: dict[str, Any] = {"overrides": overrides, "values": _values(overrides), "command": command}
    note |= {"folder": None, "status": "running", "message": None}

    def write(**news: str | None) -> None:
        note.update(news)
        atomic(path, lambda beside: OmegaConf.save(OmegaConf.create(note), beside))

    def tell(folder: Path) -> None:
        write(folder=Path(os.path.relpath(folder, sweep)).as_posix())

    write()
    note_time(sweep, hydra.job.num, BEGUN)
    try:
        yield tell
    except BaseException as error:
        reason = "no such layer" if isinstance(error, LayerError) else "failed"
        write(status="failed", message=str(error) or type(error).__name__, reason=reason)
        raise
    else:
        write(status="done")
    finally:
        note_time(sweep, hydra.job.num, ENDED)


def _values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values that overrides set, by dotted key."""
    found: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        found |= _flat(str(override.package or override.key_or_group), override.value())
    return found


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, inner in value.items() for k, v in _flat(f"{key}.{name}", inner).items()}
