"""One rank's share of a job: batches are read, inverted and written."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from invrep.data.batching import Batch
from invrep.data.photo import Photos
from invrep.errors import UnfitError, out_of_memory
from invrep.inversion.compute import exact
from invrep.inversion.module import Inversion
from invrep.inversion.outcome import Outcome, outcome_of
from invrep.inversion.solver import solve
from invrep.jobs.job import Job, Read, assemble
from invrep.jobs.process import prepare_process
from invrep.jobs.ranks import gpus
from invrep.objectives.code_selection import boxes_of
from invrep.results.rows import Finished
from invrep.tracking.checkpoint import Checkpoint
from invrep.tracking.film import Film, film_format
from invrep.tracking.logger import Record
from invrep.tracking.progress import Report, Ticks

log = logging.getLogger(__name__)
WRITES_AHEAD = 2  # batches that wait to be written while the device goes on


class Writer:
    """Writes in a thread of its own, so that the device need not wait; leaving it waits for all that is to be written.

    Calling it, or leaving it, raises what an earlier writing has raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __call__(self, write: Callable[..., None], *arguments: Any) -> None:
        """Let ``write(*arguments)`` happen after what was asked for before."""
        self._waiting.append(self._pool.submit(write, *arguments))
        while len(self._waiting) > WRITES_AHEAD:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        for future in self._waiting if kind is None else ():
            future.result()


@exact()
def share(
    config: dict[str, Any], photos: Photos, device: int, todo: Sequence[Batch], report: Callable[[Report], None]
) -> dict[str, str]:
    """Do a rank's share in a process of its own, and return what is wrong with which photo.

    Args:
        config: the job's, resolved and with automatic values filled in.
        photos: the job's.
        device: the index of the GPU, where there are any.
        todo: the share's batches.
        report: see :class:`invrep.tracking.progress.Ticks`.
    """
    prepare_process()
    made: DictConfig = OmegaConf.create(config)
    made.trainer.devices = [device] if gpus(made.trainer.accelerator) else 1
    job = assemble(made, Console(quiet=True), photos)
    work(job, todo, Ticks(report))
    return job.failures


def work(job: Job, todo: Sequence[Batch], callback: Ticks, record: Record | None = None) -> None:
    """Invert batches and write what is found; the next photos are read and the last ones written meanwhile.

    Args:
        job: whose parts are used; a photo that fails is noted in its ``failures``.
        todo: the batches.
        callback: is told of the progress.
        record: shows them in a logger, or None.
    """
    most = max((len(batch.places) for batch in todo), default=0)
    reads = job.read_ahead((place for batch in todo for place in batch.places), most)
    gc.freeze()  # so that to collect is to look through no more than a batch leaves, in cycles round its Trainer
    try:
        with Writer() as write, closing(reads):
            for number, batch in enumerate(todo, 1):
                callback.label = f"batch {number}/{len(todo)}"
                some = islice(reads, len(batch.places))
                found = {place: read for place, read in some if read is not None}
                rows = [divmod(row, batch.restarts) for row in batch.rows]
                invert(job, [row for row in rows if row[0] in found], found, write, callback, record)
                gc.collect()
    finally:
        gc.unfreeze()


