"""Signals that end a command: Ctrl-C, scancel, a requeue, a time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from invrep.errors import InvrepError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop(KeyboardInterrupt):
    """A signal that ends the command, raised wherever the program is.

    Its text is the sentence for the user.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        what = "Interrupted"
        if self.signal is not signal.SIGINT:
            what = f"Ended by {self.signal.name}, as scancel, a requeue or a time limit sends it"
        super().__init__(f"{what}; what is finished is kept, and the same command resumes.")

    @property
    def status(self) -> int:
        """The exit status: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.signal


@contextmanager
def stopped_by(*numbers: int) -> Iterator[None]:
    """Raise :class:`Stop` where one of these signals comes, unless the process was started to ignore it.

    Launchers send several for one end: after the first only a further Ctrl-C counts.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_IGN)
        raise Stop(number)

    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        heeded = []  # Python takes handlers from the main thread only
    before = {number: signal.getsignal(number) for number in heeded}
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ended(BaseException):
    """What a launcher's handler of a signal has raised, as no code of a job catches it."""


@contextmanager
def ended_by_launcher() -> Iterator[None]:
    """End a job with a sentence where the handler of its launcher raises an exception.

    submitit's does when the job has reached its time limit too often, in the midst of whatever the job is at.

    Raises:
        InvrepError: the handler has raised one.
    """
    handler = signal.getsignal(signal.SIGUSR2)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except Exception as error:
            raise _Ended(str(error)) from error

    signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    except _Ended as ended:
        raise InvrepError(
            f"The launcher has ended the job ({ended}); what is finished is kept, and the same command resumes."
        ) from None
    finally:
        signal.signal(signal.SIGUSR2, handler)
