"""Compare two jobs photo by photo: each measure that both have, on the photos that both have."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invrep.errors import InvrepError
from invrep.evaluation.certificate.columns import HEADINGS, worded
from invrep.evaluation.paired import Paired, compare_paired, photo_means
from invrep.messages import count
from invrep.reporting.comparison import CERTIFIED, Run
from invrep.reporting.paired_jobs import Pair
from invrep.results.rows import SPREADS

CLOSE = 0.1  # errors are equal that differ by at most this part of the larger
MEASURED = ("error", "activation", "psnr", "ssim", "class_kept", "class_probability")
COST = ("passes", "seconds")
# columns that say something about the photo or the other photos alone
OF_THE_PHOTO = ("null_rho", "null_r2", "null_snr_db", "photo_gradient_distance")
LOWER = (
    *("error", "null_percentile", "shift_equivalent", "noise_equivalent", "held_out", "other_percentile", "lpips"),
    *("gradient_distance", *COST),
)
HIGHER = (
    *("activation", "psnr", "ssim", "class_kept", "class_probability", "jpeg_equivalent", "rho", "r2", "snr_db"),
    "other_class_kept",
)
NAMES = {
    **{"class_kept": "class kept", "class_probability": "class's probability", "spread_ssim": "1 − SSIM of restarts"},
    **{"spread_lpips": "LPIPS of restarts", "spread_code": "codes' spread of restarts"},
}


@dataclass(frozen=True)
class Compared:
    """Hold a measure of two jobs on the photos that both have.

    Attributes:
        name: column of ``metrics.csv``, ``certificate.csv`` or ``spread.csv``.
        first: mean of the first job over these photos, restarts averaged first.
        second: mean of the second job.
        paired: the comparison photo by photo.
    """

    name: str
    first: float
    second: float
    paired: Paired

    @property
    def heading(self) -> str:
        """Return the measure's name for people."""
        return NAMES.get(self.name) or HEADINGS.get(self.name, self.name)

    @property
    def wins(self) -> tuple[int, int] | None:
        """Return on how many photos the first and the second job is better; None where neither side is better.

        A tie is a win of neither. A denoiser's residual and a spread of restarts have no better side.
        """
        found = self.paired
        if self.name in LOWER:
            return found.lower, found.higher
        return (found.higher, found.lower) if self.name in HIGHER else None

    def text(self, value: float) -> str:
        """Return a value of the measure as text, with its unit where the heading has none."""
        return f"{100 * value:.3g} %" if self.name == "class_kept" else worded(self.name, value)


@dataclass(frozen=True)
class Comparison:
    """Hold two jobs' comparison.

    Attributes:
        pair: the jobs.
        measures: a comparison for each measure that both have; empty if no photo is left.
        notes: sentences: whether the code errors are equal, and what is left out.
    """

    pair: Pair
    measures: Sequence[Compared]
    notes: Sequence[str]


def compare_jobs(pair: Pair, *, at_equal_error: bool = False, test: str = "permutation") -> Comparison:
    """Compare two jobs on the photos that both have finished.

    Args:
        pair: two jobs with rows.
        at_equal_error: whether to compare on photos alone whose code errors, averaged over restarts, agree within 10 %.
        test: ``permutation`` or ``sign``, see :func:`invrep.evaluation.paired.compare_paired`.

    Raises:
        InvrepError: the jobs have no photo in common, or ``at_equal_error`` is asked of jobs without a code error.
    """
    images, notes = _common(pair)
    errors = [photo_means(_kept(side, images), "error") for side in (pair.first, pair.second)]
    close = {image for image in images if image in errors[0] and image in errors[1] and _close(errors, image)}
    both = [image for image in images if image in errors[0] and image in errors[1]]
    if at_equal_error and not both:
        raise InvrepError("--at-equal-error needs jobs with a code error, of objective=match; one of these has none.")
    if both:
        notes.insert(0, _on_errors(errors, both, close, at_equal_error))
    if other := pair.other_code():
        notes.insert(0, f"A and B match different codes ({', '.join(other)}), and their errors are not of one code.")
    measures = _measures(pair, close if at_equal_error else images, test)
    return Comparison(pair, measures, [*notes, *_on_null_photos(pair)])


