"""Fork ranks from a process that has imported what they need and has computed nothing.

A new interpreter for each rank takes seconds of imports. But a process that has computed cannot be forked: neither the
threads of OpenMP, polars and W&B nor a GPU's context survive in the child. So a command that may need ranks forks
itself once, right after its imports. This process, the *nursery*, waits, and forks a rank whenever a job of the command
needs one. It ends with the command.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from invrep.jobs.ranks import launched
from invrep.jobs.signals import OTHERS

IMPORTS = ("pytorch_lightning", "torchvision", "invrep.inversion.solver")  # not polars, whose import starts threads
KEPT = (*OTHERS, signal.SIGTERM)  # signals that the nursery ignores, since it ends with its parent
_line: socket.socket | None = None  # to the nursery of this process; None without one


def open_nursery(main: Callable[[Any], None], devices: Any) -> None:
    """Import what ranks need, and fork the nursery, if a job may need several ranks on this machine.

    The caller has made sure that this process has not computed anything.

    Args:
        main: function that a rank runs; its argument is the rank's end of a pipe.
        devices: ``trainer.devices`` of the job.
    """
    global _line
    alone = devices == 1 or launched() is not None
    if alone or sys.platform != "linux" or threading.active_count() > 1:  # macOS's own libraries forbid a fork
        return
    for name in IMPORTS:
        importlib.import_module(name)
    here, there = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)
    try:
        if os.fork() == 0:
            here.close()
            _ending(lambda: _serve(there, main, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()
    _line = here


def fork() -> tuple[Connection[Any, Any], int] | None:
    """Return a pipe to a new rank and the rank's process id; None without a nursery."""
    global _line
    if _line is None:
        return None
    here, there = Pipe()
    with contextlib.suppress(OSError), there:
        socket.send_fds(_line, [b"\0"], [there.fileno()])
        if answer := _line.recv(8):
            return here, int.from_bytes(answer, "big")
    _line.close()  # the nursery has died
    _line = None
    return None


def _serve(line: socket.socket, main: Callable[[Any], None], mask: Any) -> None:
    """Fork a rank for each pipe that arrives on the line, until the parent has ended."""
    ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    for kind in (*KEPT, signal.SIGCHLD):  # with SIGCHLD ignored, the system removes ranks that have ended
        signal.signal(kind, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    gc.freeze()  # a collection would copy the pages that ranks share
    gc.enable()  # the caller imports without collections
    while handles := socket.recv_fds(line, 1, 1)[1]:
        if (rank := os.fork()) == 0:
            line.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not ignored:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _ending(lambda: main(Connection(handles[0])))
        os.close(handles[0])
        line.sendall(rank.to_bytes(8, "big"))


def _ending(act: Callable[[], None]) -> NoReturn:
    """Call ``act`` and end this process, without what its parent does at its end."""
    try:
        act()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)
