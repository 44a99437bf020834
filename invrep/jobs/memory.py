"""Memory: what a batch takes, and how much is free."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from invrep.data.batching import READERS, Size
from invrep.inversion.solver import solve
from invrep.inversion.trainer import make_trainer
from invrep.inversion.trial import Trial
from invrep.jobs.job import Job
from invrep.jobs.ranks import gpus
from invrep.jobs.worker import WRITES_AHEAD
from invrep.optim.optimizers import COUPLED
from invrep.tracking.film import film_format

log = logging.getLogger(__name__)
SMALL = 2**16  # pixels, of which a rehearsal has no more
MAPPED = 2**25  # bytes from which on glibc asks the system for a block by itself, see invrep.jobs.process
HEAP = 1.7  # what smaller blocks take over what they hold, as glibc cannot give an aligned block again for an equal one
PROCESS = 70 * 2**20  # of the job's own: libraries that are loaded late, pictures that are written
DECODING = 48  # bytes of a photo's pixel while it is decoded
CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}
ROOT = Path("/")  # of the files in which Linux says what is free


@dataclass(frozen=True)
class Need:
    """How many bytes batches take at their peak.

    Attributes:
        fixed: whatever the size of the batch.
        each: for every pre-image of it.
    """

    fixed: float
    each: float

    def __call__(self, rows: int) -> int:
        """Return the bytes that a batch of so many pre-images takes."""
        return int(self.fixed + rows * self.each)

    def fit(self, room: float) -> int:
        """Return how many pre-images fit into so many bytes, at least one."""
        return max(int((room - self.fixed) / self.each), 1)


class Peak(TorchDispatchMode):
    """Follows the tensors that are made within this context, in the backward pass too.

    Attributes:
        most: bytes that they took at once at most, on the device.
        kept: bytes that they take now.

    Args:
        device: on which.
        larger: how many times as large the tensors of the job will be.
    """

    def __init__(self, device: torch.device, larger: float = 1.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.device, self.larger = device.type, larger
        self.kept = self.most = 0.0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = self._storages((args, kwargs))
        found = func(*args, **(kwargs or {}))
        new = self._storages(found)
        for key in new.keys() - old.keys() - self._seen.keys():
            self._add(key, new[key])
        if func in CONVOLUTIONS:  # oneDNN and cuDNN lay out anew what they are given
            copies = sum(self._size(storage) for storage in (old | new).values())
            self.most = max(self.most, self.kept + copies)
        return found

    def _size(self, storage: torch.UntypedStorage) -> float:
        """Return the bytes that a storage takes, with what glibc's heap wastes of those that lie in it."""
        bytes_ = storage.nbytes()
        return bytes_ * (HEAP if self.device == "cpu" and bytes_ * self.larger < MAPPED else 1.0)

    def _storages(self, values: Any) -> dict[int, torch.UntypedStorage]:
        tensors = (x for x in tree_leaves(values) if isinstance(x, Tensor) and x.device.type == self.device)
        return {storage._cdata: storage for storage in (x.untyped_storage() for x in tensors)}

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size = self._size(storage)
        self.kept += size
        self.most = max(self.most, self.kept)

        def gone(_: object) -> None:
            self.kept -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)


class Untried(Trial):
    """Tries nothing: a rehearsal's images are noise."""

    def __call__(self, *_: object) -> None:
        """Do nothing."""


def need(job: Job, size: Size, rows: int = 1, batches: int = 1) -> Need | None:
    """Return what batches of a size take beyond what the process has now; None where it cannot be known.

    A pass is rehearsed with one pre-image and with two; of large photos with smaller ones of their proportions.

    Args:
        job: its Φ is on any device.
        size: height and width of its pre-images.
        rows: about how many pre-images the batches have.
        batches: how many there are; of several, some wait to be read or written.
    """
    config, larger = job.config, 1.0
    if job.phi.input_size is None or config.data.get("resize") == "none":
        larger = math.sqrt(max(math.prod(size) / SMALL, 1.0))
    sides = [max(round(side / larger), min(side, 64)) for side in size]
    scale = math.prod(size) / math.prod(sides)
    alone = _rehearse(job, sides, 1, scale * rows)
    if alone is None:
        return None
    two = None if job.descent.name in COUPLED else _rehearse(job, sides, 2, scale * rows / 2)
    each = max((two or 2 * alone) - alone, 0.5 * alone)
    host, device = _beside(job, size, batches)
    on_gpu = gpus(config.trainer.accelerator) > 0
    fixed = (alone - each) * scale + job.classifier.nbytes + (0 if on_gpu else PROCESS)
    return Need(fixed, each * scale + device + (0 if on_gpu else host))


