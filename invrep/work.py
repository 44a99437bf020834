"""One rank's share of a job: batches are inverted and written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from invrep.callbacks import Record, Report, Ticks
from invrep.data import Photo
from invrep.errors import UnfitError
from invrep.film import Film, film_format
from invrep.inversion import Inversion, measure, solve
from invrep.job import Job, assemble
from invrep.ranks import gpus
from invrep.representations.base import Representation
from invrep.results import Finished

Missing = Sequence[tuple[Photo, int]]  # photos of one size and numbers of restarts: a batch


def share(
    config: dict[str, Any], device: int, todo: Sequence[Missing], report: Callable[[Report], None]
) -> dict[str, str]:
    """Do a rank's share in a process of its own, and return what is wrong with which photo.

    Args:
        config: the job's, resolved and with automatic values filled in.
        device: the index of the GPU, where there are any.
        todo: the share's batches.
        report: see :class:`invrep.callbacks.Ticks`.
    """
    made: DictConfig = OmegaConf.create(config)
    made.trainer.devices = [device] if gpus(made.trainer.accelerator) else 1
    job, _ = assemble(made, Console(quiet=True), photos=[])
    ticks = Ticks(report)
    for missing in todo:
        invert(job, missing, None, ticks)
    return job.failures


def invert(job: Job, missing: Sequence[tuple[Photo, int]], record: Record | None, callback: pl.Callback) -> None:
    """Invert photos of one size, each as often as it stands there with another restart, and write them.

    What does not fit into memory is done half by half; a photo that fails is noted in ``job.failures``.

    Args:
        job: whose parts are used.
        missing: photos and numbers of restarts.
        record: shows them in a logger, or None.
        callback: is told of the progress.
    """
    pixels = {photo: job.read(photo) for photo in dict.fromkeys(photo for photo, _ in missing)}
    readable = [photo for photo, tensor in pixels.items() if tensor is not None]
    rows = [(readable.index(photo), photo.id, r) for photo, r in missing if photo in readable]
    if not rows:
        return
    tensors = torch.stack([pixels[photo] for photo in readable])
    photos = None if readable[0].path is None else tensors
    counts = {sum(index == k for index, _, _ in rows) for k in range(len(readable))}
    if record is not None:
        record.photos, record.restarts = photos, counts.pop() if len(counts) == 1 else None
    config = job.config
    suffix = film_format(config.video)
    film = Film() if suffix else None
    began = time.monotonic()
    try:
        inversion = solve(
            tensors,
            rows,
            phi=job.phi,
            prior=job.prior,
            descent=job.descent,
            objective=job.objective,
            seed=config.seed,
            segment=config.log_every,
            trainer=config.trainer,
            callbacks=[part for part in (record, callback, film) if part is not None],
        )
    except UnfitError as error:
        job.failures |= {p.id: f"{p.path}: {error}" if p.path else str(error) for p in readable}
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        if len(missing) == 1:
            name = missing[0][0].path or missing[0][0].id
            job.failures[missing[0][0].id] = f"{name} does not fit into memory: make it smaller (data.resize)."
            return
        torch.cuda.empty_cache()
        for half in (missing[: len(missing) // 2], missing[len(missing) // 2 :]):
            invert(job, half, record, callback)
        return
    seconds = (time.monotonic() - began) / len(rows)
    for photo in readable if photos is not None else ():
        job.results.save_photo(photo.id, pixels[photo])
    contents = {photo.id: photo.content() for photo in readable}
    photos = None if photos is None else photos[[index for index, _, _ in rows]]
    found = finished_rows(inversion, photos, rows)
    classes = None
    if photos is not None:
        classes = job.classifier(photos.to(job.phi.mean.device), inversion.reconstruction().detach())
    for k, (finished, seen) in enumerate(zip(found, classes or [{}] * len(found), strict=True)):
        image, restart = finished.row["image"], finished.row["restart"]
        if not math.isfinite(finished.row["energy"]) or finished.row["failed"]:
            job.failures[image] = (
                f"{image} diverged in restart {restart}, with smaller steps too: lower the learning rate, or use "
                f"optim=adam."
            )
            continue
        del finished.row["failed"]
        if film is not None:  # before what makes the pre-image count as finished
            film.save(k, job.results, image, restart, display=config.display, suffix=suffix)
        finished.row |= {"seconds": seconds, "content": contents[image], **seen}
        job.results.save(image, restart, finished, config.display)


def finished_rows(inversion: Inversion, photos: Tensor | None, rows: Sequence[tuple[int, str, int]]) -> list[Finished]:
    """Return the rows, curves and pixels of a fitted inversion; ``failed`` in a row says that it diverged.

    Args:
        inversion: it has run.
        photos: (B, C, H, W) in [0, 1], of every row; None where there are none.
        rows: the photo's index, its id and the restart of each.
    """
    measures = {name: value.tolist() for name, value in measure(inversion, photos).items()}
    curve = [(at, {name: value.tolist() for name, value in terms.items()}) for at, terms in inversion.curve]
    pixels = inversion.reconstruction().detach().float().cpu()
    active = inversion.active.tolist()
    found = []
    for k, (_, image, restart) in enumerate(rows):
        row = {"image": image, "restart": restart, "pairwise_error": math.nan, "passes": inversion.passes}
        row |= {name: values[k] for name, values in measures.items()}
        row["failed"] = not active[k]
        points = [(at, {name: values[k] for name, values in terms.items()}) for at, terms in curve]
        found.append(Finished(row, points, pixels[k].clone()))
    return found


def _out_of_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in str(error) for w in words)


def memory(phi: Representation, shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Return about how many bytes a pass needs for each pre-image: what autograd keeps of Φ, and the image itself.

    Args:
        phi: the representation, on whatever device it is; one forward pass is made there.
        shape: (C, H, W).
        dtype: of the image.
    """
    kept: dict[int, int] = {}
    weights = {tensor.data_ptr() for tensor in (*phi.parameters(), *phi.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    phi.to(dtype=dtype)
    image = torch.rand(1, *shape, dtype=dtype, device=phi.mean.device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        code = phi(image)
    outputs = sum(part.nbytes for part in code)
    # the parameter, its gradient, the last good state, two moments and two passing copies; the code, Φ0 and their gap
    return sum(kept.values()) + 7 * image.nbytes + 3 * outputs


def room(accelerator: str) -> int:
    """Return how many bytes of memory are free for pre-images, of the GPU or of the machine."""
    if gpus(accelerator):
        return torch.cuda.mem_get_info()[0]
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    return 1024 * int(lines["MemAvailable"].split()[0])
