"""Plan a job: its batches, the unfinished ones, and their memory."""

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

PEEKS = 64  # photo headers read ahead
USUAL_AT_ONCE = 8  # photos in a batch by default
MOST_AT_ONCE = 64  # most pre-images in a batch with data.batch_size=auto, and restarts of a photo; more are no faster


@dataclass(frozen=True)
class Plan:
    """Hold the plan of a job.

    Attributes:
        shares: batches of each rank, finished ones included.
        left: batches with their unfinished rows only.
        need: memory of the largest unfinished batch; None if nothing is left or it cannot be estimated.
        free: memory that is free for it, in bytes for each rank.
    """

    shares: tuple[tuple[Batch, ...], ...]
    left: tuple[Batch, ...]
    need: Need | None = None
    free: int = 0

    @property
    def batches(self) -> list[Batch]:
        """Return all batches of the job."""
        return [batch for share in self.shares for batch in share]

    @property
    def places(self) -> list[int]:
        """Return the places of the job's readable photos, in order."""
        return sorted({place for batch in self.batches for place in batch.places})

    @property
    def largest(self) -> Batch:
        """Return the unfinished batch with the most pixels, which takes the most memory."""
        return max(self.left, key=lambda batch: len(batch.rows) * math.prod(batch.size))

    def left_of(self, rank: int) -> list[Batch]:
        """Return the unfinished batches of a rank's share."""
        rows = {row for batch in self.shares[rank] for row in batch.rows}
        return [batch for batch in self.left if batch.rows[0] in rows]

    def keys(self, job: Job) -> Keys:
        """Return the keys of the job's pre-images."""
        return Keys({job.photos.ids[place] for place in self.places}, job.config.restarts)


def make_plan(job: Job, ranks: int, only: int | None = None, here: int = 1) -> Plan:
    """Return a job's plan, and note unreadable photos in ``job.failures``.

    Args:
        job: parts of the job.
        ranks: number of processes that share its photos.
        only: rank whose share alone is looked up on disk, without an estimate of memory; None: all ranks.
        here: number of these processes on this machine.
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
    """Return the batches of each rank, and note unreadable photos in ``job.failures``.

    Sizes come from the photos' headers, unless all images have a fixed size. With a batch size from the user, the
    batches are the same for any number of ranks. Otherwise every rank gets photos, if enough exist. The choice of its
    photos does not depend on the free memory of any rank.
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
    """Return a function from an image size to the number of pre-images that surely fit into memory together.

    The number is 1 to ``MOST_AT_ONCE``. Sizes with about the same number of pixels share one rehearsal.

    Args:
        job: parts of the job.
        here: number of its processes on this machine.
    """
    known: dict[int, tuple[int, Need | None]] = {}

    def free() -> float:
        return 0.7 * room(job.config.trainer.accelerator, here)

    def rehearsed(size: Size) -> Need | None:
        wanted = need(job, size, MOST_AT_ONCE, 2)
        if wanted is None or (rows := wanted.fit(free())) >= MOST_AT_ONCE:
            return wanted
        return need(job, size, rows, 2)  # a smaller batch has its blocks in the heap, whose bounds are wider

    def fit(size: Size) -> int:
        pixels = math.prod(size)
        about = round(2 * math.log2(pixels))
        if about not in known:
            known[about] = pixels, rehearsed(size)
        like, wanted = known[about]
        return 1 if wanted is None else min(max(int(wanted.fit(free()) * like / pixels), 1), MOST_AT_ONCE)

    return fit


def missing(job: Job, planned: Sequence[Batch], done: Done | None = None) -> list[Batch]:
    """Return batches with their unfinished rows only; a photo edited since its inversion counts as unfinished.

    Args:
        job: parts of the job; unreadable photos are noted in its ``failures``.
        planned: batches to check.
        done: finished pre-images; None: those on disk.
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
