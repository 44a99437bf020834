"""Turn names and configs into values that W&B accepts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_TAG = 64  # characters; W&B refuses a run with a longer tag


def utf8(text: str) -> str:
    """Return text in which bytes of a file name that are no UTF-8 are replaced by a question mark."""
    return text.encode("utf-8", "replace").decode()


def short(text: str, most: int) -> str:
    """Return a name of at most ``most`` characters; a longer one loses its middle."""
    return text if len(text) <= most else f"{text[: most - 33]}…{text[-32:]}"


def tags(config: Mapping[str, Any], more: Sequence[str] = ()) -> list[str]:
    """Return a run's tags: representation, layers, presets of objective and prior, and the user's own.

    Args:
        config: resolved config of a job, with its node ``used``.
        more: tags of the user.
    """
    used, layer = config.get("used", {}), config.get("layer")
    layers = list(layer) if isinstance(layer, Mapping | Sequence) and not isinstance(layer, str) else [layer]
    found = [used.get("rep"), *layers, used.get("objective"), used.get("prior"), *more]
    return list(dict.fromkeys(short(utf8(str(tag)), LONGEST_TAG) for tag in found if tag not in (None, "")))


def plain(value: Any) -> Any:
    """Return a config for W&B: plain values, without the logger and Hydra's keys; ``_target_`` becomes ``part``.

    A dot within a key would read as a level, and becomes a slash.
    """
    if isinstance(value, Mapping):
        found = {("part" if key == "_target_" else str(key)): inner for key, inner in value.items() if key != "logger"}
        hydra = [key for key in found if key.startswith("_") and key.endswith("_")]
        return {utf8(key.replace(".", "/")): plain(inner) for key, inner in found.items() if key not in hydra}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return utf8(value) if isinstance(value, str) else value