def invert(
    job: Job,
    rows: Sequence[tuple[int, int]],
    found: Mapping[int, Read],
    write: Writer,
    callback: pl.Callback,
    record: Record | None,
) -> None:
    """Invert photos of one size, each as often as it stands there with another restart, and have them written.

    What does not fit into memory is done half by half; a photo that fails is noted in ``job.failures``.

    Args:
        job: whose parts are used.
        rows: places of photos that can be read, and numbers of restarts.
        found: the photos.
        write: writes the results.
        callback: is told of the progress.
        record: shows them in a logger, or None.
    """
    if not rows:
        return
    places = list(dict.fromkeys(place for place, _ in rows))
    photos = {place: job.photos[place] for place in places}
    tensors = torch.stack([found[place].pixels for place in places])
    named = [(places.index(place), photos[place].id, restart) for place, restart in rows]
    shown = None if photos[places[0]].open is None else tensors
    counts = {sum(place == p for p, _ in rows) for place in places}
    if record is not None:
        record.photos, record.restarts = shown, counts.pop() if len(counts) == 1 else None
    config = job.config
    every, checkpoint = config.checkpoint.every, None
    if every is not None:
        checkpoint = Checkpoint(job.results.checkpoints, every, named, tensors, config.log_every)
    film = Film() if film_format(config.video) else None
    began = time.monotonic()
    inversion = None
    try:
        inversion = solve(
            tensors,
            named,
            phi=job.phi,
            prior=job.prior,
            descent=job.descent,
            objective=job.objective,
            seed=config.seed,
            segment=config.log_every,
            trainer=config.trainer,
            callbacks=[part for part in (record, callback, film) if part is not None],
            checkpoint=checkpoint,
            compute=job.compute,
            trial=job.trial,
        )
    except UnfitError as error:
        unfit = [rows[k] for k in error.rows] or rows
        for photo in (photos[place] for place, _ in unfit):
            job.failures[photo.id] = f"{photo.name}: {error}" if photo.open else str(error)
        if error.rows:
            invert(job, [row for row in rows if row not in unfit], found, write, callback, record)
        return
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    if inversion is None:  # only now, since the error held what the batch has taken
        _halve(job, rows, found, write, callback, record, reason)
        return
    seconds = (time.monotonic() - began) / len(rows)
    beside = None if shown is None else shown[[index for index, _, _ in named]]
    outcome = outcome_of(inversion, beside)
    classes = None if beside is None else _classes(job, beside, inversion)
    boxes = _boxes(job, tensors[:1])
    kept = []
    for k, (_, image, restart) in enumerate(named):
        if (why := outcome.failures[k]) is not None:
            job.failures[image] = f"{image} {why} (restart {restart})."
            continue
        finished = _finished(outcome, k, image, restart)
        seen = classes[k] if classes else {}
        finished.row |= {"seconds": seconds, "content": found[rows[k][0]].content, **seen, **boxes}
        kept.append((k, finished))
    pictures = [] if shown is None else [(photos[place].id, found[place].pixels) for place in places]
    write(_write, job, pictures, kept, film)
    if checkpoint is not None:
        write(checkpoint.remove)


def _halve(
    job: Job,
    rows: Sequence[tuple[int, int]],
    found: Mapping[int, Read],
    write: Writer,
    callback: pl.Callback,
    record: Record | None,
    reason: str,
) -> None:
    """Invert one half after the other of what did not fit into memory, or note the photo that does not fit alone."""
    gc.collect()
    torch.cuda.empty_cache()
    if len(rows) == 1:
        photo = job.photos[rows[0][0]]
        job.failures[photo.id] = f"{photo.name} does not fit into memory ({reason}): make it smaller (data.resize)."
        return
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        invert(job, half, found, write, callback, record)


def _classes(job: Job, photos: Tensor, inversion: Inversion) -> list[dict[str, Any]]:
    """Return the classes of the photos and their pre-images; none where there is no memory for them."""
    try:
        return job.classifier(photos.to(job.phi.mean.device), inversion.reconstruction().detach())
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        log.warning("Memory has run out after the last pass; the classes of %d images are blank.", len(photos))
        return []


@torch.no_grad()
def _boxes(job: Job, photo: Tensor) -> dict[str, str]:
    """Return the column ``boxes`` of photos of one size, of which one is given, (1, C, H, W); none without a region."""
    if (region := job.config.objective.get("region")) is None:
        return {}
    code = job.phi(photo.to(job.phi.mean.device))
    return {"boxes": boxes_of(code, job.phi, region, (photo.shape[2], photo.shape[3]))}


def _write(
    job: Job, photos: Sequence[tuple[str, Tensor]], found: Sequence[tuple[int, Finished]], film: Film | None
) -> None:
    config = job.config
    for image, pixels in photos:
        job.results.save_photo(image, pixels)
    for row, finished in found:
        if film is not None and (
            suffix := film_format(config.video)
        ):  # before what makes the pre-image count as finished
            film.save(row, job.results, *finished.key, display=config.display, suffix=suffix)
        job.results.save(finished, config.display)


def _finished(outcome: Outcome, k: int, image: str, restart: int) -> Finished:
    """Return the row, curve and pixels of one image of a batch."""
    row = {"image": image, "restart": restart, "pairwise_error": math.nan, "passes": outcome.passes[k]}
    row |= {name: float(values[k]) for name, values in outcome.measures.items()}
    row |= {"remark": outcome.remarks[k]}
    points = [(at, {name: float(values[k]) for name, values in terms.items()}) for at, terms in outcome.curve]
    return Finished(row, points, outcome.images[k].float().clone())
