"""The composition root: builds the parts from a config and runs one job."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from invrep.callbacks import Record
from invrep.compute import exact
from invrep.config import build, check, layer_name, name_of
from invrep.data import Batch, Done, Keys, Size, ahead, batches, deal, evenly, split
from invrep.errors import InvrepError, ToldError, choice, out_of_memory, printable
from invrep.film import film_format
from invrep.finish import Found, finish, summary
from invrep.folders import some_of
from invrep.job import Job, assemble
from invrep.launch import register, share_machine
from invrep.lists import write_list
from invrep.memory import Need, need, room
from invrep.progress import Bar, Ticks
from invrep.ranks import Rank, check_launch, gpus, launched, local_devices, spread
from invrep.representations.base import Geometry
from invrep.representations.listing import layers_table
from invrep.representations.network import LISTING, Network
from invrep.sources import Photo
from invrep.sweep import in_multirun, noted
from invrep.terminal import make_console
from invrep.words import ABSENT, DIED, DONE, STOPPED, Words
from invrep.work import share, work

log = logging.getLogger(__name__)
PEEKS = 64  # headers that are read ahead
USUAL_AT_ONCE = 8  # photos in a tensor
MOST_AT_ONCE = 64  # pre-images in a tensor by data.batch_size=auto, and restarts of a photo; more are no faster
VERSIONS = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "pillow")


def run(config: DictConfig) -> float | None:
    """Run one job and return the mean over photos and restarts of ``metric``: the relative error ‖Φ−Φ0‖²/‖Φ0‖².

    Where the objective is to raise an activation, it is that unless the config says otherwise.

    Photos that are finished in the job's folder are skipped; a photo that cannot be read or inverted is reported at
    the end, after the others are done. Returns None for ``dry_run=true``.

    Raises:
        InvrepError: the config is wrong, nothing can be inverted, or some photos failed.
    """
    register()  # a launcher may have started this process
    try:
        with noted() as tell:
            return _run(config, tell)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvrepError(
            f"Memory has run out ({reason}); what is finished is kept. Make photos smaller (data.resize), or "
            f"data.batch_size, and run the same command again."
        ) from error
    except InvrepError as error:
        if in_multirun() and not isinstance(error, ToldError):
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


def return_memory() -> None:
    """Let glibc hand back what :func:`keep_memory` has kept."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@exact()
def _run(config: DictConfig, tell: Callable[[Path], None]) -> float | None:
    keep_memory()
    console = make_console()
    if HydraConfig.initialized() and (began := HydraConfig.get().runtime.cwd) != os.getcwd():
        console.print(f"hydra.job.chdir=true: relative paths begin in {os.getcwd()}, not in {began}", soft_wrap=True)
    config = config.copy()
    check(config)
    config.name = name_of(config)
    film_format(config.video)
    if config.layer in LISTING:
        network = build(config.rep)
        if not isinstance(network, Network):
            raise InvrepError(f"rep={config.name} is one code and has no layers; leave layer out.")
        wide = console if console.is_terminal else make_console(width=160)
        wide.print(layers_table(network))
        return None
    rank = launched()
    check_launch(config.trainer.devices, config.trainer.num_nodes, rank)
    asked = share_machine(config.trainer.devices, config.trainer.accelerator) if rank is None else 1
    devices = local_devices(asked, config.trainer.accelerator)
    if len(devices) == 1:
        config.trainer.devices = devices if gpus(config.trainer.accelerator) else 1
    job = assemble(config, console)
    tell(job.results.folder)
    if rank is None or config.dry_run:
        return _carry_out(job, devices, rank, None)
    with Words(job.results.ranks, rank, lambda text: console.print(text, soft_wrap=True, markup=False)) as words:
        return _carry_out(job, devices, rank, words)


