"""Estimate the memory of a batch, and measure how much is free."""

from __future__ import annotations

import copy
import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from invrep.data.batching import READERS, Size
from invrep.inversion.solver import solve
from invrep.inversion.trainer import make_trainer
from invrep.inversion.trial import Trial
from invrep.jobs.job import Job
from invrep.jobs.process import return_memory
from invrep.jobs.ranks import gpus
from invrep.jobs.writer import WRITES_AHEAD
from invrep.optim.optimizers import COUPLED
from invrep.tracking.film import film_format

log = logging.getLogger(__name__)
SMALL = 2**16  # most pixels of a rehearsed image
MAPPED = 2**25  # bytes; glibc maps a block of this size by itself, outside the heap, see invrep.jobs.process
# Least and most memory of the heap, as a multiple of the bytes in its blocks: glibc cannot always reuse a freed aligned
# block for an equal one.
HEAP = (1.2, 2.45)
GROWTH = 140  # passes in which the heap grows by its blocks' bytes at most: DSIFT; other representations grow less
GROWN = 400  # passes; the growth was measured no further
CLOSE = 1.3  # bounds within this factor of their geometric mean are shown as one number
PROCESS = 90 * 2**20  # bytes of the process besides its batches: libraries loaded late, pictures being written
DECODING = 48  # bytes for each pixel of a photo while it is decoded
CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}
ROOT = Path("/")  # root of proc and sys, where Linux states the limits of control groups


class Line(NamedTuple):
    """Model the bytes of a batch as a linear function of its pre-images.

    Attributes:
        fixed: bytes of a batch of any size.
        each: bytes for every pre-image.
    """

    fixed: float
    each: float

    def __call__(self, rows: int) -> int:
        """Return the bytes of a batch of ``rows`` pre-images."""
        return int(self.fixed + rows * self.each)


class Need(NamedTuple):
    """Bound the bytes that batches take at their peak.

    Attributes:
        least: bytes in a descent of a few passes.
        most: bytes in a long descent, whose heap has grown; equal to ``least`` on a GPU.
    """

    least: Line
    most: Line

    def fit(self, room: float) -> int:
        """Return the number of pre-images, at least one, whose upper bound fits into ``room`` bytes."""
        return max(int((room - self.most.fixed) / self.most.each), 1)

    def words(self, rows: int) -> str:
        """Return the memory of a batch of ``rows`` pre-images as text: one number for close bounds, else the range."""
        least, most = self.least(rows), self.most(rows)
        if most <= CLOSE**2 * least:
            return f"about {in_bytes(math.sqrt(least * most))}"
        return f"{in_bytes(least)} (at first) to {in_bytes(most)} (after many passes)"


def in_bytes(number: float) -> str:
    """Return a number of bytes as text in MB or GB, of 2²⁰ or 2³⁰ bytes."""
    return f"{number / 2**30:.1f} GB" if number >= 2**30 else f"{number / 2**20:.0f} MB"


class Peak(TorchDispatchMode):
    """Track the memory of tensors made inside this context, in the backward pass too.

    Attributes:
        kept: current bytes on the device, in blocks mapped by themselves and in glibc's heap.
        bounds: least and most bytes at the peak; they differ in how much the heap wastes.

    Args:
        device: device of the tensors.
        larger: size of the job's tensors, as a multiple of those inside this context.
        passes: number of passes of the job.
    """

    def __init__(self, device: torch.device, larger: float = 1.0, passes: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.device, self.larger = device.type, larger
        self.factors = HEAP[0], HEAP[1] + min(passes, GROWN) / GROWTH
        self.kept, self.bounds = [0.0, 0.0], [0.0, 0.0]
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = self._storages((args, kwargs))
        found = func(*args, **(kwargs or {}))
        new = self._storages(found)
        for key in new.keys() - old.keys() - self._seen.keys():
            self._add(key, new[key])
        if func in CONVOLUTIONS:  # oneDNN and cuDNN copy inputs and outputs into their own memory layout
            self._reach((old | new).values())
        return found

    def _in_heap(self, storage: torch.UntypedStorage) -> bool:
        return self.device == "cpu" and storage.nbytes() * self.larger < MAPPED

    def _storages(self, values: Any) -> dict[int, torch.UntypedStorage]:
        tensors = (x for x in tree_leaves(values) if isinstance(x, Tensor) and x.device.type == self.device)
        return {storage._cdata: storage for storage in (x.untyped_storage() for x in tensors)}

    def _reach(self, more: Iterable[torch.UntypedStorage] = ()) -> None:
        """Raise the bounds to the current bytes, plus a copy of each storage in ``more``."""
        mapped, heap = self.kept
        for storage in more:
            if self._in_heap(storage):
                heap += storage.nbytes()
            else:
                mapped += storage.nbytes()
        self.bounds = [max(old, mapped + k * heap) for old, k in zip(self.bounds, self.factors, strict=True)]

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size, which = storage.nbytes(), int(self._in_heap(storage))
        self.kept[which] += size
        self._reach()

        def gone(_: object) -> None:
            self.kept[which] -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)


class Untried(Trial):
    """Skip the checks of Φ in a rehearsal, since its images are noise."""

    def __call__(self, *_: object) -> None:
        """Do nothing."""


