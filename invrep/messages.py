"""Format names and numbers for messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """Return text with its control characters escaped, so that a photo's name cannot break a line or a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def layer_name(layer: Any) -> str | None:
    """Return the name of a layer, or of several layers joined as ``relu2 + relu3``; None without a layer."""
    if isinstance(layer, Mapping | Sequence) and not isinstance(layer, str):
        return " + ".join(map(str, layer))
    return None if layer is None else str(layer)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