def _carry_out(job: Job, devices: Sequence[int], rank: Rank | None, words: Words | None) -> float | None:
    """Do this process's part of a job.

    Args:
        job: its parts.
        devices: of this machine, a process for each.
        rank: which of a launcher's processes this is, or None.
        words: of that rank; None for ``dry_run=true``.
    """
    config, results, console = job.config, job.results, job.console
    metric = _metric(job)
    shares = _plan(job, len(devices) if rank is None else rank.count)
    planned = [batch for part in shares for batch in part]
    places = sorted({place for batch in planned for place in batch.places})
    if not places:
        _fail(job, done=0)
    # by place in the whole list, since ranks may see different parts of it finished
    own = planned if rank is None else shares[rank.index]
    first = rank is None or rank.index == 0
    todo = _missing(job, planned if first else own, results.done())
    if first:
        _show_plan(job, planned, todo, len(shares))
    if config.dry_run:
        _fail(job, done=len(places))
        return None
    if rank is not None:
        if first:
            mine = {row for batch in own for row in batch.rows}
            todo = [batch for batch in todo if batch.rows[0] in mine]
        # SLURM may show each task its own GPU only
        there = gpus(config.trainer.accelerator)
        config.trainer.devices = [rank.device % there] if there else 1
        if rank.index > 0:
            work(job, todo, Ticks(lambda _: None))
            _leave(job, words, shares[0])
            return None
    with results.held():
        write_list(results.folder / "left_out.txt", job.photos.left_out)
        results.save_config(_provenance(job, job.photos[places[0]]))
        record = Record(
            config.logger,
            folder=results.folder,
            name=results.folder.name,
            group=_group(),
            every=config.images_every,
            display=config.display,
        )
        record.write_config(results.read_config() or {})
        found = Found()
        whole, absent = False, None
        try:
            with Bar(_work_of(job, todo), console) as bar:
                if rank is None and len(devices) > 1:
                    _spread(job, todo, devices, bar)
                else:
                    # of several ranks the mean curve is written at the end
                    work(job, todo, bar, record if rank is None else None)
            if words is not None:
                absent = _gather(job, words, shares)
            return_memory()
            _note_gone(job, planned)
            found = finish(job, places)
            if rank is not None or len(devices) > 1:
                record.replay(results.mean_curves(Keys({job.photos.ids[place] for place in places}, config.restarts)))
            whole = not job.failures
            if whole:  # of batches that were made up otherwise
                shutil.rmtree(results.checkpoints, ignore_errors=True)
            if words is not None:
                words.finish()
        finally:
            seen = record.close(found.table, results.grid, not whole, found.means)
    summary(job, found, seen)
    _fail(job, done=found.images)
    if absent:
        raise InvrepError(absent)
    if found.count and found.bare == found.count:
        raise InvrepError(
            f"No photo has a relative error, since {' or '.join(found.remarked)}; choose another layer, region or "
            f"channels."
        )
    return found.columns[metric].mean


def _metric(job: Job) -> str:
    """Return the column of the table whose mean the job returns.

    Raises:
        InvrepError: the table has no such column.
    """
    shows = job.kind.shows
    compared = ("psnr", "ssim") if "path" in job.config.data else ()  # with the photo
    there = (shows, *(("root_error",) if shows == "error" else ()), *compared, "energy", "data")
    return choice("metric", job.config.metric or shows, there)


