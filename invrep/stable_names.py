"""Names of the project's parts in results, which stay when a class or function is renamed or moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part", bound=Callable[..., Any])


def known_as(name: str) -> Callable[[Part], Part]:
    """Give a class or function the name by which results know it; a subclass needs one of its own.

    Two parts of one config group never share a name, and a name in use never changes: it is hashed into the name of
    a job's folder.
    """

    def mark(part: Part) -> Part:
        part.known_as = name  # type: ignore[attr-defined]  # of any class or function
        return part

    return mark


def stable_name(part: object) -> str | None:
    """Return the name that :func:`known_as` gave a class or function; None for others, such as a subclass."""
    return getattr(part, "__dict__", {}).get("known_as")
