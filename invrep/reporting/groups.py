"""Group jobs that share what they invert and how, for a page of mixed jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invrep.reporting.comparison import BROUGHT, SYMBOLS, Run, compare, one_sweep, words

MOST_KEYS = 3  # keys in which the jobs of one group may differ before they are divided
SHARED = ("rep", "objective", "prior", "optim", "data.path")  # keys that the jobs of a group share


@dataclass(frozen=True)
class Group:
    """Hold jobs that are compared with each other.

    Attributes:
        title: what all jobs share, and the keys in which they differ.
        runs: jobs, at least one.
        swept: values of each key in which they differ, see :func:`~invrep.reporting.comparison.compare`.
    """

    title: str
    runs: Sequence[Run]
    swept: Mapping[str, Sequence[Any]]


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return groups of jobs, the latest first: one group for a sweep, and for jobs that differ in few keys.

    Other jobs are divided by representation, objective, prior, optimiser and folder of photos. Representations with a
    single job share a group. Every run's ``point`` is filled in.

    Args:
        runs: jobs, at least one.
    """
    swept = compare(runs)
    differing = [key for key in SHARED if len({words(run.settings.get(key)) for run in runs}) > 1]
    if len({*swept, *differing}) <= MOST_KEYS or one_sweep(runs):
        return [Group(title_of(runs, swept), runs, swept)]
    parts: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=_time, reverse=True):
        parts.setdefault(tuple(words(run.settings.get(key)) for key in SHARED), []).append(run)
    single: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for shared in [shared for shared, some in parts.items() if len(some) == 1]:
        single.setdefault(("", *shared[1:]), []).append(shared)
    for rest, alone in single.items():
        if len(alone) > 1:
            parts[rest] = [run for shared in alone for run in parts.pop(shared)]
    groups = []
    for shared, some in sorted(parts.items(), key=lambda part: -_time(part[1][0])):
        others = [other for other in parts if other[0] == shared[0] and other != shared]
        telling = [k for k in range(1, len(SHARED)) if any(other[k] != shared[k] for other in others)]
        same = [f"{SYMBOLS.get(SHARED[k], SHARED[k])} {shared[k]}" for k in telling]
        swept = compare(some)
        groups.append(Group(title_of(some, swept, same), some, swept))
    return groups


def title_of(runs: Sequence[Run], swept: Mapping[str, Sequence[Any]], same: Sequence[str] = ()) -> str:
    """Return a title: the representation and layer that all jobs share, what else is told, and the keys that differ.

    Args:
        runs: jobs.
        swept: values of each key in which they differ.
        same: further words on what they share.
    """
    known = [run.used for run in runs if run.config is not None] or [runs[0].used]
    values = [{words(used.get(key)) for used in known} for key in ("rep", "layer")]
    shared = " ".join(value for some in values if len(some) == 1 for value in some if value != "none")
    first = ", ".join(filter(None, [shared, *same]))
    names = [SYMBOLS.get(key, key) for key in swept]
    if not names:
        return first or "invrep"
    if len(names) > MOST_KEYS:
        names = [*names[: MOST_KEYS - 1], f"{len(names) - MOST_KEYS + 1} more"]
    return f"{first or 'Pre-images'} by {' and '.join([', '.join(names[:-1]), names[-1]][len(names) == 1 :])}"


def apart(runs: Sequence[Run], keys: Sequence[str]) -> list[list[int]]:
    """Return for each job and key a number that is equal for jobs that differ in this key alone.

    A line of a plot joins such jobs only. The jobs of a sweep count as such: what differs besides belongs to the sweep.

    Args:
        runs: jobs of a group.
        keys: keys in which they differ.
    """
    if one_sweep(runs):
        return [[0] * len(keys) for _ in runs]
    numbers: list[dict[str, int]] = [{} for _ in keys]
    return [
        [found.setdefault(_without(run, key), len(found)) for key, found in zip(keys, numbers, strict=True)]
        for run in runs
    ]


def _without(run: Run, key: str) -> str:
    """Return a job's settings as text, without a key and the keys that it brings along, as ``rep`` brings ``rep.…``."""
    brought = BROUGHT.get(key, ())
    kept = {name: value for name, value in run.settings.items() if name != key and not name.startswith(brought)}
    return repr(sorted((name, words(value)) for name, value in kept.items()))


def _time(run: Run) -> float:
    """Return the time of a job's last start, in seconds; 0 before it has a config."""
    return run.results.config.stat().st_mtime if run.results.config.is_file() else 0.0
