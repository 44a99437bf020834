"""Group photos into batches, share them among ranks, and read them ahead of the device."""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from invrep.data.lone_threads import lone_threads

READERS = 4  # threads; Pillow releases the GIL while it decodes
MOST_RESTARTS = 1000  # restarts of a photo; the job's end compares every pair
T = TypeVar("T")
R = TypeVar("R")
Key = tuple[str, int]  # image id, restart
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Batch:
    """Hold pre-images of one size, which one tensor optimises.

    Attributes:
        size: height and width in pixels.
        restarts: number of pre-images of each photo in the job.
        rows: place of the photo · restarts + number of the restart, for each pre-image.
    """

    size: Size
    restarts: int
    rows: Sequence[int]

    @property
    def places(self) -> list[int]:
        """Return the places of the batch's photos in the job's list."""
        return list(dict.fromkeys(row // self.restarts for row in self.rows))


def batches(sized: Iterable[tuple[int, Size]], batch_size: Callable[[Size], int], restarts: int = 1) -> Iterator[Batch]:
    """Yield batches of at most ``batch_size(size)`` photos of one size: each once it is full, the rest at the end.

    The batches depend on the whole list alone; finished photos do not change them. A resumed job therefore gives a
    photo the same neighbours as an unbroken one.

    Args:
        sized: places of photos and their sizes, (height, width) in pixels.
        batch_size: function of a size, called once for each.
        restarts: number of pre-images of each photo; they stand beside each other.
    """
    open_: dict[Size, list[int]] = {}
    most: dict[Size, int] = {}

    def batch(size: Size) -> Batch:
        places = open_.pop(size)
        return Batch(size, restarts, array("Q", (place * restarts + r for place in places for r in range(restarts))))

    for place, size in sized:
        if size not in most:
            most[size] = batch_size(size)
        open_.setdefault(size, []).append(place)
        if len(open_[size]) == most[size]:
            yield batch(size)
    for size in list(open_):
        yield batch(size)


def split(batch: Batch, most: int) -> Iterator[Batch]:
    """Yield a batch in about equal parts of at most ``most`` pre-images; restarts do not interact."""
    parts = -(-len(batch.rows) // most)
    for part in range(parts):
        begin, end = (len(batch.rows) * k // parts for k in (part, part + 1))
        yield replace(batch, rows=batch.rows[begin:end])


def deal(sized: Iterable[tuple[int, Size]], ranks: int) -> list[Iterator[tuple[int, Size]]]:
    """Return each rank's photos: the ranks' shares differ by one photo at most, in all and of each size.

    Each rank computes the same shares by itself: memory and speed do not enter.

    Args:
        sized: places of photos and their sizes, (height, width) in pixels.
        ranks: number of ranks.
    """
    by_size: dict[Size, array[int]] = {}
    for place, size in sized:
        by_size.setdefault(size, array("Q")).append(place)

    def walk() -> Iterator[tuple[int, Size]]:
        return ((place, size) for size, places in by_size.items() for place in places)

    return [islice(walk(), rank, None, ranks) for rank in range(ranks)]


def evenly(items: Sequence[Batch], ranks: int) -> list[list[Batch]]:
    """Return each rank's batches, in their order: the largest batch first goes to the rank with the least work."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    costs = [len(batch.rows) * math.prod(batch.size) for batch in items]
    for number in sorted(range(len(items)), key=lambda number: -costs[number]):
        load, rank = loads[0]
        shares[rank].append(number)
        heapq.heapreplace(loads, (load + costs[number], rank))
    return [[items[number] for number in sorted(share)] for share in shares]


@dataclass(frozen=True)
class Keys:
    """Hold the pre-images of a job: the restarts below a number, of some images.

    Attributes:
        images: ids of the images.
        restarts: number of restarts of each image.
    """

    images: Collection[str]
    restarts: int

    def __contains__(self, key: Key) -> bool:
        return key[1] < self.restarts and key[0] in self.images


class Done:
    """Hold the finished pre-images with the content of their photos, in sixteen bytes each.

    Args:
        contents: keys of the finished pre-images, and their photos' contents as 16 hexadecimal digits. Two of a million
            keys collide in one of 40 million jobs.
    """

    def __init__(self, contents: Iterable[tuple[Key, str]]) -> None:
        flat = array("Q")
        for key, content in contents:
            flat.extend((_short(key), int(content or "0", 16)))
        pairs = np.asarray(flat).reshape(-1, 2)
        self._keys, self._contents = pairs[np.argsort(pairs[:, 0])].T.copy()

    def __bool__(self) -> bool:
        return len(self._keys) > 0

    def __contains__(self, key: Key) -> bool:
        return self._find(key) is not None

    def of(self, key: Key, content: str) -> bool:
        """Return whether a pre-image is finished for a photo of this content."""
        return self._find(key) == int(content or "0", 16)

    def _find(self, key: Key) -> int | None:
        short = np.uint64(_short(key))
        at = int(np.searchsorted(self._keys, short))
        return int(self._contents[at]) if at < len(self._keys) and self._keys[at] == short else None


def ahead(work: Callable[[T], R], items: Iterable[T], most: int) -> Generator[R, None, None]:
    """Yield ``work(item)`` of each item in order, from threads that run at most ``most`` items ahead of the caller."""
    waiting: deque[Future[R]] = deque()
    with lone_threads(READERS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _short(key: Key) -> int:
    """Return a hash of a key, 64 bits."""
    name = f"{key[0]}/{key[1]}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
