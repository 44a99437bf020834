"""A job's plan: its batches, what of them is left to do, and the memory that they take."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, repeat
from operator import itemgetter

from invrep.data.batching import Batch, Done, Keys, Size, ahead, batches, deal, evenly, split
from invrep.errors import InvrepError
from invrep.jobs.job import Job
from invrep.jobs.memory import Need, need, room

PEEKS = 64  # headers that are read ahead
USUAL_AT_ONCE = 8  # photos in a tensor
MOST_AT_ONCE = 64  # pre-images in a tensor by data.batch_size=auto, and restarts of a photo; more are no faster


@dataclass(frozen=True)
class Plan:
    """What a job does.

    Attributes:
        shares: each rank's batches, of the whole job.
        left: batches with the rows that are not finished.
        need: what the largest batch of these takes in memory; None where nothing is left or it cannot be known.
        free: bytes of memory that a rank has for it.
    """

    shares: tuple[tuple[Batch, ...], ...]
    left: tuple[Batch, ...]
    need: Need | None = None
    free: int = 0

    @property
    def batches(self) -> list[Batch]:
        """All batches of the job."""
        return [batch for share in self.shares for batch in share]

    @property
    def places(self) -> list[int]:
        """The places of the job's photos that can be read, in order."""
        return sorted({place for batch in self.batches for place in batch.places})

    @property
    def largest(self) -> Batch:
        """The batch of those left that takes most memory."""
        return max(self.left, key=lambda batch: len(batch.rows) * math.prod(batch.size))

    def left_of(self, rank: int) -> list[Batch]:
        """Return what is left of a rank's share."""
        rows = {row for batch in self.shares[rank] for row in batch.rows}
        return [batch for batch in self.left if batch.rows[0] in rows]

    def keys(self, job: Job) -> Keys:
        """Return the keys of the job's pre-images."""
        return Keys({job.photos.ids[place] for place in self.places}, job.config.restarts)


def make_plan(job: Job, ranks: int, only: int | None = None, here: int = 1) -> Plan:
    """Return a job's plan; photos that cannot be read are noted in ``job.failures``.

    Args:
        job: its parts.
        ranks: how many processes share its photos.
        only: the rank whose share alone matters here, so that only that is looked for on disk; None: all.
        here: how many of the processes are on this machine.
    """
    shares = tuple(map(tuple, _shares(job, ranks, here)))
    known = job.results.done()
    wanted = [batch for share in shares for batch in share] if only is None else shares[only]
    plan = Plan(shares, tuple(missing(job, wanted, known)))
    if only is not None or not plan.left:
        return plan
    wants = need(job, plan.largest.size, len(plan.largest.rows), len(plan.left))
    return replace(plan, need=wants, free=room(job.config.trainer.accelerator, here))


def _shares(job: Job, ranks: int, here: int) -> list[list[Batch]]:
    """Return each rank's batches, from the photos' headers where their size is not fixed; the bad ones are noted.

    Batches of a size that the user gives are the same for any number of ranks. Else every rank has photos, if there
    are as many, and which is the same whatever memory each of them finds.
    """
    places = range(len(job.photos))
    sizes = ahead(lambda place: (place, job.size(job.photos[place])), places, PEEKS)
    sized = ((place, size) for place, size in sizes if size is not None)
    asked, restarts = job.config.data.get("batch_size", 1), job.config.restarts
    most = cache(_fit(job, here)) if asked == "auto" else lambda _: MOST_AT_ONCE

    def at_once(size: Size) -> int:
        return max(most(size) // restarts, 1) if asked == "auto" else asked or USUAL_AT_ONCE

    def divided(some: Iterable[tuple[int, Size]]) -> Iterator[Batch]:
        for batch in batches(some, at_once, restarts):
            yield from split(batch, most(batch.size)) if restarts > most(batch.size) else [batch]

    if ranks == 1 or asked not in (None, "auto"):
        return evenly(list(divided(sized)), ranks)
    return [list(divided(part)) for part in deal(sized, ranks)]


def _fit(job: Job, here: int) -> Callable[[Size], int]:
    """Return how many pre-images of a size surely fit into memory together, of those whose number makes them faster.

    Sizes of about as many pixels are rehearsed once.

    Args:
        job: its parts.
        here: how many of its processes are on this machine.
    """
    known: dict[int, tuple[int, Need | None]] = {}

    def free() -> float:
        return 0.7 * room(job.config.trainer.accelerator, here)

    def rehearsed(size: Size) -> Need | None:
        wanted = need(job, size, MOST_AT_ONCE, 2)
        if wanted is None or (rows := wanted.fit(free())) >= MOST_AT_ONCE:
            return wanted
        return need(job, size, rows, 2)  # the blocks of a smaller batch lie in the heap, of which less is known

    def fit(size: Size) -> int:
        pixels = math.prod(size)
        about = round(2 * math.log2(pixels))
        if about not in known:
            known[about] = pixels, rehearsed(size)
        like, wanted = known[about]
        return 1 if wanted is None else min(max(int(wanted.fit(free()) * like / pixels), 1), MOST_AT_ONCE)

    return fit


def missing(job: Job, planned: Sequence[Batch], done: Done | None = None) -> list[Batch]:
    """Return what of batches is not finished: a photo that has been edited since is as good as new.

    Args:
        job: its parts; photos that cannot be read are noted in its ``failures``.
        planned: the batches.
        done: the pre-images that are finished; None to look on disk.
    """
    done = job.results.done() if done is None else done
    if not done:
        return list(planned)
    left = []
    for batch in planned:
        rows = []
        for place, group in groupby(map(divmod, batch.rows, repeat(batch.restarts)), itemgetter(0)):
            photo = job.photos[place]
            keys = {place * batch.restarts + restart: (photo.id, restart) for _, restart in group}
            try:
                content = photo.content() if any(key in done for key in keys.values()) else None
            except InvrepError as error:
                job.failures[photo.id] = str(error)
                continue
            rows += [row for row, key in keys.items() if content is None or not done.of(key, content)]
        if rows:
            left.append(replace(batch, rows=array("Q", rows)))
    return left
