"""The end of a job on disk: its parts become the whole files, in memory that does not grow with their number.

At any moment every finished pre-image is in its part or in the whole files; where in both, the part counts. A merge
that is killed is gone on with by the next.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from invrep.data import Key
from invrep.files import Stored, atomic, join, read_table, stored, write_table
from invrep.results import Results, curve_of, name_of, row_of

MOST_BYTES = 256 * 2**20  # of a file of reconstructions
MOST_TENSORS = 10_000  # in it; its header has to be held in memory
FIRST = ("image", "restart", "error", "root_error", "pairwise_error", "psnr", "ssim", "energy")
LAST = ("passes", "seconds", "distance", "code_norm", "remark", "content")


def merge(results: Results, pairwise: float, images: Container[str]) -> None:
    """Bring the parts into ``curves.csv``, ``metrics.csv`` and the files of reconstructions, and remove them.

    Args:
        results: of which no other process is at work in the folder.
        pairwise: mean_ij ‖Φ0_i − Φ0_j‖² over ``images``; NaN leaves ``pairwise_error`` blank.
        images: the ids over which that mean was taken; other rows keep what they had.
    """
    parts = results.unmerged()
    columns = dict.fromkeys(next(read_table(results.metrics), {}))
    points = dict.fromkeys(next(read_table(results.curves), {}))
    for path in map(results.part, parts):
        columns |= dict.fromkeys(row_of(path))
        points |= dict.fromkeys(chain.from_iterable(curve_of(path)))

    def rows() -> Iterator[dict[str, Any]]:
        for (image, _), row in results.walk():
            if image in images:
                row["pairwise_error"] = row["distance"] / pairwise if pairwise > 0 else math.nan
            yield row

    # pixels last, since with them a part goes
    if parts:
        finished = results.done()
        first = ("image", "restart", "pass", "activation" if "activation" in points else "error", "energy")
        flat = (
            {"image": key[0], "restart": key[1], **point}
            for key, curve in results.walk_curves(finished)
            for point in curve
        )
        atomic(results.curves, lambda path: write_table(path, flat, _ordered(points, first, ())))
    first = (*FIRST[:2], "activation", *FIRST[2:]) if "activation" in columns else FIRST
    atomic(results.metrics, lambda path: write_table(path, rows(), _ordered(columns, first, LAST)))
    _fill(results, _replace(results, parts))
    if results.parts.is_dir() and not any(results.parts.iterdir()):
        results.parts.rmdir()


def _ordered(names: Container[str], first: Sequence[str], last: Sequence[str]) -> list[str]:
    return [*dict.fromkeys([*first, *(name for name in names if name not in last)]), *last]


def _replace(results: Results, parts: Sequence[Key]) -> list[Key]:
    """Bring pre-images that have been found anew to where the old ones are, and return the other parts."""
    for shard in results.shards().values():
        held = stored(shard)[0]
        again = {key for key in parts if name_of(key) in held}
        if again:
            _write(results, shard, held, again)
            parts = [key for key in parts if key not in again]
    return list(parts)


def _fill(results: Results, parts: Sequence[Key]) -> None:
    """Append parts to the last file of reconstructions while there is room in it, and the rest to further ones."""
    shards = results.shards()
    number = max(shards, default=0)
    held = stored(shards[number])[0] if shards else {}
    size = sum(tensor.length for tensor in held.values())
    added: list[Key] = []
    for key in parts:
        length = stored(results.part(key))[0]["reconstruction"].length
        count = len(held) + len(added)
        if count and (size + length > MOST_BYTES or count >= MOST_TENSORS):
            _write(results, results.shard(number), held, added)
            number, size, held, added = number + 1, 0, {}, []
        added.append(key)
        size += length
    _write(results, results.shard(number), held, added)


def _write(results: Results, shard: Path, held: dict[str, Stored], parts: Collection[Key]) -> None:
    """Write a file of reconstructions of what it holds and of parts, and remove these."""
    if parts:
        tensors = held | {name_of(key): stored(results.part(key))[0]["reconstruction"] for key in parts}
        atomic(shard, lambda path: join(path, tensors))
        for key in parts:
            results.part(key).unlink()
