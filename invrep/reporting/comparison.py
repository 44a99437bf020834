"""Finished jobs side by side: which there are, what differs between them, and how good they are on average."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from invrep.data.batching import Key
from invrep.errors import InvrepError
from invrep.results.store import Results
from invrep.results.sweep_journal import JOBS, SweptJob, swept

PRESETS = ("rep", "layer", "objective", "prior", "optim")  # by their names in a config's ``used``
# what changes only how a job runs or is shown, or how much of it there is
UNRELATED = re.compile(
    r"used|provenance|name|output|restarts|trainer|logger|display|log_every|images_every|dry_run|save_codes|video"
    r"|checkpoint|data\.(limit|batch_size)"
)
MEASURES = (
    *("error", "root_error", "pairwise_error", "activation", "psnr", "ssim", "energy"),
    *("class_kept", "class_probability", "passes", "seconds"),
)


@dataclass
class Run:
    """A job, finished or not.

    Attributes:
        results: its folder.
        job: what its sweep knows of it; None for a folder by itself.
        point: what tells it from the other jobs, filled in by :func:`compare`: a config key → its value.
    """

    results: Results
    job: SweptJob | None = None
    point: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``done``, ``running`` or ``failed``."""
        return self.job.status if self.job else "done"

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The resolved config with its provenance, as data; None where the job failed before it had one."""
        return self.results.read_config()

    @cached_property
    def used(self) -> Mapping[str, Any]:
        """What presets and automatic values came to; see the config's ``used``."""
        found = {"rep": None, "layer": None} | ((self.config or {}).get("used") or {})
        if self.config is not None and found["rep"] is None:
            found |= {"rep": self.config.get("name"), "layer": self.config.get("layer")}
        return found

    @cached_property
    def rows(self) -> dict[Key, dict[str, Any]]:
        """The rows of ``metrics.csv``."""
        return self.results.rows()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What may tell this job from another one: presets by their names, then every value of its config."""
        if self.config is None:
            return {} if self.job is None else dict(self.job.values)
        named = {key: self.used[key] for key in PRESETS if self.used.get(key) is not None}
        flat = dict(_flat(self.config))
        return named | {key: value for key, value in flat.items() if not UNRELATED.match(key)} | named

    @cached_property
    def shows(self) -> str:
        """What the objective is judged by, ``error`` or ``activation``."""
        return "activation" if any("activation" in row for row in self.rows.values()) else "error"

    @cached_property
    def means(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each measure over photos and restarts; NaN for that of a single one."""
        found = {}
        rows = [row for row in self.rows.values() if not row.get("remark")]
        layers = dict.fromkeys(name for row in rows for name in row if name.startswith("error/"))
        for name in (*MEASURES, *layers):
            values = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
            if values:
                std = statistics.stdev(values) if len(values) > 1 else math.nan
                found[name] = (statistics.fmean(values), std)
        spreads = self.results.spreads().values()
        for name in ("spread_ssim", "spread_lpips", "spread_code"):
            values = [row[name] for row in spreads if not math.isnan(row[name])]
            if values:
                found[name] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
        return found


def find_runs(places: Iterable[Path]) -> list[Run]:
    """Return the jobs in some folders, each once, in the order in which they are found.

    Args:
        places: each the folder of a job; that of a sweep, with a file in ``jobs/`` for each job; or one that holds
            folders of jobs, such as ``outputs``.

    Raises:
        InvrepError: there is no such folder, or no job in it.
    """
    found: dict[Path, Run] = {}
    for place in places:
        if not place.is_dir():
            raise InvrepError(f"There is no folder {place}; give folders of jobs or of a sweep, or the outputs folder.")
        runs = sweep_runs(place) or _jobs(place)
        if not any(run.rows for run in runs):
            raise InvrepError(
                f"No job is in {place}; expected one of outputs/REP-LAYER-HASH, outputs/sweeps/TIME or outputs, with "
                f"at least one pre-image finished."
            )
        for run in runs:
            found.setdefault(run.results.folder.resolve(), run)
    return list(found.values())


def _jobs(place: Path) -> list[Run]:
    folders = [place] if (place / "config.yaml").is_file() else sorted(p.parent for p in place.glob("*/config.yaml"))
    return [run for run in map(Run, map(Results, folders)) if run.rows]


def sweep_runs(place: Path) -> list[Run]:
    """Return the jobs of a sweep, failed ones too, by the word that they have left in its folder; none without.

    Of jobs that share a folder (``restarts=1,3`` extends it) the last one stands for all.

    Raises:
        InvrepError: a file in ``jobs/`` is not what a job leaves.
    """
    try:
        jobs = swept(place)
    except (YAMLError, OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise InvrepError(f"{place / JOBS} holds what is no file of a sweep's job: {first}") from None
    # one that failed before it had a folder has nothing in that of its number
    runs = [Run(Results(job.folder or place / JOBS / str(job.number)), job) for job in jobs]
    return list({run.results.folder: run for run in runs}.values())


def _flat(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def compare(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return what was swept: the config's keys whose values differ between jobs, with the values in order.

    A key that follows from those before it is left out (of ``rep=hog,dsift`` all of ``rep.…``). Jobs that no key tells
    apart are told apart by ``folder``. Every run's ``point`` is filled in.

    The values of layers are in the order of their receptive fields, numbers by size, and all others as they come.
    """
    keys: list[str] = []
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        telling = [run for run in runs if run.config is not None or key in run.settings]
        if len({_same(run.settings.get(key)) for run in telling}) > 1 and not _follows(key, keys, telling):
            keys.append(key)
    for run in runs:
        run.point = {key: run.settings.get(key) for key in keys}
    if len({_same(run.point) for run in runs}) < len(runs):
        keys.append("folder")
        for run in runs:
            run.point["folder"] = str(run.results.folder)
    return {key: _ordered(key, runs) for key in keys}


def _follows(key: str, chosen: Sequence[str], runs: Sequence[Run]) -> bool:
    """Return whether the values of the chosen keys, if there are any, tell that of another."""
    seen: dict[Hashable, Hashable] = {}
    for run in runs:
        at, value = tuple(_same(run.settings.get(k)) for k in chosen), _same(run.settings.get(key))
        if seen.setdefault(at, value) != value:
            return False
    return True


def _same(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _ordered(key: str, runs: Sequence[Run]) -> list[Any]:
    values = {_same(run.point.get(key)): run.point.get(key) for run in runs}
    found = list(values.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        return sorted(found)
    if key == "layer":
        fields = {_same(run.point.get(key)): run.used.get("receptive_field") for run in runs if run.config is not None}
        # a field that is the whole image is the largest; layers of one field stay as they come
        found.sort(key=lambda value: fields.get(_same(value)) or math.inf)
    return found


def words(value: Any) -> str:
    """Return a config's value as people write it on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
