"""The work of a rank whose disk is full: a module that a spawned process imports quickly."""

from __future__ import annotations

from collections.abc import Callable

from invrep.errors import InvrepError


def full_disk(number: int, report: Callable[[object], None]) -> dict[str, str]:
    """Fail as the first rank, and do as the others what there is to do."""
    if number == 0:
        raise InvrepError("No space is left")
    return {}
