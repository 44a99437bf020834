"""Execute one rank's share of a job: read, invert and write its batches."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from invrep.evaluation.still_falling import falling
from invrep.inversion.compute import exact
from invrep.inversion.module import Inversion
from invrep.inversion.outcome import outcome_of
from invrep.inversion.solver import solve
from invrep.jobs.job import Job, Read, assemble
from invrep.jobs.process import prepare_process
from invrep.jobs.ranks import gpus
from invrep.jobs.writer import Writer
from invrep.objectives.code_selection import boxes_of
from invrep.results.rows import Finished
from invrep.tracking.checkpoint import Checkpoint
from invrep.tracking.film import Film, film_format
from invrep.tracking.logger import Record
from invrep.tracking.progress import Report, Ticks

log = logging.getLogger(__name__)


@exact()
def share(
    config: dict[str, Any], photos: Photos, device: int, todo: Sequence[Batch], report: Callable[[Report], None]
) -> dict[str, str]:
    """Execute a rank's share in a process of its own, and return a sentence for each failed photo, by its id.

    Args:
        config: resolved config of the job, with automatic values filled in.
        photos: photos of the job.
        device: index of the GPU; unused without GPUs.
        todo: unfinished batches of the share.
        report: function that receives the progress, see :class:`invrep.tracking.progress.Ticks`.
    """
    prepare_process()
    made: DictConfig = OmegaConf.create(config)
    made.trainer.devices = [device] if gpus(made.trainer.accelerator) else 1
    job = assemble(made, Console(quiet=True), photos)
    work(job, todo, Ticks(report))
    return job.failures


def work(job: Job, todo: Sequence[Batch], callback: Ticks, record: Record | None = None) -> None:
    """Invert batches and write the results; threads meanwhile read the next photos and write the last results.

    Args:
        job: parts of the job; failing photos are noted in its ``failures``.
        todo: unfinished batches.
        callback: callback that reports the progress.
        record: callback that writes to a logger; None: no logger.
    """
    most = max((len(batch.places) for batch in todo), default=0)
    ahead = job.read_ahead((place for batch in todo for place in batch.places), most)
    gc.freeze()  # a collection then visits only objects of the batches; each Trainer leaves reference cycles
    try:
        with Writer() as write, closing(ahead):
            worker = Worker(job, write, callback, record)
            last, at = None, 0
            for batch in todo:
                first = at + (batch.places[0] != last)  # the restarts of one photo may fill several batches
                last, at = batch.places[-1], first + len(batch.places) - 1
                callback.images = (first, at)
                some = islice(ahead, len(batch.places))
                reads = {place: read for place, read in some if read is not None}
                rows = [divmod(row, batch.restarts) for row in batch.rows]
                worker.invert([row for row in rows if row[0] in reads], reads)
                gc.collect()
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Worker:
    """Invert batches of photos, and queue their results for writing.

    Attributes:
        job: parts of the job; failing photos are noted in its ``failures``.
        write: writer of the results.
        callback: callback that reports the progress.
        record: callback that writes to a logger; None: no logger.
    """

    job: Job
    write: Writer
    callback: pl.Callback
    record: Record | None

    def invert(self, rows: Sequence[tuple[int, int]], reads: Mapping[int, Read]) -> None:
        """Invert photos of one size, and queue the results for writing.

        A batch that does not fit into memory is split into halves.

        Args:
            rows: pairs of a photo's place and the number of a restart, one for each pre-image.
            reads: photos by their places.
        """
        if not rows:
            return
        places = list(dict.fromkeys(place for place, _ in rows))
        photos = {place: self.job.photos[place] for place in places}
        tensors = torch.stack([reads[place].pixels for place in places])
        named = [(places.index(place), photos[place].id, restart) for place, restart in rows]
        shown = None if photos[places[0]].open is None else tensors
        if self.record is not None:
            self.record.begin(named, shown)
        config, checkpoint = self.job.config, None
        if config.checkpoint.every is not None:
            every = config.checkpoint.every
            checkpoint = Checkpoint(self.job.results.checkpoints, every, named, tensors, config.log_every)
        film = Film() if film_format(config.video) else None
        began = time.monotonic()
        inversion = None
        try:
            inversion = self._solve(tensors, named, film, checkpoint)
        except UnfitError as error:
            self._leave_out(error, rows, reads)
            return
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if inversion is None:  # outside except, since the error kept the batch's memory alive
            self._halve(rows, reads, reason)
            return
        seconds = (time.monotonic() - began) / len(rows)
        beside = None if shown is None else shown[[index for index, _, _ in named]]
        extras = [{"seconds": seconds, "content": reads[place].content} for place, _ in rows]
        kept = self._finished(inversion, beside, named, extras)
        boxes = _boxes(self.job, tensors[:1])
        for _, finished in kept:
            finished.row |= boxes
        pictures = [] if shown is None else [(photos[place].id, reads[place].pixels) for place in places]
        self.write(_write, self.job, pictures, kept, film)
        if checkpoint is not None:
            self.write(checkpoint.remove)

    def _solve(
        self, photos: Tensor, rows: list[tuple[int, str, int]], film: Film | None, checkpoint: Checkpoint | None
    ) -> Inversion:
        job, config = self.job, self.job.config
        return solve(
            photos,
            rows,
            phi=job.phi,
            prior=job.prior,
            descent=job.descent,
            objective=job.objective,
            seed=config.seed,
            segment=config.log_every,
            trainer=config.trainer,
            callbacks=[part for part in (self.record, self.callback, film) if part is not None],
            checkpoint=checkpoint,
            compute=job.compute,
            trial=job.trial,
            baseline=job.baseline,
        )

    def _leave_out(self, error: UnfitError, rows: Sequence[tuple[int, int]], reads: Mapping[int, Read]) -> None:
        """Note the photos that Φ rejects, and invert the others."""
        unfit = [rows[k] for k in error.rows] or rows
        for photo in (self.job.photos[place] for place, _ in unfit):
            self.job.failures[photo.id] = f"{photo.name}: {error}" if photo.open else str(error)
        if error.rows:
            self.invert([row for row in rows if row not in unfit], reads)

    def _halve(self, rows: Sequence[tuple[int, int]], reads: Mapping[int, Read], reason: str) -> None:
        """Invert the halves of a batch that did not fit into memory, or note a photo that does not fit alone."""
        gc.collect()
        torch.cuda.empty_cache()
        if len(rows) == 1:
            photo = self.job.photos[rows[0][0]]
            said = f"{photo.name} does not fit into memory ({reason}): make it smaller (data.resize)."
            self.job.failures[photo.id] = said
            return
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            self.invert(half, reads)

    def _finished(
        self,
        inversion: Inversion,
        photos: Tensor | None,
        rows: Sequence[tuple[int, str, int]],
        extras: Sequence[Mapping[str, Any]],
    ) -> list[tuple[int, Finished]]:
        """Return the successful pre-images with their rows of the batch, and note the failed ones.

        Args:
            inversion: fitted inversion.
            photos: photo of every row, (B, C, H, W) in [0, 1]; None without photos.
            rows: triple for each row, see :func:`~invrep.inversion.solver.solve`.
            extras: further columns of ``metrics.csv``, one dictionary for each row.
        """
        outcome = outcome_of(inversion, photos)
        classes = None if photos is None else _classes(self.job, photos, inversion)
        curve = [(at, {name: values.tolist() for name, values in terms.items()}) for at, terms in outcome.curve]
        kept = []
        for k, (_, image, restart) in enumerate(rows):
            if (why := outcome.failures[k]) is not None:
                self.job.failures[image] = f"{image} {why} (restart {restart})."
                continue
            row = {"image": image, "restart": restart, "pairwise_error": math.nan, "passes": outcome.passes[k]}
            row |= {name: float(values[k]) for name, values in outcome.measures.items()}
            points = [(at, {name: values[k] for name, values in terms.items()}) for at, terms in curve]
            row |= {"remark": outcome.remarks[k], **falling(points)}
            finished = Finished(row, points, outcome.images[k].float().clone())
            finished.row |= {**extras[k], **(classes[k] if classes else {})}
            kept.append((k, finished))
        return kept


def _classes(job: Job, photos: Tensor, inversion: Inversion) -> list[dict[str, Any]]:
    """Return the columns about the top-1 classes of photos and pre-images; an empty list if memory runs out.

    Args:
        job: parts of the job.
        photos: photo of every row, (B, C, H, W) in [0, 1].
        inversion: fitted inversion.
    """
    try:
        return job.classifier(photos.to(job.phi.mean.device), inversion.reconstruction().detach())
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        log.warning("Memory has run out after the last pass; the classes of %d images are blank.", len(photos))
        return []


@torch.no_grad()
def _boxes(job: Job, photo: Tensor) -> dict[str, str]:
    """Return the column ``boxes`` for photos of one size; an empty dictionary without ``objective.region``.

    Args:
        job: parts of the job.
        photo: any photo of that size, (1, C, H, W) in [0, 1].
    """
    if (region := job.config.objective.get("region")) is None:
        return {}
    code = job.phi(photo.to(job.phi.mean.device))
    return {"boxes": boxes_of(code, job.phi, region, (photo.shape[2], photo.shape[3]))}


def _write(
    job: Job, photos: Sequence[tuple[str, Tensor]], kept: Sequence[tuple[int, Finished]], film: Film | None
) -> None:
    config = job.config
    for image, pixels in photos:
        job.results.save_photo(image, pixels, config.display)
    for row, finished in kept:
        # the film comes first, since save() marks the pre-image as finished
        if film is not None and (suffix := film_format(config.video)):
            film.save(row, job.results, *finished.key, display=config.display, suffix=suffix)
        job.results.save(finished, config.display)
