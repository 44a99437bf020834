"""Who does a job's work: this process, several devices of this machine, or one rank of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from omegaconf import OmegaConf

from invrep.data.batching import Batch, evenly
from invrep.errors import InvrepError, ToldError
from invrep.jobs.failures import note_missing
from invrep.jobs.job import Job
from invrep.jobs.plan import Plan, missing
from invrep.jobs.ranks import Rank, gpus, spread
from invrep.jobs.words import ABSENT, DIED, DONE, STOPPED, Words
from invrep.jobs.worker import share, work
from invrep.tracking.logger import Record
from invrep.tracking.progress import Bar, Ticks


class Executor(Protocol):
    """Does what is left of a plan."""

    @property
    def ranks(self) -> int:
        """How many processes share the photos."""

    @property
    def here(self) -> int:
        """How many of these are on this machine."""

    @property
    def index(self) -> int | None:
        """The rank that this process is; None where it does the whole job."""

    def execute(self, job: Job, plan: Plan, record: Record | None) -> str | None:
        """Do this process's part; what fails is noted in ``job.failures``.

        Args:
            job: its parts.
            plan: the job's.
            record: shows the curves in a logger; None in a process that does not complete the job.

        Returns:
            What went wrong although all is done, as a sentence; usually None.
        """


class ThisProcess:
    """Does the whole job in this process."""

    ranks, here, index = 1, 1, None

    def execute(self, job: Job, plan: Plan, record: Record | None) -> None:
        """Do it, with a bar and live curves."""
        with Bar(_pixels(job, plan.left), job.console) as bar:
            work(job, plan.left, bar, record)


class Devices:
    """Does the whole job in a process for each of this machine's devices.

    Args:
        devices: their indices.
    """

    index = None

    def __init__(self, devices: Sequence[int]) -> None:
        self.devices = devices
        self.ranks = self.here = len(devices)

    def execute(self, job: Job, plan: Plan, record: Record | None) -> None:
        """Start the processes, gather what they have done, and note what one that died has left undone."""
        config = OmegaConf.to_container(job.config, resolve=True)
        parts = zip(self.devices, evenly(plan.left, self.ranks), strict=True)
        with Bar(_pixels(job, plan.left), job.console) as bar:
            shares = [(config, job.photos, device, part) for device, part in parts if part]
            failures, dead = spread(share, shares, bar.tick)
        job.failures |= failures
        if dead:
            note_missing(job, plan.left, "its process died")
        _replay(job, plan, record)


class OneOfMany:
    """Does its share of a job whose processes torchrun or SLURM has started; rank 0 completes the job.

    Args:
        rank: which of them this is.
        words: those that it leaves the others.
    """

    def __init__(self, rank: Rank, words: Words) -> None:
        self.ranks, self.here, self.index, self.words = rank.count, rank.here, rank.index, words
        self.rank = rank

    def execute(self, job: Job, plan: Plan, record: Record | None) -> str | None:
        """Do this rank's share, then wait: rank 0 for all others, the others for rank 0."""
        there = gpus(job.config.trainer.accelerator)  # SLURM may show each task its own GPU only
        job.config.trainer.devices = [self.rank.device % there] if there else 1
        left = plan.left_of(self.index)
        if self.index > 0:
            work(job, left, Ticks(lambda _: None))
            self._leave(job, plan.shares[0])
            return None
        with Bar(_pixels(job, left), job.console) as bar:
            work(job, left, bar)
        absent = self._gather(job, plan)
        _replay(job, plan, record)
        return absent

    def _gather(self, job: Job, plan: Plan) -> str | None:
        """Wait for the other ranks, do the shares of those that have not come, and note what is missing.

        Returns:
            A sentence about the ranks that have not come; None where all have.

        Raises:
            InvrepError: a mistake has ended one of them.
        """
        gathered = self.words.gather()
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
        with Bar(_pixels(job, left), job.console) as bar:
            work(job, left, bar)
        return (
            f"Rank {some} of {self.ranks} has not come within a minute, and rank 0 has done its share; where nobody "
            f"has started several ranks, unset {self.rank.named}."
        )

    def _leave(self, job: Job, others: Sequence[Batch]) -> None:
        """Say that this rank has done its share, and wait for rank 0 to complete the job.

        Args:
            job: this rank's share of it is done.
            others: rank 0's share.

        Raises:
            InvrepError: rank 0 has ended before.
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


def _pixels(job: Job, batches: Sequence[Batch]) -> int:
    """Return how many pixels the passes of batches will see."""
    return sum(len(batch.rows) * math.prod(batch.size) for batch in batches) * job.descent.plan(job.phi)[0]


def _replay(job: Job, plan: Plan, record: Record | None) -> None:
    """Show the mean curve of what other processes have done."""
    if record is not None:
        record.replay(job.results.mean_curves(plan.keys(job)))
