"""The composition root: builds the parts from a config and runs one job."""

from __future__ import annotations

import ctypes
import logging
import math
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from invrep.callbacks import Bar, Record
from invrep.config import build, check
from invrep.data import Batch, Photo, batches
from invrep.errors import InvrepError, UnfitError
from invrep.finish import Found, finish, summary
from invrep.inversion import Inversion, measure, solve
from invrep.job import Job, assemble
from invrep.representations.base import Representation
from invrep.representations.listing import layers_table
from invrep.representations.network import LISTING, Network
from invrep.results import Finished, Key

log = logging.getLogger(__name__)
VERSIONS = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "pillow")


def run(config: DictConfig) -> float | None:
    """Run one job and return the mean over photos and restarts of the relative error ‖Φ−Φ0‖²/‖Φ0‖².

    Where the objective is to raise an activation, the mean is of that.

    Photos that are finished in the job's folder are skipped; a photo that cannot be read or inverted is reported at
    the end, after the others are done. Returns None for ``dry_run=true``.

    Raises:
        InvrepError: the config is wrong, nothing can be inverted, or some photos failed.
    """
    try:
        return _run(config)
    except InvrepError as error:
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            # Hydra shows the first failure of a sweep only, at its end
            log.error("%s", error)
        raise


def keep_memory() -> None:
    """Let glibc keep the memory that a pass frees for the next one, which needs the same.

    By default it hands large blocks back to the system each time, and getting them anew costs a fifth of a HOG pass,
    and many times the pass on a virtual machine whose host takes unused pages away.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # no glibc
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 * 2**20)  # the most it takes
    mallopt(trim_threshold, 2**30)


def _run(config: DictConfig) -> float | None:
    keep_memory()
    console = Console(highlight=False)
    config = config.copy()
    check(config)
    if config.layer in LISTING:
        network = build(config.rep)
        if not isinstance(network, Network):
            raise InvrepError(f"rep={config.name} is one code and has no layers; leave layer out.")
        wide = console if console.is_terminal else Console(highlight=False, width=160)
        wide.print(layers_table(network))
        return None
    job, photos = assemble(config, console)
    results, phi = job.results, job.phi
    sizes = {}
    for photo in photos:
        try:
            sizes[photo] = job.size(photo)
        except InvrepError as error:
            job.failures[photo.id] = str(error)
    if not sizes:
        _fail(job, done=0)
    planned = list(batches(sizes.items(), config.data.get("batch_size", 1)))
    finished = results.rows()
    todo = [(batch, rows) for batch in planned if (rows := _missing(batch, finished, config.restarts))]
    _show_plan(job, planned, todo)
    if config.dry_run:
        _fail(job, done=len(sizes))
        return None
    with results.held():
        results.save_config(_provenance(config, phi.weights_id))
        record = Record(
            config.logger,
            folder=results.folder,
            name=results.folder.name,
            group=_group(),
            every=config.images_every,
            display=config.display,
        )
        record.write_config(OmegaConf.to_container(OmegaConf.load(results.config)))
        found = Found()
        whole = False
        try:
            steps = job.descent.plan(phi)[0]
            with Bar(sum(len(rows) for _, rows in todo) * steps, console) as bar:
                for number, (batch, missing) in enumerate(todo, 1):
                    bar.label = f"batch {number}/{len(todo)}"
                    _invert(job, batch, missing, record, bar)
            found = finish(job, list(sizes), new=bool(todo))
            whole = not job.failures
        finally:
            seen = record.close(list(found.rows.values()), results.grid, not whole, found.spreads)
    summary(job, found, seen)
    _fail(job, done=len({image for image, _ in found.rows}))
    return float(torch.tensor([row[job.kind.shows] for row in found.rows.values()]).mean())


def _missing(batch: Batch, finished: dict[Key, dict[str, Any]], restarts: int) -> list[tuple[Photo, int]]:
    """Return what of a batch is not finished: a photo that has been edited since is as good as new."""
    rows = []
    for photo in batch.photos:
        done = [r for r in range(restarts) if (photo.id, r) in finished]
        content = photo.content() if done else ""
        rows += [(photo, r) for r in range(restarts) if r not in done or finished[(photo.id, r)]["content"] != content]
    return rows


def _invert(job: Job, batch: Batch, missing: Sequence[tuple[Photo, int]], record: Record, bar: Bar) -> None:
    """Invert what is missing of a batch and write it."""
    pixels = {photo: job.read(photo) for photo in dict.fromkeys(photo for photo, _ in missing)}
    readable = [photo for photo, tensor in pixels.items() if tensor is not None]
    rows = [(readable.index(photo), photo.id, r) for photo, r in missing if photo in readable]
    if not rows:
        return
    tensors = torch.stack([pixels[photo] for photo in readable])
    photos = None if readable[0].path is None else tensors
    counts = {sum(index == k for index, _, _ in rows) for k in range(len(readable))}
    record.photos, record.restarts = photos, counts.pop() if len(counts) == 1 else None
    config = job.config
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
            callbacks=[record, bar],
        )
    except UnfitError as error:
        job.failures |= {p.id: f"{p.path}: {error}" if p.path else str(error) for p in readable}
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
    for finished, seen in zip(found, classes or [{}] * len(found), strict=True):
        image, restart = finished.row["image"], finished.row["restart"]
        if not math.isfinite(finished.row["energy"]) or finished.row["failed"]:
            job.failures[image] = (
                f"{image} diverged in restart {restart} (its energy was not finite): lower the learning rate, or use "
                f"optim=adam."
            )
            continue
        del finished.row["failed"]
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


def _show_plan(job: Job, planned: Sequence[Batch], todo: Sequence[tuple[Batch, list[Any]]]) -> None:
    """Say what is going to be done, before it is."""
    config, console = job.config, job.console
    images = sum(len(batch.photos) for batch in planned)
    wanted = images * config.restarts
    rows = sum(len(rows) for _, rows in todo)
    sizes = sorted({batch.size for batch in planned})
    size = " ".join(f"{w}×{h}" for h, w in sizes[:3]) + (f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else "")
    what = f"{config.name} {config.layer}" if config.layer is not None else config.name
    console.print(
        f"[bold]{what}[/]: {_count(images, 'image')} × {_count(config.restarts, 'restart')}, {size} px, "
        f"{'RGB' if job.channels == 3 else 'grey'}, {job.descent.plan(job.phi)[0]} passes each"
    )
    if wanted > rows and images:
        console.print(f"{wanted - rows} of {wanted} are finished in {job.results.folder} and are skipped")
    for height, width in sizes:
        shape = (job.channels, height, width)
        if warning := job.descent.warning(job.phi, job.prior.for_shape(shape, job.phi), shape):
            console.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
            break
    if todo:
        batch, some = max(todo, key=lambda item: len(item[1]) * math.prod(item[0].size))
        try:
            bytes_ = memory(job.phi, (job.channels, *batch.size), getattr(torch, config.dtype)) * len(some)
        except InvrepError:
            return  # the batch itself reports what is wrong with its size
        where = "GPU memory" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "memory"
        console.print(
            f"{_count(len(todo), 'batch', 'batches')} of up to {_count(len(some), 'pre-image')}, "
            f"about {max(bytes_ / 2**30, 0.1):.1f} GB of {where}; results in {job.results.folder}",
            soft_wrap=True,
        )


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


def _fail(job: Job, *, done: int) -> None:
    """Report the photos that failed, if any.

    Raises:
        InvrepError: some did.
    """
    if not job.failures:
        return
    listed = list(job.failures.values())
    if len(listed) == 1 and not done:
        raise InvrepError(listed[0])
    rest = f" … and {len(listed) - 10} more" if len(listed) > 10 else ""
    others = "all others are done" if done else "and there is no other"
    raise InvrepError(f"{_count(len(listed), 'photo')} could not be inverted, {others}: {' '.join(listed[:10])}{rest}")


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _group() -> str | None:
    """Return the sweep's name within a multirun, else None."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def _provenance(config: DictConfig, weights: str | None) -> DictConfig:
    """Return the resolved config with what else a result depends on: versions, commit, command, weights."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    resolved.provenance = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "weights": weights,
        "versions": {"invrep": version("invrep"), "python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
    }
    return resolved


def _commit() -> str | None:
    """Return the project's git commit, with ``-dirty`` where files differ from it; None outside a clone."""

    def git(arguments: Iterable[str]) -> str:
        place = Path(__file__).parent
        found = subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=True, timeout=10)
        return found.stdout.strip()

    try:
        return git(["rev-parse", "HEAD"]) + ("-dirty" if git(["status", "--porcelain", "-uno"]) else "")
    except (OSError, subprocess.SubprocessError):
        return None
