"""Pair the jobs of two folders, for ``invrep compare``: two jobs, or the jobs of two sweeps at equal swept values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invrep.errors import InvrepError
from invrep.messages import count
from invrep.reporting.comparison import SYMBOLS, Run, compare, find_runs, words

CODE = ("rep", "layer", "data.color", "data.resize", "objective")  # keys that change the code which is matched


@dataclass(frozen=True)
class Pair:
    """Hold two jobs that are compared.

    Attributes:
        at: values of the swept keys, which are equal in both; empty for two single jobs.
        first: job of the first folder.
        second: job of the second folder.
    """

    at: Mapping[str, Any]
    first: Run
    second: Run

    @property
    def name(self) -> str:
        """Return the swept values as text, such as ``layer relu4``."""
        return named(self.at)

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Return the settings in which the jobs differ, each with the first job's and the second job's value."""
        apart = Run(self.first.results), Run(self.second.results)  # outside their sweeps every difference counts
        return {key: (apart[0].point[key], apart[1].point[key]) for key in compare(apart) if key != "folder"}

    def other_code(self) -> list[str]:
        """Return the settings by which the jobs match different codes."""
        return [key for key in self.differences() if any(key == name or key.startswith(f"{name}.") for name in CODE)]


def paired_jobs(first: Path, second: Path) -> tuple[list[Pair], list[str]]:
    """Return pairs of jobs with equal swept values, and a sentence for each job without a partner.

    Args:
        first: folder of a job or of a sweep.
        second: folder that the first is compared with.

    Raises:
        InvrepError: a folder holds no job, the folders are one, or the sweeps vary different keys.
    """
    if first.resolve() == second.resolve():
        raise InvrepError(f"{first} is given twice; give two jobs or two sweeps: invrep compare A B.")
    sides = [find_runs([place]) for place in (first, second)]
    keys = [list(compare(runs)) for runs in sides]
    sizes = [len(runs) for runs in sides]
    if sizes != [1, 1] and 1 in sizes and [] in keys:
        raise InvrepError(
            f"{first} holds {count(sizes[0], 'job')} and {second} {count(sizes[1], 'job')}; give two jobs, or two "
            "sweeps over equal keys."
        )
    if set(keys[0]) != set(keys[1]):
        said = [", ".join(some) or "nothing" for some in keys]
        raise InvrepError(
            f"{first} varies {said[0]}, and {second} varies {said[1]}; give two jobs, or two sweeps over equal keys."
        )
    partners = {_place(run.point): run for run in sides[1]}
    pairs, alone = [], []
    for run in sides[0]:
        partner = partners.pop(_place(run.point), None)
        if partner is None:
            alone.append(f"{named(run.point)} is a job of A only, and left out.")
        else:
            pairs.append(Pair(dict(run.point), run, partner))
    alone += [f"{named(run.point)} is a job of B only, and left out." for run in partners.values()]
    if not pairs:
        raise InvrepError(f"No job of {first} has the {' and '.join(keys[0])} of a job of {second}.")
    return pairs, alone


def named(values: Mapping[str, Any]) -> str:
    """Return settings as text: ``layer relu4, λ_V 5``."""
    return ", ".join(f"{SYMBOLS.get(key, key)} {words(value)}" for key, value in values.items())


def differing(pairs: Sequence[Pair]) -> list[str]:
    """Return a phrase for each setting in which A and B differ, with its values if they are the same in all pairs."""
    found: dict[str, set[tuple[str, str]]] = {}
    for pair in pairs:
        for key, (one, other) in pair.differences().items():
            found.setdefault(key, set()).add((words(one), words(other)))
    texts = {key: " against ".join(*ways) if len(ways) == 1 else "varies" for key, ways in found.items()}
    return [f"{SYMBOLS.get(key, key)} {text}" for key, text in texts.items()]


def _place(point: Mapping[str, Any]) -> str:
    return json.dumps(point, sort_keys=True, default=str)