def _plan(job: Job, ranks: int) -> list[list[Batch]]:
    """Return each rank's batches, from the photos' headers where their size is not fixed; the bad ones are noted.

    Batches of a size that the user gives are the same for any number of ranks. Else every rank has photos, if there
    are as many, and which is the same whatever memory each of them finds.
    """
    places = range(len(job.photos))
    sizes = ahead(lambda place: (place, job.size(job.photos[place])), places, PEEKS)
    sized = ((place, size) for place, size in sizes if size is not None)
    asked, restarts = job.config.data.get("batch_size", 1), job.config.restarts
    known: dict[int, tuple[int, Need | None]] = {}
    most = cache(lambda size: _fit(job, size, known) if asked == "auto" else MOST_AT_ONCE)

    def at_once(size: Size) -> int:
        return max(most(size) // restarts, 1) if asked == "auto" else asked or USUAL_AT_ONCE

    def divided(some: Iterable[tuple[int, Size]]) -> Iterator[Batch]:
        for batch in batches(some, at_once, restarts):
            yield from split(batch, most(batch.size)) if restarts > most(batch.size) else [batch]

    if ranks == 1 or asked not in (None, "auto"):
        return evenly(list(divided(sized)), ranks)
    return [list(divided(part)) for part in deal(sized, ranks)]


def _missing(job: Job, planned: Sequence[Batch], done: Done) -> list[Batch]:
    """Return what of batches is not finished: a photo that has been edited since is as good as new."""
    todo = []
    for batch in planned if done else ():
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
            todo.append(replace(batch, rows=array("Q", rows)))
    return todo if done else list(planned)


def _spread(job: Job, todo: Sequence[Batch], devices: Sequence[int], bar: Bar) -> None:
    """Do a job's batches on several devices, and note what a process that died has left undone."""
    config = OmegaConf.to_container(job.config, resolve=True)
    parts = zip(devices, evenly(todo, len(devices)), strict=True)
    failures, dead = spread(share, [(config, job.photos, device, part) for device, part in parts if part], bar.tick)
    job.failures |= failures
    if dead:
        _note_missing(job, todo, "its process died")


def _gather(job: Job, words: Words, shares: Sequence[Sequence[Batch]]) -> str | None:
    """Wait for the other ranks, do the shares of those that have not come, and note what is missing.

    Returns:
        A sentence about the ranks that have not come; None where all have.

    Raises:
        InvrepError: a mistake has ended one of them.
    """
    found = words.gather()
    job.failures |= found.failures
    if found.mistakes:
        raise InvrepError(found.mistakes[0])
    for index, why in found.lost.items():
        _note_missing(job, shares[index], why)
    if not found.absent:
        return None
    some = ", ".join(map(str, found.absent[:10])) + (", …" if len(found.absent) > 10 else "")
    words.tell(f"rank {some} of {len(shares)} has not come within a minute, and rank 0 does its share")
    late = [batch for index in found.absent for batch in shares[index]]
    todo = _missing(job, late, job.results.done())
    with Bar(_work_of(job, todo), job.console) as bar:
        work(job, todo, bar)
    return (
        f"Rank {some} of {len(shares)} has not come within a minute, and rank 0 has done its share; where nobody has "
        f"started several ranks, unset {words.rank.named}."
    )


def _leave(job: Job, words: Words, others: Sequence[Batch]) -> None:
    """Say that this rank has done its share, and wait for rank 0 to finish the job.

    Args:
        job: this rank's share of it is done.
        words: of this rank.
        others: rank 0's share.

    Raises:
        InvrepError: rank 0 has ended before.
    """
    end = words.leave(job.failures)
    if end == STOPPED:
        raise ToldError("Rank 0 has ended before the job was finished; run the same command again.")
    if end == DONE or (end == ABSENT and not _missing(job, others, job.results.done())):
        return
    _note_missing(job, others, "rank 0 died" if end == DIED else "rank 0 has not come")
    lost = list(job.failures.values())
    what = "died" if end == DIED else "has not come within a minute"
    hint = "" if end == DIED else f" Where nobody has started several ranks, unset {words.rank.named}."
    raise InvrepError(
        f"Rank 0 of {words.rank.count} {what}, and rank {words.rank.index} has done its share; run the same command "
        f"again to complete the job.{hint} {' '.join(lost[:10])}{' …' if len(lost) > 10 else ''}".rstrip()
    )


def _note_missing(job: Job, batches: Sequence[Batch], why: str) -> None:
    """Note what of batches is not finished."""
    for batch in _missing(job, batches, job.results.done()):
        for image in (job.photos.ids[place] for place in batch.places):
            job.failures.setdefault(image, f"{image} is missing, since {why}; run the same command again.")


def _note_gone(job: Job, batches: Sequence[Batch]) -> None:
    """Note pre-images that neither failed nor are in the folder: somebody has removed them."""
    done = job.results.done()
    for batch in batches:
        for place, restart in (divmod(row, batch.restarts) for row in batch.rows):
            if ((image := job.photos.ids[place]), restart) not in done:
                why = "its results were removed while the job was at work; run the same command again."
                job.failures.setdefault(image, f"{image} is missing, since {why}")


def _fit(job: Job, size: Size, known: dict[int, tuple[int, Need | None]]) -> int:
    """Return how many pre-images of a size fit into memory together, of those whose number makes them faster.

    Args:
        job: whose Φ is on any device.
        size: height and width.
        known: what a size of about as many pixels needs; is added to.
    """
    pixels = math.prod(size)
    about = round(2 * math.log2(pixels))
    if about not in known:
        known[about] = pixels, need(job, size, MOST_AT_ONCE, 2)
    like, wanted = known[about]
    if wanted is None:
        return 1
    return min(max(int(wanted.fit(0.7 * room(job.config.trainer.accelerator)) * like / pixels), 1), MOST_AT_ONCE)


def _show_plan(job: Job, planned: Sequence[Batch], todo: Sequence[Batch], ranks: int) -> None:
    """Say what is going to be done, before it is."""
    config, console = job.config, job.console
    wanted = sum(len(batch.rows) for batch in planned)
    images = wanted // config.restarts
    rows = sum(len(batch.rows) for batch in todo)
    sizes = sorted({batch.size for batch in planned})
    size = " ".join(f"{w}×{h}" for h, w in sizes[:3]) + (f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else "")
    what = escape(" ".join(filter(None, (config.name, layer_name(config.layer)))))
    folder = escape(str(job.results.folder))
    console.print(
        f"[bold]{what}[/]: {_count(images, 'image')} × {_count(config.restarts, 'restart')}, {size} px, "
        f"{'RGB' if job.channels == 3 else 'grey'}, {job.descent.plan(job.phi)[0]} passes each"
    )
    if left_out := job.photos.left_out:
        where = "" if config.dry_run else f"; all are in {job.results.folder / 'left_out.txt'}"
        what = f"{_count(len(left_out), 'file is', 'files are')} left out: {some_of(left_out)}{where}"
        console.print(printable(what), soft_wrap=True, markup=False)
    if wanted > rows and images:
        console.print(f"{wanted - rows} of {wanted} are finished in {folder} and are skipped")
        if config.video:
            console.print("a film is taken during the descent, so that of what is finished none is made")
    for height, width in sizes:
        shape = (job.channels, height, width)
        warnings = job.descent.warnings(job.phi, job.prior.for_shape(shape, job.phi), shape)
        for warning in warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        if warnings:
            break
    if todo:
        _show_memory(job, todo, ranks)


def _show_memory(job: Job, todo: Sequence[Batch], ranks: int) -> None:
    """Say how much memory the largest batch takes, and warn where there is less."""
    config, console = job.config, job.console
    batch = max(todo, key=lambda batch: len(batch.rows) * math.prod(batch.size))
    wanted = need(job, batch.size, len(batch.rows), len(todo))
    where = "GPU memory" if gpus(config.trainer.accelerator) else "memory"
    takes = f"an unknown amount of {where}"
    if wanted is not None:
        bytes_, free = wanted(len(batch.rows)), room(config.trainer.accelerator)
        takes = f"about {_bytes(bytes_)} of {where}"
        if bytes_ > free:
            console.print(
                f"[yellow]warning:[/] {_count(len(batch.rows), 'pre-image')} of {batch.size[1]}×{batch.size[0]} px "
                f"want {takes}, of which {_bytes(free)} are free; make photos smaller (data.resize), or "
                f"data.batch_size or restarts.",
                soft_wrap=True,
            )
    console.print(
        f"{_count(len(todo), 'batch', 'batches')} of up to {_count(len(batch.rows), 'pre-image')}, {takes}"
        f"{' each' if ranks > 1 else ''}{f', on {ranks} ranks' if ranks > 1 else ''}; results in "
        f"{escape(str(job.results.folder))}",
        soft_wrap=True,
    )


def _bytes(number: float) -> str:
    """Return a number of bytes as people read it."""
    return f"{number / 2**30:.1f} GB" if number >= 2**30 else f"{number / 2**20:.0f} MB"


def _work_of(job: Job, todo: Sequence[Batch]) -> int:
    """Return how many pixels the passes of batches will see."""
    return sum(len(batch.rows) * math.prod(batch.size) for batch in todo) * job.descent.plan(job.phi)[0]


def _fail(job: Job, *, done: int) -> None:
    """Report the photos that failed, if any.

    Raises:
        InvrepError: some did.
    """
    failures, path = dict(sorted(job.failures.items())), job.results.folder / "failed.txt"
    listed = list(failures.values())
    if not job.config.dry_run and (path.parent.is_dir() or len(listed) > 10):
        write_list(path, failures)
    if not listed:
        return
    if len(listed) == 1 and not done:
        raise InvrepError(listed[0])
    rest = f" … and {len(listed) - 10} more{f', see {path}' if path.is_file() else ''}" if len(listed) > 10 else ""
    others = "all others are done" if done else "and there is no other"
    raise InvrepError(f"{_count(len(listed), 'photo')} could not be inverted, {others}: {' '.join(listed[:10])}{rest}")


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _group() -> str | None:
    """Return the sweep's name within a multirun, else None."""
    return Path(HydraConfig.get().sweep.dir).name if in_multirun() else None


def _provenance(job: Job, photo: Photo) -> DictConfig:
    """Return the resolved config with what else a result depends on: versions, commit, command, weights.

    ``used`` in it says which presets were chosen and what automatic values came to, for Φ and one of the photos.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(job.config, resolve=True))
    resolved.used = _used(job, photo)
    resolved.provenance = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "weights": job.phi.weights_id,
        "versions": {"invrep": version("invrep"), "python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
    }
    return resolved


def _used(job: Job, photo: Photo) -> dict[str, Any]:
    """Return, by short names, what tells jobs apart: presets by name, the layer, and each λ and C as a number."""
    config, phi = job.config, job.phi
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    weight, seen = config.objective.get("weight"), Geometry((math.inf, math.inf), None)
    with suppress(InvrepError):  # other photos may well fit
        if weight == "auto":
            read = job.read(photo)
            weight = None if read is None else job.asked_of(read.pixels).weight
        parts = phi.geometry(*job.size(photo))
        seen = parts[0] if len(parts) == 1 else seen
    local = seen.stride is not None and math.inf not in seen.field
    return {
        "rep": config.name,
        "layer": layer_name(config.layer),
        **{group: choices.get(group) for group in ("objective", "prior", "optim")},
        "objective_weight": weight,
        **{f"{name}_weight": value for name, value in job.prior.weights(phi).items()},
        "passes": job.descent.plan(phi)[0],
        "receptive_field": phi.receptive_field,  # of one position, in pixels; null: the whole image, or several layers
        "stride": phi.stride,
        "start": list(map(int, seen.start)) if local else None,  # top and left of what position (0, 0) sees
    }


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
