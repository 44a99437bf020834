"""Let an interrupt end a descent with what it has."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytorch_lightning as pl

from invrep.inversion.module import Inversion


class Interrupt(pl.Callback):
    """Turn the first interrupt inside this context into the end of the running descent, after its present pass.

    The second interrupt raises KeyboardInterrupt at once. Only Python's own handler is replaced, since another handler
    of SIGINT belongs to the caller, and only in the main thread, which alone receives signals.

    Args:
        wanted: bool; False leaves every interrupt to Python.

    Attributes:
        heard: bool; True after the first interrupt.
    """

    def __init__(self, wanted: bool) -> None:
        super().__init__()
        self.wanted = wanted
        self.heard = False
        self._inversion: Inversion | None = None

    def __enter__(self) -> Interrupt:
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self.wanted &= own and threading.current_thread() is threading.main_thread()
        if self.wanted:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._inversion = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remember the descent; an interrupt before its first pass leaves it that pass."""
        self._inversion = pl_module
        pl_module.stopping = self.heard

    def _hear(self, *_: object) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = True
        if self._inversion is not None:
            self._inversion.stopping = True
