"""Sweeps whose jobs run beside each other: what each takes of the machine."""

from __future__ import annotations

import os
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from invrep.ranks import gpus
from invrep.sweep import in_multirun

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
