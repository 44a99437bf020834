"""How things are called in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """Return text with control characters, which a photo's name may hold, as escapes: on one line, and harmless."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def layer_name(layer: Any) -> str | None:
    """Return what a layer is called, or several, ``relu2 + relu3``; None for none."""
    if isinstance(layer, Mapping | Sequence) and not isinstance(layer, str):
        return " + ".join(map(str, layer))
    return None if layer is None else str(layer)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
