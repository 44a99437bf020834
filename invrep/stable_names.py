"""Name the project's parts in results, independently of where their classes and functions lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part", bound=Callable[..., Any])


def known_as(name: str) -> Callable[[Part], Part]:
    """Give a class or function its stable name in results.

    A subclass needs a name of its own. Two parts of one config group never share a name. A name in use never changes:
    it is hashed into the name of a job's folder.
    """

    def mark(part: Part) -> Part:
        part.known_as = name  # type: ignore[attr-defined]  # any class or function takes attributes
        return part

    return mark


def stable_name(part: object) -> str | None:
    """Return the stable name of a class or function; None without one. A subclass does not inherit the name."""
    return getattr(part, "__dict__", {}).get("known_as")
