"""Note and report the photos that a job has not inverted."""

from __future__ import annotations

from collections.abc import Sequence

from invrep.data.batching import Batch
from invrep.errors import InvrepError
from invrep.jobs.job import Job
from invrep.jobs.plan import missing
from invrep.messages import count
from invrep.results.lists import write_list

MOST_TOLD = 10  # photos named in a message; failed.txt has all


def note_missing(job: Job, batches: Sequence[Batch], why: str) -> None:
    """Note the photos of batches that have unfinished pre-images.

    Args:
        job: parts of the job; its ``failures`` are extended.
        batches: batches to look up on disk.
        why: reason, as the rest of a sentence after "since".
    """
    for batch in missing(job, batches):
        for image in (job.photos.ids[place] for place in batch.places):
            job.failures.setdefault(image, f"{image} is missing, since {why}; run the same command again.")


def note_gone(job: Job, batches: Sequence[Batch]) -> None:
    """Note photos whose pre-images neither failed nor exist: their results were removed during the job.

    Args:
        job: parts of the job; its ``failures`` are extended.
        batches: all batches of the job.
    """
    done = job.results.done()
    for batch in batches:
        for place, restart in (divmod(row, batch.restarts) for row in batch.rows):
            if ((image := job.photos.ids[place]), restart) not in done:
                why = "its results were removed while the job was at work; run the same command again."
                job.failures.setdefault(image, f"{image} is missing, since {why}")


def raise_failures(job: Job, *, done: int) -> None:
    """Report the photos that failed, if any, and list all of them in ``failed.txt``.

    Args:
        job: parts of the job, with its ``failures``.
        done: number of photos that were inverted.

    Raises:
        InvrepError: some photos failed.
    """
    failures, path = dict(sorted(job.failures.items())), job.results.folder / "failed.txt"
    told = list(failures.values())
    if not job.config.dry_run and (path.parent.is_dir() or len(told) > MOST_TOLD):
        write_list(path, failures)
    if not told:
        return
    if len(told) == 1 and not done:
        raise InvrepError(told[0])
    where = f", see {path}" if path.is_file() else ""
    rest = f" … and {len(told) - MOST_TOLD} more{where}" if len(told) > MOST_TOLD else ""
    others = "all others are done" if done else "and there is no other"
    some = " ".join(told[:MOST_TOLD])
    raise InvrepError(f"{count(len(told), 'photo')} could not be inverted, {others}: {some}{rest}")
