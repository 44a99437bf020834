"""Write results in a thread while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from invrep.data.lone_threads import lone_threads

WRITES_AHEAD = 2  # most calls that wait to be written before the caller waits too


class Writer:
    """Run writing functions in a thread of its own, so that the device need not wait.

    Leaving the context waits for all queued calls. A call, or leaving, raises the exception of an earlier call.
    """

    def __init__(self) -> None:
        self._pool = lone_threads(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __call__(self, write: Callable[..., None], *arguments: Any) -> None:
        """Queue ``write(*arguments)`` after the earlier calls; wait while more than ``WRITES_AHEAD`` are queued."""
        self._waiting.append(self._pool.submit(write, *arguments))
        while len(self._waiting) > WRITES_AHEAD:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        for future in self._waiting if kind is None else ():
            future.result()
