"""Run a job's ranks on this machine: start a process for each share, and gather what they report."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, cast

from invrep.errors import InvrepError
from invrep.importing import uncollected
from invrep.jobs.nursery import fork
from invrep.jobs.signals import OTHERS, Stop, stopped_by


@dataclass(frozen=True)
class Started:
    """Hold a rank's process.

    Attributes:
        pipe: this process's end of a pipe to the rank; it ends with the rank.
        pid: process id of the rank.
        process: process with an interpreter of its own; None for a rank that the nursery has forked.
    """

    pipe: connection.Connection[Any, Any]
    pid: int
    process: BaseProcess | None

    def send(self, *messages: Any) -> None:
        """Send messages, unless the rank has died."""
        with contextlib.suppress(OSError):
            for message in messages:
                self.pipe.send(message)

    def terminate(self) -> None:
        """Tell the rank to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def join(self) -> None:
        """Wait until the rank has ended."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.pipe.recv()
        if self.process is not None:
            self.process.join()


def spread(
    work: Callable[..., dict[str, str]], shares: Sequence[tuple[Any, ...]], tick: Callable[[int, Any], None]
) -> tuple[dict[str, str], list[int]]:
    """Run ``work(*share, report)`` in one process for each share, and wait for all processes.

    Args:
        work: importable function; returns a sentence for each photo that failed, by the photo's id. ``report(value)``
            calls ``tick(number of the share, value)`` in this process.
        shares: picklable arguments, one tuple for each process.
        tick: function that receives the reports, a few times a second from each process.

    Returns:
        The failures of all shares, and the numbers of the shares whose process died.

    Raises:
        InvrepError: a process has raised it; it is raised after all have ended.
    """
    import torch  # takes seconds, and every command imports this module

    threads = max(1, torch.get_num_threads() // len(shares))
    mistakes, failures, dead = list[str](), dict[str, str](), set(range(len(shares)))
    ranks, waiting = list[Started](), dict[Any, int]()
    resource_tracker.ensure_running()  # otherwise the first start does so, and unblocks the signals
    try:
        for number in range(len(shares)):
            ranks.append(_start(number))
            waiting[ranks[-1].pipe] = number
        place = os.getcwd(), sys.path, dict(os.environ)
        for rank, part in zip(ranks, shares, strict=True):  # after all have begun to import
            rank.send(place, (work, part, threads))
        while waiting:
            for pipe in cast("list[connection.Connection[Any, Any]]", connection.wait(list(waiting))):
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):  # the process has closed its pipe, so it has ended
                    del waiting[pipe]
                    continue
                if kind == "tick":
                    tick(waiting[pipe], value)
                    continue
                dead.discard(waiting[pipe])
                if kind == "done":
                    failures |= value
                else:
                    mistakes.append(value)
    finally:
        for rank in ranks if waiting else ():
            rank.terminate()
        for rank in ranks:
            rank.join()
    if mistakes:
        raise InvrepError(mistakes[0])
    return failures, sorted(dead)


def _start(number: int) -> Started:
    """Start a rank's process: by the nursery if this command has one, else with an interpreter of its own."""
    if (forked := fork()) is not None:
        return Started(*forked, None)
    context = multiprocessing.get_context("spawn")
    # a pipe for each process: a process killed while it writes to a shared queue would block the others
    here, there = context.Pipe()
    process = context.Process(target=rank_main, args=(there,), name=f"rank {number}", daemon=True)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, OTHERS)  # inherited by the child as it imports
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    there.close()
    return Started(here, cast(int, process.pid), process)


def rank_main(pipe: Any) -> None:
    """Run a rank's process: receive its share on a pipe, execute it, and report.

    Args:
        pipe: the rank's end of the pipe.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # Linux: end this process when its parent is killed
    for kind in OTHERS:
        signal.signal(kind, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OTHERS)
    place, path, environment = pipe.recv()
    os.chdir(place)
    sys.path[:] = path
    os.environ.update(environment)
    with uncollected():
        work, part, threads = pipe.recv()
        import torch
    torch.set_num_threads(threads)
    try:
        with stopped_by(signal.SIGTERM):
            pipe.send(("done", work(*part, lambda value: pipe.send(("tick", value)))))
    except InvrepError as error:
        pipe.send(("mistake", str(error)))
    except Stop as stop:  # the parent tells the user
        raise SystemExit(stop.status) from None
