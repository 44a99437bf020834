"""Say in sentences what the certificate of a pre-image means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from invrep.evaluation.certificate.equivalents import MOST_NOISE, MOST_SHIFT
from invrep.evaluation.certificate.null import FEW

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sentences(row: Mapping[str, Any]) -> list[str]:
    """Return what a certificate means, in a few sentences; a column without a value has none.

    Args:
        row: columns of the certificate by name; NaN or a missing name for no value.
    """
    known = {name: value for name, value in row.items() if not isinstance(value, float) or not math.isnan(value)}
    parts = (_equivalents, _null, _networks, _layers, _naturalness)
    return [sentence for part in parts for sentence in part(known)]


def _equivalents(row: Mapping[str, Any]) -> Iterator[str]:
    if "jpeg_equivalent" not in row:
        return
    quality, shift, noise = (row[f"{name}_equivalent"] for name in ("jpeg", "shift", "noise"))
    if quality >= 100:
        yield "Φ takes it for the photo more surely than a JPEG of quality 100."
    elif quality <= 1:
        yield "Φ finds it farther from the photo than a JPEG of quality 1."
    else:
        yield f"Φ confuses it with the photo as it would a JPEG of quality {quality:.0f}."
    told = [f"a shift by {_short(shift)} px"] if 0 < shift < MOST_SHIFT else []
    told += [f"noise of {_short(noise)} grey levels"] if 0 < noise < MOST_NOISE else []
    if told:
        yield f"The photo is as far from itself after {' or '.join(told)}."


def _null(row: Mapping[str, Any]) -> Iterator[str]:
    count, share = int(row.get("null_photos", 0)), row.get("null_percentile")
    if not count or share is None:
        return
    nearer = round(share * count / 100)
    few = f"; so few photos say little (expected {FEW} or more)" if count < FEW else ""
    others = f"{count} other photo{'s' if count > 1 else ''}"
    if nearer == 0:
        yield f"None of {others} comes as near{few}." if few else f"No other of {count} photos comes as near."
    else:
        yield f"{nearer} of {others} come{'s' if nearer == 1 else ''} nearer{few}."


def _networks(row: Mapping[str, Any]) -> Iterator[str]:
    kept = {name.partition("/")[2]: value for name, value in row.items() if name.startswith("other_class_kept/")}
    if len(kept) == 1:
        (name,) = kept
        yield f"Another network, {name}, {'keeps' if kept[name] else 'does not keep'} its class."
    elif kept:
        count = int(sum(kept.values()))
        yield f"{_word(count).capitalize()} of {_word(len(kept))} other networks keep{'s' * (count == 1)} its class."
    nearer = {name.partition("/")[2]: value for name, value in row.items() if name.startswith("other_percentile/")}
    if nearer and not any(nearer.values()):
        yield f"To {' and '.join(nearer)} no other photo comes as near either."
    elif nearer:
        told = ", ".join(f"{_short(value)} % to {name}" for name, value in nearer.items())
        yield f"Other photos come nearer to other networks: {told}."


def _layers(row: Mapping[str, Any]) -> Iterator[str]:
    held = {name.partition("/")[2]: value for name, value in row.items() if name.startswith("held_out/")}
    if held:
        least, most = min(held, key=lambda name: held[name]), max(held, key=lambda name: held[name])
        between = f" to {_short(100 * held[most])} % ({most})" if most != least else ""
        yield f"At layers that were not matched its error is {_short(100 * held[least])} % ({least}){between}."


def _naturalness(row: Mapping[str, Any]) -> Iterator[str]:
    if "naturalness" in row:
        yield f"A denoiser that took no part changes it {_short(row['naturalness'])} times as much as the photo."


def _word(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def _short(value: float) -> str:
    """Return a number with two significant digits."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"
