"""Compare two methods on the same photos."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from invrep.errors import InvrepError
from invrep.evaluation.intervals import RESAMPLES, bootstrap_interval
from invrep.validation import choice

TESTS = ("permutation", "sign")


@dataclass(frozen=True)
class Paired:
    """Hold the comparison of two methods on n photos.

    Attributes:
        n: number of photos that both have.
        difference: mean over photos of the first method's value less the second's.
        interval: 95 % bootstrap interval of the difference; None for one photo.
        lower: number of photos on which the first method's value is lower.
        higher: number of photos on which it is higher.
        test: ``permutation`` or ``sign``.
        p: two-sided probability of so large a difference, or of so uneven a count, if the methods were alike.
    """

    n: int
    difference: float
    interval: tuple[float, float] | None
    lower: int
    higher: int
    test: str
    p: float


def photo_means(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Return the mean of a column over the restarts of each photo, by image id; blank and infinite values are left out.

    Args:
        rows: rows of ``metrics.csv`` or ``certificate.csv``, with ``image``.
        name: name of the column.
    """
    photos: dict[str, list[float]] = {}
    for row in rows:
        value = row.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            photos.setdefault(row["image"], []).append(value)
    return {image: statistics.fmean(values) for image, values in photos.items()}


def compare_paired(first: Mapping[str, float], second: Mapping[str, float], *, test: str = "permutation") -> Paired:
    """Compare two methods photo by photo; photos that one of them lacks are left out.

    Args:
        first: value of the first method for each photo, restarts averaged (:func:`photo_means`).
        second: values of the second method.
        test: ``permutation`` exchanges the two values of photos at random, 10 000 times, or in every way for at most
            13 photos; ``sign`` counts the photos on which the first method is lower, without ties.

    Raises:
        InvrepError: the methods have no photo in common, or there is no such test.
    """
    choice("test", test, TESTS)
    images = [image for image in first if image in second]
    if not images:
        raise InvrepError("The two have no photo in common; compare jobs of the same data.path.")
    values = np.array([first[image] - second[image] for image in images])
    lower, higher = int((values < 0).sum()), int((values > 0).sum())
    p = _sign(lower, higher) if test == "sign" else _permuted(values)
    return Paired(len(images), float(values.mean()), bootstrap_interval(values.tolist()), lower, higher, test, p)


def _sign(lower: int, higher: int) -> float:
    return float(stats.binomtest(lower, lower + higher).pvalue) if lower + higher else 1.0


def _permuted(values: Sequence[float] | np.ndarray) -> float:
    if len(values) < 2:
        return 1.0
    found = stats.permutation_test(
        (np.asarray(values),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=max(1, 2**22 // len(values)),
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