def _common(pair: Pair) -> tuple[set[str], list[str]]:
    """Return the ids of the photos that both jobs have finished, and sentences on all others."""
    sides = [
        {image: row["content"] for (image, _), row in run.rows.items() if not row.get("remark")}
        for run in (pair.first, pair.second)
    ]
    common = sides[0].keys() & sides[1].keys()
    changed = {image for image in common if sides[0][image] != sides[1][image]}
    if not common - changed:
        raise InvrepError(
            f"{pair.first.results.folder} and {pair.second.results.folder} have no photo in common; compare jobs of "
            "the same data.path."
        )
    alone = [(count(len(sides[k].keys() - common), "photo"), "AB"[k]) for k in (0, 1) if sides[k].keys() - common]
    notes = [f"Left out: {' and '.join(f'{number} of {side} only' for number, side in alone)}."] if alone else []
    if changed:
        notes.append(f"Left out: {count(len(changed), 'photo')} whose file has changed from one job to the other.")
    return common - changed, notes


def _close(errors: Sequence[Mapping[str, float]], image: str) -> bool:
    one, other = errors[0][image], errors[1][image]
    return abs(one - other) <= CLOSE * max(one, other)


def _on_errors(
    errors: Sequence[Mapping[str, float]], images: Sequence[str], close: set[str], at_equal_error: bool
) -> str:
    """Return the sentence that says whether the code errors are equal."""
    means = [statistics.fmean(side[image] for image in images) for side in errors]
    said = f"A {worded('error', means[0])}, B {worded('error', means[1])}"
    some = f"{len(close)} of {count(len(images), 'photo')}"
    if at_equal_error and not close:
        return f"Code errors agree within 10 % on no photo: {said}; give the worse job more passes, or the other fewer."
    if at_equal_error:
        return f"Compared at equal code error: on {some}, whose errors agree within 10 % (of all: {said})."
    if len(close) == len(images):
        return f"Code errors are equal: {said}; on each of {count(len(images), 'photo')} they agree within 10 %."
    alone = "; --at-equal-error compares on these alone" if close else ""
    return f"Code errors are not equal: {said}; on {some} they agree within 10 %{alone}."


def _on_null_photos(pair: Pair) -> list[str]:
    numbers = [{row["null_photos"] for row in run.certificates.values()} for run in (pair.first, pair.second)]
    if not all(numbers) or numbers[0] == numbers[1]:
        return []
    said = [" or ".join(f"{number:.0f}" for number in sorted(side)) for side in numbers]
    return [f"Null percentiles are among {said[0]} other photos in A and {said[1]} in B."]


def _measures(pair: Pair, images: Iterable[str], test: str) -> list[Compared]:
    chosen, found = set(images), []
    certified = [name for name in CERTIFIED if name not in OF_THE_PHOTO]
    for name in dict.fromkeys((*MEASURED, *certified, *SPREADS, *COST)):
        first, second = (photo_means(_kept(run, chosen, name), name) for run in (pair.first, pair.second))
        if shared := [image for image in first if image in second]:
            one, other = (statistics.fmean(side[image] for image in shared) for side in (first, second))
            found.append(Compared(name, one, other, compare_paired(first, second, test=test)))
    return found


def _kept(run: Run, images: set[str], name: str = "error") -> list[Mapping[str, Any]]:
    """Return the rows of some photos that have a measure, without remarked ones."""
    if name in SPREADS:
        return [row for image, row in run.spreads.items() if image in images]
    rows = {key: row for key, row in run.rows.items() if key[0] in images and not row.get("remark")}
    return [run.certificates[key] for key in rows if key in run.certificates] if name in CERTIFIED else [*rows.values()]
