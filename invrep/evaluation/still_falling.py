"""Judge from the curve of an error whether the descent had too few passes, and how many to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FALL = 0.05  # a greater relative fall over the last tenth of the passes is a fall that goes on
LEAST, MOST = 2.0, 4.0  # passes to try, as a multiple of the passes so far


def still_falling(curve: Sequence[tuple[int, float]]) -> bool:
    """Return whether the last tenth of the passes lowered the error by more than 5 %.

    The last point is compared with the least error of the tenth of passes before. So the teeth of a curve, which a
    denoiser leaves, are no fall. In a descent of several stages only the last stage counts.

    Args:
        curve: points (pass, error), at least one; an error is relative and at least 0.

    Returns:
        Bool; False where the last error is not finite.
    """
    return bool(curve) and curve[-1][1] < (1 - FALL) * _level(curve, 0.9)


def passes_to_try(curve: Sequence[tuple[int, float]]) -> int:
    """Return the number of passes at which the error would be half of the last, from 2 to 4 times the passes so far.

    The error is taken for a power of the number of passes, whose exponent is that of the second half of the passes.

    Args:
        curve: points (pass, error) of an error that is still falling.

    Returns:
        Number of passes, rounded to two digits.
    """
    passes, last = curve[-1]
    exponent = math.log2(_level(curve, 0.5) / last) if last > 0 else math.inf
    times = 2 ** (1 / exponent) if exponent > 1 / math.log2(MOST) else MOST
    wanted = passes * max(LEAST, times)
    return int(round(wanted, 1 - math.floor(math.log10(wanted)))) if wanted >= 1 else 1


def falling(curve: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the columns ``still_falling``, 1 or 0, and ``passes_to_try``, NaN for an error that has ended its fall.

    Args:
        curve: points (pass, {name: value}) of one pre-image.

    Returns:
        Columns by name; an empty dictionary for an objective without an error, or an image without a relative error.
    """
    errors = [(at, values["error"]) for at, values in curve if "error" in values]
    if not errors or not math.isfinite(errors[-1][1]):
        return {}
    falls = still_falling(errors)
    return {"still_falling": float(falls), "passes_to_try": passes_to_try(errors) if falls else math.nan}


def _level(curve: Sequence[tuple[int, float]], share: float) -> float:
    """Return the least error of the tenth of passes that ends at a share of them; NaN without a finite one."""
    end = curve[-1][0]
    stage = max((k + 1 for k in range(len(curve) - 2) if curve[k][0] == curve[k + 1][0]), default=0)
    points = [(at, error) for at, error in curve[stage:-1] if math.isfinite(error)]
    before = [(at, error) for at, error in points if at <= share * end] or points[:1]
    near = [error for at, error in before if at >= (share - 0.1) * end] or [error for _, error in before[-1:]]
    return min(near, default=math.nan)
