"""Sweeps whose jobs run beside each other: what each takes of the machine, and which of them have failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from invrep.errors import InvrepError
from invrep.ranks import gpus
from invrep.sweep import in_multirun, swept

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # one job after the other
AT_ONCE = 4  # jobs on a machine without GPUs


def machine(what: str) -> int:
    """Return what a launcher's config asks of this machine, as ``${machine:gpus}`` there.

    Args:
        what: ``gpus``, how many there are; ``gpu``, 1 if there are any, else 0; ``jobs``, how many jobs run at once:
            one for each GPU, or 4 without any, but none without a CPU core of its own; ``cores``, how many CPU cores
            each of these has.
    """
    there = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = there or min(cores, AT_ONCE)
    return {"gpus": there, "gpu": min(there, 1), "jobs": jobs, "cores": max(cores // jobs, 1)}[what]


OmegaConf.register_new_resolver("machine", machine, replace=True)


def share_machine(devices: Any, accelerator: str) -> Any:
    """Give a job that runs beside others of its sweep its own GPUs and its part of the CPU's threads.

    With N GPUs the job of number k that asks for n of them gets those from k·n on, modulo N. The threads are the
    launcher's ``cpus_per_task``, where it has that (joblib sees to it by itself).

    Args:
        devices: how many the job asks for; whoever names indices, or takes all, has them as they are.
        accelerator: Lightning's.

    Returns:
        The indices; ``devices`` itself where the jobs run one after the other.
    """
    if not in_multirun() or HydraConfig.get().launcher._target_ == BASIC:
        return devices
    hydra = HydraConfig.get()
    cores = hydra.launcher.get("cpus_per_task")
    if cores is not None:
        torch.set_num_threads(min(int(cores), torch.get_num_threads()))
    there = gpus(accelerator)
    if not isinstance(devices, int) or not 0 < devices < there:
        return devices
    return [(hydra.job.num * devices + k) % there for k in range(devices)]


class Sweep(Callback):
    """Hydra's callback that remembers where a sweep's jobs leave word, for :func:`all_failures`."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remember the folder, which no one else in this process is told."""
        Sweep.folder = Path(config.hydra.sweep.dir)


@contextmanager
def all_failures() -> Iterator[None]:
    """Let a sweep end with all of its jobs that failed; Hydra itself raises the first one's exception only.

    Raises:
        InvrepError: some jobs of the sweep failed by a user's mistake, or their processes died.
    """
    try:
        yield
    except Exception as error:
        jobs = swept(Sweep.folder) if Sweep.folder is not None else []
        bad = [job for job in jobs if job.status != "done"]
        if not bad:
            raise
        lines = [f"{len(bad)} of {len(jobs)} jobs of the sweep failed, all others are done ({Sweep.folder}):"]
        for job in bad:
            why = job.message if job.status == "failed" else "its process died; run the same command again."
            lines.append(f"  #{job.number} {' '.join(job.overrides)}: {why}")
        message = "\n".join(lines)
        if isinstance(error, InvrepError) or all(job.status == "running" for job in bad):
            raise InvrepError(message) from None
        print(message, file=sys.stderr)
        raise  # a fault of the program's own, with its traceback
    finally:
        Sweep.folder = None