def need(job: Job, size: Size, rows: int = 1, batches: int = 1) -> Need | None:
    """Return the memory of batches of one size, beyond what the process takes now.

    A descent of one pass is rehearsed with one pre-image, and for larger batches also with two. Large images are
    replaced by smaller ones with their proportions.

    Args:
        job: parts of the job; Φ may be on any device.
        size: height and width of the pre-images, in pixels.
        rows: approximate number of pre-images in a batch.
        batches: number of batches; with several, some wait to be read or written.

    Returns:
        Bounds in bytes; None if the rehearsal fails, and for a baseline, which rehearses nothing.
    """
    if job.baseline is not None:
        return None
    config, larger = job.config, 1.0
    if job.phi.input_size is None or config.data.get("resize") == "none":
        larger = math.sqrt(max(math.prod(size) / SMALL, 1.0))
    sides = [max(round(side / larger), min(side, 64)) for side in size]
    scale = math.prod(size) / math.prod(sides)
    alone = _rehearse(job, sides, 1, scale * rows)
    if alone is None:
        return None
    two = None if rows == 1 or job.descent.name in COUPLED else _rehearse(job, sides, 2, scale * rows / 2)
    return_memory()  # otherwise the rehearsals' freed memory would stay in use beside the batch
    host, device = _beside(job, size, batches)
    process = PROCESS
    if gpus(config.trainer.accelerator):
        host = process = 0
    lines = []
    for one, both in zip(alone, two or [2 * one for one in alone], strict=True):
        each = max(both - one, 0.5 * one)
        lines.append(Line((one - each) * scale + job.classifier.nbytes + process, each * scale + device + host))
    return Need(*lines)


def _rehearse(job: Job, sides: Sequence[int], rows: int, larger: float) -> list[float] | None:
    """Rehearse a pass on noise, and return the least and most bytes of the batch; None if the pass fails.

    Args:
        job: parts of the job.
        sides: height and width of the noise, in pixels.
        rows: number of pre-images.
        larger: size of the job's tensors, as a multiple of the rehearsal's.
    """
    config, phi = job.config, job.phi
    dtype = getattr(torch, config.dtype)
    named = [(row, f"rehearsal {row}", 0) for row in range(rows)]
    short = replace(job.descent, steps=1, polish=0, warm_up=0)
    trainer = make_trainer(config.trainer, [])
    prior = copy.copy(job.prior)
    if prior.denoiser is not None:  # its step follows the only pass
        prior.denoiser = copy.copy(prior.denoiser)
        prior.denoiser.every = 1
    try:
        device, passes = trainer.strategy.root_device, job.descent.plan(phi)[0]
        phi.private(device, dtype)  # outside Peak, since all batches share Φ's weights
        with Peak(device, larger, passes) as peak, torch.random.fork_rng(devices=[]):
            photos = torch.rand(rows, job.channels, *sides, dtype=dtype)
            inversion = solve(
                photos,
                named,
                phi=phi,
                prior=prior,
                descent=short,
                objective=job.objective,
                trainer=config.trainer,
                compute=replace(job.compute, compile=None),
                trial=Untried(),
            )
            state = [x for x in tree_leaves(inversion.trainer.optimizers[0].state) if isinstance(x, Tensor)]
        return [bound + sum(x.nbytes for x in state) for bound in peak.bounds]
    except Exception as error:  # the dispatch mode may break Φ; the batch itself will report a true fault
        log.debug("The plan of memory failed: %s", error)
        return None


def _beside(job: Job, size: Size, batches: int) -> tuple[int, int]:
    """Return the bytes for each pre-image that a rehearsal misses: on the host, and on Φ's device."""
    config, descent = job.config, job.descent
    passes = descent.plan(job.phi)[0]
    values = job.channels * math.prod(size)
    image = values * getattr(torch, config.dtype).itemsize
    waiting = min(batches - 1, WRITES_AHEAD + 1)
    host = image * (1 + waiting * 2)  # being read, and waiting to be written with its photo
    if batches > 1:
        host += image + READERS * DECODING * math.prod(size)
    if film_format(config.video):
        host += 2 * values * (passes // config.log_every + 2) * (1 + waiting)
    history = (descent.options or {}).get("history_size", 100) if descent.name == "LBFGS" else 0
    return host, 2 * min(history, passes) * image


def room(accelerator: str, ranks: int = 1) -> int:
    """Return the free memory for a rank's pre-images, in bytes, of the GPU or of the machine.

    The machine's memory is limited by its container and by the limits of the process (``ulimit -v``, ``-d``).

    Args:
        accelerator: Lightning's accelerator.
        ranks: number of the job's processes that share this machine's memory or GPUs.
    """
    if there := gpus(accelerator):
        return torch.cuda.mem_get_info()[0] // math.ceil(ranks / there)
    shared: int = min([psutil.virtual_memory().available, *_of_containers()]) // ranks
    return max(min([shared, *_of_process()]), 0)


def _of_containers() -> Iterator[int]:
    """Yield the bytes left of each memory limit of the process's control groups, version 2 or 1."""
    try:
        groups = [line.split(":", 2) for line in (ROOT / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, kinds, path in groups:
        if kinds == "":
            base, most, used, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            base, cache = "sys/fs/cgroup/memory", "total_inactive_file"
            most, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        below = PurePosixPath(path.lstrip("/"))
        for group in (below, *below.parents):  # inside a container, its group is mounted as the root
            folder = ROOT / base / group
            with suppress(OSError, ValueError, KeyError):  # the text "max", for no limit, is no number
                limit = int((folder / most).read_text())
                cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())[cache]
                yield limit - int((folder / used).read_text()) + int(cached)


def _of_process() -> Iterator[int]:
    """Yield the bytes left of the limits that a shell's ``ulimit`` has set."""
    if not psutil.LINUX:  # psutil reads these limits only on Linux
        return
    process = psutil.Process()
    memory = process.memory_info()
    for limit, used in ((psutil.RLIMIT_AS, memory.vms), (psutil.RLIMIT_DATA, memory.data)):
        most = process.rlimit(limit)[0]
        if most != psutil.RLIM_INFINITY:
            yield most - used
