"""Check values that a user gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, overload

from invrep.errors import InvrepError, nearest


@overload
def number(
    name: str,
    value: object,
    *,
    minimum: float | None = ...,
    above: float | None = ...,
    maximum: float | None = ...,
    whole: Literal[True],
    word: str | None = ...,
) -> int: ...


@overload
def number(
    name: str,
    value: object,
    *,
    minimum: float | None = ...,
    above: float | None = ...,
    maximum: float | None = ...,
    word: str | None = ...,
) -> float: ...


def number(
    name: str,
    value: object,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    whole: bool = False,
    word: str | None = None,
) -> float:
    """Return ``value`` if it is a finite number in range, as an int with ``whole``, otherwise as a float.

    Args:
        name: config key or argument, for the message.
        value: value that the user gave.
        minimum: least allowed value; None: no bound.
        above: exclusive lower bound; None: no bound.
        maximum: greatest allowed value; None: no bound.
        whole: bool; True: the value must be a whole number, such as 2 or 2.0.
        word: word that the caller accepts instead; the message names it.

    Raises:
        InvrepError: ``value`` is not such a number.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or (whole and not float(value).is_integer())
        or (minimum is not None and value < minimum)
        or (above is not None and value <= above)
        or (maximum is not None and value > maximum)
    ):
        bounds = [f"of at least {minimum:g}"] if minimum is not None else []
        bounds += [f"above {above:g}"] if above is not None else []
        bounds += [f"at most {maximum:g}"] if maximum is not None else []
        kind = "a whole number" if whole else "a number"
        raise InvrepError(
            f"{name}={value} is not valid: expected {' '.join([kind, ' and '.join(bounds)]).strip()}"
            f"{f' or {word!r}' if word else ''}."
        )
    return int(value) if whole else float(value)


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``options``.

    Args:
        name: config key or argument, for the message.
        value: value that the user gave.
        options: allowed values.

    Raises:
        InvrepError: ``value`` is none of them; the message names the nearest.
    """
    options = list(options)
    if value not in options:
        raise InvrepError(
            f"{name}={value} is not valid: expected one of {', '.join(options)}; {nearest(str(value), options)}."
        )
    return str(value)


def check_whole(owner: str, name: str, value: Any, least: int) -> None:
    """Check that ``value`` is an integer of at least ``least``.

    Raises:
        InvrepError: ``value`` is not; the message names ``owner`` and ``name``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvrepError(f"{owner}'s {name} must be a whole number of at least {least}, not {value!r}.")


def check_choice(owner: str, name: str, value: Any, options: tuple[str, ...]) -> None:
    """Check that ``value`` is one of ``options``.

    Raises:
        InvrepError: ``value`` is not; the message names ``owner``, ``name`` and the nearest option.
    """
    if not isinstance(value, str) or value not in options:
        wanted = " or ".join(repr(option) for option in options)
        raise InvrepError(f"{owner}'s {name} must be {wanted}, not {value!r}; {nearest(str(value), options)}.")


def check_kind(name: str, value: object, good: bool, wanted: str) -> None:
    """Check the kind of ``value``, for which ``good`` is the caller's verdict.

    Raises:
        InvrepError: ``good`` is False; the message names the type of ``value`` and the kind that is ``wanted``.
    """
    if not good:
        kind = type(value).__name__
        is_ = f"the class {value.__name__}" if isinstance(value, type) else f"a value of type {kind}"
        raise InvrepError(f"{name} is {'None' if value is None else is_}; expected {wanted}.")
