"""Compare finished jobs: find them, find the settings in which they differ, and average their measures."""

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
from invrep.evaluation.certificate.columns import HEADINGS
from invrep.evaluation.intervals import t_interval
from invrep.results.rows import SPREADS
from invrep.results.store import Results
from invrep.results.sweep_journal import JOBS, SweptJob, swept

PRESETS = ("rep", "layer", "objective", "prior", "optim", "baseline")  # keys of a config's ``used``
# keys that change only how a job runs or is displayed, or its numbers of photos and restarts
UNRELATED = re.compile(
    r"used|provenance|name|output|restarts|trainer|logger|display|log_every|images_every|dry_run|save_codes|video"
    r"|checkpoint|metric|certificate|data\.(limit|batch_size)"
)
# keys whose values another key brings along, as prefixes: a representation has options, layers and colours of its own,
# and a region is one of a layer's positions
BROUGHT = {
    "pictures": ("prior", "optim"),  # of another tool, scored by invrep certify
    "rep": ("rep.", "layer", "data.color", "data.resize"),
    "layer": ("rep.layer", "objective.region", "objective.channels"),
    **{preset: (f"{preset}.",) for preset in ("objective", "prior", "optim", "baseline")},
}
MEASURES = (
    *("error", "root_error", "pairwise_error", "activation", "psnr", "ssim", "energy"),
    *("class_kept", "class_probability", "still_falling", "passes", "seconds"),
)
# columns of certificate.csv that metrics.csv lacks, without those of single layers and networks
CERTIFIED = tuple(name for name in HEADINGS if name not in (*MEASURES, "null_photos"))
# names of keys for people, as the papers write them
SYMBOLS = {
    **{"prior.tv.weight": "λ_V", "prior.tv.beta": "β", "prior.alpha.weight": "λ_α", "objective.weight": "C"},
    **{"optim.steps": "passes", "optim.lr": "rate", "rep": "representation", "data.path": "photos"},
}


