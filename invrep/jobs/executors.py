"""Execute a job's plan: in this process, on several devices of this machine, or as one rank of many."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from omegaconf import OmegaConf

from invrep.data.batching import Batch, evenly
from invrep.errors import InvrepError, ToldError
from invrep.jobs.failures import note_missing
from invrep.jobs.job import Job
from invrep.jobs.local_ranks import spread
from invrep.jobs.plan import Plan, missing
from invrep.jobs.ranks import Rank, gpus
from invrep.jobs.sweep_place import place_in_sweep
from invrep.jobs.words import ABSENT, DIED, DONE, STOPPED, Gathered, Words
from invrep.jobs.worker import share, work
from invrep.tracking.logger import Record
from invrep.tracking.progress import Bar, Report, Ticks

LOOK = 2.0  # seconds between two looks at the progress of other ranks


class Executor(Protocol):
    """Execute the remaining batches of a plan."""

    @property
    def ranks(self) -> int:
        """Return the number of processes that share the photos."""

    @property
    def here(self) -> int:
        """Return the number of these processes on this machine."""

    @property
    def index(self) -> int | None:
        """Return the rank of this process; None if it completes the job without a launcher."""

    def execute(self, job: Job, plan: Plan, record: Record | None) -> str | None:
        """Execute this process's share, and note failing photos in ``job.failures``.

        Args:
            job: parts of the job.
            plan: plan of the job.
            record: logger of the curves; None in a process that does not complete the job.

        Returns:
            A sentence about a fault that left no photo undone, such as an absent rank; None without one.
        """


class ThisProcess:
    """Execute the whole job in this process."""

    ranks, here, index = 1, 1, None

    def execute(self, job: Job, plan: Plan, record: Record | None) -> None:
        """Execute the remaining batches, with a bar and live curves."""
        with _bar(job, plan.left) as bar:
            work(job, plan.left, bar, record)


class Devices:
    """Execute the whole job with one process for each of several devices of this machine.

    Args:
        devices: indices of the devices.
    """

    index = None

    def __init__(self, devices: Sequence[int]) -> None:
        self.devices = devices
        self.ranks = self.here = len(devices)

    def execute(self, job: Job, plan: Plan, record: Record | None) -> None:
        """Start the processes, gather their failures, and note photos that a dead process left unfinished."""
        config = OmegaConf.to_container(job.config, resolve=True)
        parts = zip(self.devices, evenly(plan.left, self.ranks), strict=True)
        with _bar(job, plan.left) as bar:
            shares = [(config, job.photos, device, part) for device, part in parts if part]

            def tick(rank: int, report: Report) -> None:
                if record is not None:
                    record.open()  # after a first pass, like a job of one process
                bar.tick(rank, report)

            failures, dead = spread(share, shares, tick) if shares else ({}, [])
        job.failures |= failures
        if dead:
            note_missing(job, plan.left, "its process died")
        _replay(job, plan, record)


class OneOfMany:
    """Execute one rank's share of a job that torchrun or SLURM has started; rank 0 completes the job.

    Args:
        rank: rank of this process.
        words: messages between the ranks.
    """

    def __init__(self, rank: Rank, words: Words) -> None:
        self.ranks, self.here, self.index, self.words = rank.count, rank.here, rank.index, words
        self.rank = rank
        self._looked = 0.0

    def execute(self, job: Job, plan: Plan, record: Record | None) -> str | None:
        """Execute this rank's share, then wait: rank 0 for all other ranks, every other rank for rank 0.

        Raises:
            InvrepError: a mistake has ended a rank, or rank 0 died or is absent and its share is unfinished.
            ToldError: rank 0 has stopped before the job was finished.
        """
        there = gpus(job.config.trainer.accelerator)  # SLURM may show each task only its own GPU
        job.config.trainer.devices = [self.rank.device % there] if there else 1
        left = plan.left_of(self.index)
        if self.index > 0:
            work(job, left, Ticks(self.words.report))
            self._leave(job, plan.shares[0])
            return None
        if record is not None and plan.left:
            record.open()
        with _bar(job, plan.left) as bar:
            work(job, left, Ticks(partial(self._show, bar)))
            gathered = self.words.gather(partial(self._show, bar))
        absent = self._complete(job, plan, gathered)
        _replay(job, plan, record)
        return absent

    def _show(self, bar: Bar, own: Report | None = None) -> None:
        """Show the progress of this rank and, every few seconds, what the others have reported."""
        if own is not None:
            bar.tick(0, own)
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            for index, report in self.words.reports().items():
                bar.tick(index, Report(*report))

    def _complete(self, job: Job, plan: Plan, gathered: Gathered) -> str | None:
        """Execute the shares of absent ranks, and note what dead ranks left unfinished.

        Returns:
            A sentence about the absent ranks; None without any.

        Raises:
            InvrepError: a user's mistake has ended a rank.
        """
        job.failures |= gathered.failures
        if gathered.mistakes:
            raise InvrepError(gathered.mistakes[0])
        for index, why in gathered.lost.items():
            note_missing(job, plan.shares[index], why)
        if not gathered.absent:
            return None
        some = ", ".join(map(str, gathered.absent[:10])) + (", …" if len(gathered.absent) > 10 else "")
        self.words.tell(f"rank {some} of {self.ranks} has not come within a minute, and rank 0 does its share")
        left = missing(job, [batch for index in gathered.absent for batch in plan.shares[index]])
        with _bar(job, left) as bar:
            work(job, left, bar)
        return (
            f"Rank {some} of {self.ranks} has not come within a minute, and rank 0 has done its share; where nobody "
            f"has started several ranks, unset {self.rank.named}."
        )

    def _leave(self, job: Job, others: Sequence[Batch]) -> None:
        """Report that this rank's share is done, and wait until rank 0 has completed the job.

        Args:
            job: parts of the job.
            others: batches of rank 0's share.

        Raises:
            InvrepError: rank 0 died, or is absent while its share is unfinished.
            ToldError: rank 0 has stopped before the job was finished.
        """
        end = self.words.leave(job.failures)
        if end == STOPPED:
            raise ToldError("Rank 0 has ended before the job was finished; run the same command again.")
        if end == DONE or (end == ABSENT and not missing(job, others)):
            return
        note_missing(job, others, "rank 0 died" if end == DIED else "rank 0 has not come")
        lost = list(job.failures.values())
        what = "died" if end == DIED else "has not come within a minute"
        hint = "" if end == DIED else f" Where nobody has started several ranks, unset {self.rank.named}."
        raise InvrepError(
            f"Rank 0 of {self.ranks} {what}, and rank {self.index} has done its share; run the same command again to "
            f"complete the job.{hint} {' '.join(lost[:10])}{' …' if len(lost) > 10 else ''}".rstrip()
        )


def _bar(job: Job, batches: Sequence[Batch]) -> Bar:
    """Return the bar of a job over the passes of some batches."""
    work = sum(len(batch.rows) * math.prod(batch.size) for batch in batches) * max(job.passes, 1)
    images = len({place for batch in batches for place in batch.places})
    sweep = place_in_sweep()
    if sweep is None:
        return Bar(work, job.console, images=images)
    if batches:
        sweep.invert()
    return Bar(work, job.console, images=images, job=sweep.label, of_sweep=sweep.left, alone=sweep.alone)


def _replay(job: Job, plan: Plan, record: Record | None) -> None:
    """Write the mean curve of all pre-images to the logger, since other processes have made them."""
    if record is not None:
        record.replay(job.results.mean_curves(plan.keys(job)))
