"""Writing beside the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WRITES_AHEAD = 2  # batches that wait to be written while the device goes on


class Writer:
    """Writes in a thread of its own, so that the device need not wait; leaving it waits for all that is to be written.

    Calling it, or leaving it, raises what an earlier writing has raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __call__(self, write: Callable[..., None], *arguments: Any) -> None:
        """Let ``write(*arguments)`` happen after what was asked for before."""
        self._waiting.append(self._pool.submit(write, *arguments))
        while len(self._waiting) > WRITES_AHEAD:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        for future in self._waiting if kind is None else ():
            future.result()