@dataclass
class Run:
    """Hold a job, finished or not, with its config and results.

    Attributes:
        results: folder of the job.
        job: status of the job in its sweep; None for a folder without a sweep.
        point: values that distinguish it from the other jobs, by config key; :func:`compare` fills it in.
    """

    results: Results
    job: SweptJob | None = None
    point: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Return the status: ``done``, ``running`` or ``failed``."""
        return self.job.status if self.job else "done"

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """Return the resolved config with its provenance, as plain data; None if the job failed before it had one."""
        return self.results.read_config()

    @cached_property
    def used(self) -> Mapping[str, Any]:
        """Return the chosen presets and the numbers of automatic values, from the config's ``used``."""
        found = {"rep": None, "layer": None} | ((self.config or {}).get("used") or {})
        if self.config is not None and found["rep"] is None:
            found |= {"rep": self.config.get("name"), "layer": self.config.get("layer")}
        return found

    @cached_property
    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the rows of ``metrics.csv``, by image id and restart."""
        return self.results.rows()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the settings that may differ between jobs: presets by name, then every value of the config."""
        if self.config is None:
            return {} if self.job is None else dict(self.job.values)
        named = {key: self.used[key] for key in PRESETS if self.used.get(key) is not None}
        flat = dict(_flat(self.config))
        return named | {key: value for key, value in flat.items() if not UNRELATED.match(key)} | named

    @cached_property
    def shows(self) -> str:
        """Return the objective's main measure, ``error`` or ``activation``."""
        return "activation" if any("activation" in row for row in self.rows.values()) else "error"

    @cached_property
    def means(self) -> dict[str, tuple[float, float]]:
        """Return the mean and standard deviation of each measure over photos and restarts, without remarked rows.

        The standard deviation of a single value is NaN. Spreads are averaged over photos.
        """
        found = {}
        rows = [row for row in self.rows.values() if not row.get("remark")]
        layers = dict.fromkeys(name for row in rows for name in row if name.startswith("error/"))
        for name in (*MEASURES, *layers):
            values = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
            if values:
                std = statistics.stdev(values) if len(values) > 1 else math.nan
                found[name] = (statistics.fmean(values), std)
        for name in CERTIFIED:
            values = [row[name] for row in self.certificates.values() if math.isfinite(row.get(name, math.nan))]
            if values:
                found[name] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
        for name in SPREADS:
            values = [row[name] for row in self.spreads.values() if not math.isnan(row[name])]
            if values:
                found[name] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
        return found

    @cached_property
    def certificates(self) -> dict[Key, dict[str, Any]]:
        """Return the rows of ``certificate.csv``, by image id and restart."""
        return self.results.certificates()

    @cached_property
    def spreads(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``spread.csv``, by image id."""
        return self.results.spreads()

    def interval(self, name: str) -> tuple[float, tuple[float, float] | None] | None:
        """Return the mean over photos and its 95 % interval; None without a value.

        Args:
            name: column of ``metrics.csv``, which is first averaged over a photo's restarts, or of ``spread.csv``. The
                interval is None for one photo, see :func:`~invrep.evaluation.intervals.t_interval`.
        """
        if name in SPREADS:
            values = [row[name] for row in self.spreads.values() if not math.isnan(row[name])]
        else:
            photos: dict[str, list[float]] = {}
            for (image, _), row in self.rows.items():
                if not row.get("remark") and not math.isnan(row.get(name, math.nan)):
                    photos.setdefault(image, []).append(row[name])
            values = [statistics.fmean(restarts) for restarts in photos.values()]
        return (statistics.fmean(values), t_interval(values)) if values else None

    @cached_property
    def passes_to_try(self) -> int | None:
        """Return the median of the passes to try of pre-images whose error is still falling; None without any."""
        found = [row["passes_to_try"] for row in self.rows.values() if row.get("still_falling") == 1]
        return int(statistics.median_low(found)) if found else None


def find_runs(places: Iterable[Path]) -> list[Run]:
    """Return the jobs in some folders, each once, in the order of the folders.

    Args:
        places: folders of jobs; folders of sweeps, with a file in ``jobs/`` for each job; or folders that contain
            folders of jobs, such as ``outputs``.

    Raises:
        InvrepError: a folder does not exist, or has no job with a finished pre-image.
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
    """Return the jobs of a sweep, failed ones too, from their status files; an empty list without such files.

    Jobs may share a folder of results, as those of ``restarts=1,3`` do. The last of them then represents all.

    Raises:
        InvrepError: a file in ``jobs/`` is no status file.
    """
    try:
        jobs = swept(place)
    except (YAMLError, OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise InvrepError(f"{place / JOBS} holds what is no file of a sweep's job: {first}") from None
    # a job that failed before it had a folder gets one that does not exist
    runs = [Run(Results(job.folder or place / JOBS / str(job.number)), job) for job in jobs]
    return list({run.results.folder: run for run in runs}.values())


def _flat(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def compare(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the config keys that differ between jobs, with their values in order, and fill in every run's ``point``.

    A key that earlier keys bring along is left out: for ``rep=hog,dsift`` all of ``rep.…``. In a sweep, whose author
    chose its values, a key is left out if the earlier keys determine its value. If jobs still agree in every key,
    ``folder`` is added. Numbers are ordered by size, layers by their receptive fields, and other values by their
    first occurrence.

    Args:
        runs: jobs to compare.
    """
    keys: list[str] = []
    names = dict.fromkeys(key for run in runs for key in run.settings)
    for key in sorted(names, key=lambda name: name != "pictures"):
        chosen = keys if one_sweep(runs) else [other for other in keys if key.startswith(BROUGHT.get(other, ()))]
        telling = [run for run in runs if run.config is not None or key in run.settings]
        if len({_same(run.settings.get(key)) for run in telling}) > 1 and not _follows(key, chosen, telling):
            keys.append(key)
    for run in runs:
        run.point = {key: run.settings.get(key) for key in keys}
    if len({_same(run.point) for run in runs}) < len(runs):
        keys.append("folder")
        for run in runs:
            run.point["folder"] = str(run.results.folder)
    return {key: _ordered(key, runs) for key in keys}


def one_sweep(runs: Iterable[Run]) -> bool:
    """Return whether all jobs are of a sweep."""
    return all(run.job is not None for run in runs)


def _follows(key: str, chosen: Sequence[str], runs: Sequence[Run]) -> bool:
    """Return whether the values of the chosen keys, at least one, determine another key's value in every run."""
    if not chosen:
        return False
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
        # no number means that the field is the whole image; layers of equal fields keep their order
        found.sort(key=lambda value: fields.get(_same(value)) or math.inf)
    return found


def words(value: Any) -> str:
    """Return a config's value in the syntax of the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
