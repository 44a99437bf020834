"""Draw a uniform sample of fixed size from a stream of descriptors, the same in every order of the stream."""

from __future__ import annotations

import hashlib

import numpy as np

SPARE = 0.25  # rows held beyond the budget, as a share of it, before the worst of them are dropped


class Sample:
    """Keep the descriptors with the smallest random numbers, at most ``budget`` of them.

    Every descriptor has a random number of its own, from the seed, its photo's content and its place in the photo. So
    the sample depends on the set of photos alone: not on their order or names, nor on an interruption.

    Args:
        budget: greatest number of descriptors, at least 1.
        seed: seed of the random numbers.
    """

    def __init__(self, budget: int, seed: int) -> None:
        self.budget, self.seed = budget, seed
        self.seen = 0  # descriptors of the stream so far
        self._count = 0
        self._bound = np.uint64(2**64 - 1)  # no larger number can be among the budget's smallest
        self._rows = np.empty((0, 0), np.float32)
        self._numbers = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return min(self._count, self.budget)

    def draw(self, content: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which descriptors of a photo may be kept, (n,) int64, and their random numbers, (n,) uint64.

        Args:
            content: hash of the photo's content.
            number: number of the photo's descriptors.
        """
        digest = hashlib.blake2b(f"{self.seed}/{content}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        numbers = generator.integers(0, 2**64 - 1, number, np.uint64, endpoint=True)
        chosen = np.flatnonzero(numbers <= self._bound)
        return chosen, numbers[chosen]

    def add(self, rows: np.ndarray, numbers: np.ndarray, seen: int) -> None:
        """Add a photo's descriptors.

        Args:
            rows: descriptors that :meth:`draw` has chosen, (n, D) float32.
            numbers: random numbers of these, (n,) uint64.
            seen: number of all descriptors of the photo.
        """
        self.seen += seen
        room = self.budget + max(int(SPARE * self.budget), 1)
        if not self._rows.size:
            self._rows, self._numbers = np.empty((room, rows.shape[1]), np.float32), np.empty(room, np.uint64)
        while len(rows):
            free = room - self._count
            part = slice(self._count, self._count + min(free, len(rows)))
            self._rows[part], self._numbers[part] = rows[:free], numbers[:free]
            rows, numbers, self._count = rows[free:], numbers[free:], part.stop
            if self._count == room:
                self._drop()

    def rows(self) -> np.ndarray:
        """Return the sample, (n, D) float32, in the order of the random numbers."""
        self._drop()
        return self._rows[np.argsort(self._numbers[: self._count], kind="stable")]

    def state(self) -> dict[str, np.ndarray]:
        """Return the sample with its random numbers, for :meth:`restore`."""
        self._drop()
        kept = slice(0, self._count)
        return {"rows": self._rows[kept], "numbers": self._numbers[kept].view(np.int64), "seen": np.array([self.seen])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from the :meth:`state` of a sample with the same budget and seed."""
        rows, numbers = state["rows"], state["numbers"].view(np.uint64)
        if len(rows):
            self.add(rows, numbers, 0)
        self.seen = int(state["seen"][0])
        if len(rows) == self.budget:
            self._bound = numbers.max()

    def _drop(self) -> None:
        """Drop what exceeds the budget; the rows move within their array, so that memory holds one copy."""
        if self._count <= self.budget:
            return
        kept = np.argpartition(self._numbers[: self._count], self.budget - 1)[: self.budget]
        holes = np.setdiff1d(np.arange(self.budget), kept, assume_unique=True)
        moved = kept[kept >= self.budget]
        self._rows[holes], self._numbers[holes] = self._rows[moved], self._numbers[moved]
        self._count = self.budget
        self._bound = self._numbers[: self._count].max()
