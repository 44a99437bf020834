"""The composition root: builds the parts from a config and runs one job."""

from __future__ import annotations

import ctypes
import logging
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from invrep.callbacks import Bar, Record, Ticks
from invrep.config import build, check
from invrep.data import Batch, Photo, batches
from invrep.errors import InvrepError
from invrep.finish import Found, finish, summary
from invrep.job import Job, assemble
from invrep.ranks import gather, gpus, launched, leave_word, local_devices, spread
from invrep.representations.listing import layers_table
from invrep.representations.network import LISTING, Network
from invrep.results import Key
from invrep.work import Missing, invert, memory, room, share

log = logging.getLogger(__name__)
MOST_AT_ONCE = 64  # photos in a tensor by data.batch_size=auto; more are no faster
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
    devices = local_devices(config.trainer.devices, config.trainer.accelerator)
    if len(devices) == 1:
        config.trainer.devices = devices if gpus(config.trainer.accelerator) else 1
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
    planned = list(batches(sizes.items(), lambda size: _batch_size(job, size)))
    finished = results.rows()
    todo = [(batch, rows) for batch in planned if (rows := _missing(batch, finished, config.restarts))]
    rank = launched()
    if rank is None or rank.index == 0:
        _show_plan(job, planned, todo, len(devices) if rank is None else rank.count)
    if config.dry_run:
        _fail(job, done=len(sizes))
        return None
    if rank is not None:
        # by place in the whole list, since ranks may see different parts of it finished
        mine = {id(batch) for batch in planned[rank.index :: rank.count]}
        todo = [(batch, rows) for batch, rows in todo if id(batch) in mine]
        # SLURM may show each task its own GPU only
        there = gpus(config.trainer.accelerator)
        config.trainer.devices = [rank.device % there] if there else 1
        if rank.index > 0:
            for _, missing in todo:
                invert(job, missing, None, Ticks(lambda _: None))
            leave_word(results.ranks, rank, job.failures)
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
            with Bar(sum(len(rows) for _, rows in todo) * job.descent.plan(phi)[0], console) as bar:
                if rank is None and len(devices) > 1:
                    _spread(job, [rows for _, rows in todo], devices, bar)
                else:
                    for number, (_, missing) in enumerate(todo, 1):
                        bar.label = f"batch {number}/{len(todo)}"
                        # of several ranks the mean curve is written at the end
                        invert(job, missing, record if rank is None else None, bar)
            if rank is not None:
                job.failures |= gather(results.ranks, rank)
            found = finish(job, list(sizes), new=bool(todo) or rank is not None)
            if rank is not None or len(devices) > 1:
                record.replay(results.mean_curves(list(found.rows)))
            whole = not job.failures
        finally:
            seen = record.close(list(found.rows.values()), results.grid, not whole, found.spreads)
    summary(job, found, seen)
    _fail(job, done=len({image for image, _ in found.rows}))
    return float(torch.tensor([row[job.kind.shows] for row in found.rows.values()]).mean())


def _spread(job: Job, todo: Sequence[Missing], devices: Sequence[int], bar: Bar) -> None:
    """Do a job's batches on several devices, and note what a process that died has left undone."""
    config = OmegaConf.to_container(job.config, resolve=True)
    shares = [(config, device, todo[k :: len(devices)]) for k, device in enumerate(devices)]
    failures, dead = spread(share, [part for part in shares if part[2]], bar.tick)
    job.failures |= failures
    if not dead:
        return
    done = job.results.rows()
    lost = dict.fromkeys(photo.id for missing in todo for photo, r in missing if (photo.id, r) not in done)
    for image in lost:
        job.failures.setdefault(image, f"{image} is missing, since its process died; run the same command again.")


def _batch_size(job: Job, size: tuple[int, int]) -> int:
    """Return how many photos of a size share a tensor: as the user says, or as many as fit."""
    asked = job.config.data.get("batch_size", 1)
    if asked != "auto":
        return asked
    try:
        bytes_ = memory(job.phi, (job.channels, *size), getattr(torch, job.config.dtype))
    except InvrepError:
        return 1  # the batch itself reports what is wrong with its size
    fit = int(0.7 * room(job.config.trainer.accelerator) / bytes_ / job.config.restarts)
    return min(max(fit, 1), MOST_AT_ONCE)


def _missing(batch: Batch, finished: dict[Key, dict[str, Any]], restarts: int) -> list[tuple[Photo, int]]:
    """Return what of a batch is not finished: a photo that has been edited since is as good as new."""
    rows = []
    for photo in batch.photos:
        done = [r for r in range(restarts) if (photo.id, r) in finished]
        content = photo.content() if done else ""
        rows += [(photo, r) for r in range(restarts) if r not in done or finished[(photo.id, r)]["content"] != content]
    return rows


def _show_plan(job: Job, planned: Sequence[Batch], todo: Sequence[tuple[Batch, list[Any]]], ranks: int) -> None:
    """Say what is going to be done, before it is."""
    config, console = job.config, job.console
    images = sum(len(batch.photos) for batch in planned)
    wanted = images * config.restarts
    rows = sum(len(rows) for _, rows in todo)
    sizes = sorted({batch.size for batch in planned})
    size = " ".join(f"{w}×{h}" for h, w in sizes[:3]) + (f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else "")
    what = escape(f"{config.name} {config.layer}" if config.layer is not None else config.name)
    folder = escape(str(job.results.folder))
    console.print(
        f"[bold]{what}[/]: {_count(images, 'image')} × {_count(config.restarts, 'restart')}, {size} px, "
        f"{'RGB' if job.channels == 3 else 'grey'}, {job.descent.plan(job.phi)[0]} passes each"
    )
    if wanted > rows and images:
        console.print(f"{wanted - rows} of {wanted} are finished in {folder} and are skipped")
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
        where = "GPU memory" if gpus(config.trainer.accelerator) else "memory"
        console.print(
            f"{_count(len(todo), 'batch', 'batches')} of up to {_count(len(some), 'pre-image')}, "
            f"about {max(bytes_ / 2**30, 0.1):.1f} GB of {where}{' each' if ranks > 1 else ''}"
            f"{f', on {ranks} ranks' if ranks > 1 else ''}; results in {folder}",
            soft_wrap=True,
        )


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
