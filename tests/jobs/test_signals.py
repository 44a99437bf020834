"""Signals that end a command: the first counts, and handlers are left as they were."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from torch import Tensor, nn

from invrep.jobs.signals import Stop, stopped_by


def test_the_first_of_several_signals_counts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stop) as caught, stopped_by(signal.SIGUSR1, signal.SIGTERM):
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while the program ends
    assert caught.value.status == 138 and "SIGUSR1" in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_the_process_was_started_to_ignore_is_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with stopped_by(signal.SIGUSR1):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_thread_takes_no_handlers() -> None:
    entered = []

    def enter() -> None:
        with stopped_by(signal.SIGTERM):
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [signal.getsignal(signal.SIGTERM)]


class Signalling(nn.Conv2d):
    """Gets a launcher's signal in its forward pass."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGUSR2)
        return super().forward(images)


def test_what_a_launchers_handler_raises_is_no_fault_of_what_it_interrupts(job) -> None:
    def handle(*_: object) -> None:
        raise RuntimeError("timed-out too many times")  # as submitit's does

    before = signal.signal(signal.SIGUSR2, handle)
    try:
        outcome = job("rep=module", f"rep.target={__name__}.Signalling", "data.path=bundled:cell")
        assert signal.getsignal(signal.SIGUSR2) is handle
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert outcome.status == 1, outcome.err
    assert outcome.err.endswith(
        "error: The launcher has ended the job (timed-out too many times); what is finished is kept, and the same "
        "command resumes.\n"
    )
