"""Handle signals that end a command: Ctrl-C, scancel, a requeue, a time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from invrep.errors import InvrepError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# signals that reach all processes of a command; its ranks ignore them and await the SIGTERM of the first process
OTHERS = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stop(KeyboardInterrupt):
    """Report a signal that ends the command; the handler raises it wherever the program is.

    Its text is the sentence for the user.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        what = "Interrupted"
        if self.signal is not signal.SIGINT:
            what = f"Ended by {self.signal.name}, as scancel, a requeue or a time limit sends it"
        super().__init__(f"{what}; what is finished is kept, and the same command resumes.")

    @property
    def status(self) -> int:
        """Return the exit status, 128 plus the signal: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.signal


@contextmanager
def stopped_by(*numbers: int) -> Iterator[None]:
    """Raise :class:`Stop` when one of the signals arrives, unless the process was started to ignore it.

    Launchers send several signals for one stop. After the first signal, only a further Ctrl-C has an effect.

    Args:
        numbers: numbers of the signals.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_IGN)
        raise Stop(number)

    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        heeded = []  # Python accepts signal handlers only from the main thread
    before = {number: signal.getsignal(number) for number in heeded}
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ended(BaseException):
    """Carry the exception of a launcher's signal handler past every ``except Exception`` of a job."""


@contextmanager
def ended_by_launcher() -> Iterator[None]:
    """End a job with a sentence when its launcher's handler of SIGUSR2 raises an exception.

    submitit's handler raises one when the job has reached its time limit too often.

    Raises:
        InvrepError: the handler has raised an exception.
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
