"""Read and check the values of a MATLAB file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Unfit(Exception):
    """Report a fault of a file, as a clause."""


def bare(value: Any) -> Any:
    """Return the value in a cell or structure of one element, through nested ones; other values unchanged."""
    while isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "OV":
        value = value.reshape(-1)[0]
    return value


def get(struct: Any, name: str) -> Any:
    """Return a field of a structure, or a variable of a file; None where it is missing or empty."""
    struct = bare(struct)
    if isinstance(struct, dict):
        value = struct.get(name)
    else:
        value = struct[name] if isinstance(struct, np.void) and name in (struct.dtype.names or ()) else None
    return None if value is None or not np.size(value) else value


def string(value: Any) -> str:
    """Return a text; an empty one where the value is no text."""
    array = np.asarray(bare(value))
    return str(array.reshape(-1)[0]) if array.dtype.kind == "U" and array.size else ""


def array(value: Any, what: str) -> np.ndarray:
    """Return numbers as float32.

    Raises:
        Unfit: the value holds no numbers.
    """
    try:
        return np.asarray(bare(value), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise Unfit(f"{what} are no numbers") from error


def numbers(
    struct: Any, name: str, owner: str, *, counts: tuple[int, ...], default: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return a field of numbers; ``counts`` lists the allowed counts.

    Raises:
        Unfit: the field is missing without a default, has another count, or is not finite.
    """
    value = get(struct, name)
    if value is None and default is not None:
        return tuple(default)
    if value is None:
        raise Unfit(f"its {owner} has no {name}")
    try:
        array = np.asarray(bare(value), dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.size not in counts or not np.isfinite(array).all():
        raise Unfit(f"{name} of its {owner} is not {' or '.join(map(str, counts))} numbers")
    return tuple(array.tolist())


def whole(
    struct: Any,
    name: str,
    owner: str,
    *,
    counts: tuple[int, ...],
    default: Sequence[float] | None = None,
    least: int = 1,
) -> tuple[int, ...]:
    """Return a field of whole numbers from ``least`` to 1e5; ``counts`` lists the allowed counts.

    Raises:
        Unfit: as for :func:`numbers`, or a number is not whole or out of range.
    """
    values = numbers(struct, name, owner, counts=counts, default=default)
    if any(value != round(value) or not least <= value <= 1e5 for value in values):
        raise Unfit(f"{name} of its {owner} is {values}, not whole numbers of at least {least}")
    return tuple(map(int, values))


def pair(struct: Any, name: str, owner: str, default: Sequence[float] | None = (1,)) -> tuple[int, int]:
    """Return a field of one number or two, at least 1, as two.

    Raises:
        Unfit: as for :func:`whole`.
    """
    values = whole(struct, name, owner, counts=(1, 2), default=default)
    return values[0], values[-1]