def _rehearse(job: Job, sides: Sequence[int], rows: int, larger: float) -> float | None:
    """Return the most bytes that a batch takes in a pass, the tensors being a part of the job's; None if it fails."""
    config, phi = job.config, job.phi
    dtype = getattr(torch, config.dtype)
    named = [(row, f"rehearsal {row}", 0) for row in range(rows)]
    short = replace(job.descent, steps=1, polish=0, warm_up=0)
    trainer = make_trainer(config.trainer, [])
    try:
        phi.private(trainer.strategy.root_device, dtype)  # its weights are there once
        with Peak(trainer.strategy.root_device, larger) as peak, torch.random.fork_rng(devices=[]):
            photos = torch.rand(rows, job.channels, *sides, dtype=dtype)
            inversion = solve(
                photos,
                named,
                phi=phi,
                prior=job.prior,
                descent=short,
                objective=job.objective,
                trainer=config.trainer,
                compute=replace(job.compute, compile=None),
                trial=Untried(),
            )
            state = [x for x in tree_leaves(inversion.trainer.optimizers[0].state) if isinstance(x, Tensor)]
        return float(peak.most + sum(x.nbytes for x in state))
    except Exception as error:  # Φ may hold what does not bear to be watched; the batch itself says what is wrong
        log.debug("The plan of memory failed: %s", error)
        return None


def _beside(job: Job, size: Size, batches: int) -> tuple[int, int]:
    """Return the bytes for each pre-image that the rehearsal does not see: on the host, and where Φ is."""
    config, descent = job.config, job.descent
    passes = descent.plan(job.phi)[0]
    values = job.channels * math.prod(size)
    image = values * getattr(torch, config.dtype).itemsize
    waiting = min(batches - 1, WRITES_AHEAD + 1)
    host = image * (1 + waiting * 2)  # as read, and as written with its photo
    if batches > 1:
        host += image + READERS * DECODING * math.prod(size)
    if film_format(config.video):
        host += 2 * values * (passes // config.log_every + 2) * (1 + waiting)
    history = (descent.options or {}).get("history_size", 100) if descent.name == "LBFGS" else 0
    return host, 2 * min(history, passes) * image


def room(accelerator: str) -> int:
    """Return how many bytes of memory are free for pre-images, of the GPU or of the machine.

    Of the machine's memory a container's limit and the process's own (``ulimit -v``) are taken away.
    """
    if gpus(accelerator):
        return torch.cuda.mem_get_info()[0]
    return max(min([_of_machine(), *_of_containers(), *_of_process()]), 0)


def _of_machine() -> int:
    try:
        lines = dict(line.split(":") for line in (ROOT / "proc/meminfo").read_text().splitlines())
    except OSError:  # not Linux: all that there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1024 * int(lines["MemAvailable"].split()[0])


def _of_containers() -> Iterator[int]:
    """Yield what is left of each limit of the process's control groups, version 2 or 1."""
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
        for group in (below, *below.parents):  # within a container its own group is the root
            folder = ROOT / base / group
            with suppress(OSError, ValueError, KeyError):  # "max" is no number
                limit = int((folder / most).read_text())
                cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())[cache]
                yield limit - int((folder / used).read_text()) + int(cached)


def _of_process() -> Iterator[int]:
    """Yield what is left of the limits that a shell's ``ulimit`` has set."""
    try:
        import resource  # not on Windows

        lines = dict(line.split(":", 1) for line in (ROOT / "proc/self/status").read_text().splitlines())
    except (ImportError, OSError):
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - 1024 * int(lines[used].split()[0])
