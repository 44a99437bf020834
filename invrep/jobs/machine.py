"""Sweeps whose jobs run beside each other: what each takes of the machine, or asks of the cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from invrep.jobs.ranks import gpus
from invrep.jobs.sweep_note import in_multirun

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # one job after the other
AT_ONCE = 4  # jobs on a machine without GPUs
THREADS = 8  # CPU cores for each device of a job of SLURM, or as many as a node has
SINFO_SECONDS = 30


def register() -> None:
    """Make ``${machine:…}`` and ``${slurm:…}`` known, which the launchers' configs use.

    Every process needs it that composes such a config or reads one: the command, and each job of a sweep.
    """
    OmegaConf.register_new_resolver("machine", machine, replace=True)
    OmegaConf.register_new_resolver("slurm", slurm, replace=True)


def machine(what: str) -> int:
    """Return what a launcher's config asks of this machine, as ``${machine:gpus}`` there.

    Args:
        what: ``gpus``, how many there are; ``gpu``, 1 if there are any, else 0; ``jobs``, how many jobs run at once:
            one for each GPU, or 4 without any, but none without a CPU core of its own; ``cores``, how many CPU cores
            each of these has.
    """
    import torch  # takes seconds, and every command knows this resolver

    there = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = there or min(cores, AT_ONCE)
    return {"gpus": there, "gpu": min(there, 1), "jobs": jobs, "cores": max(cores // jobs, 1)}[what]


class Node(NamedTuple):
    """A kind of node of the cluster.

    Attributes:
        cores: CPU cores.
        gpus: GPUs.
    """

    cores: int
    gpus: int


def slurm(what: str, accelerator: str, devices: Any, partition: str | None = None) -> int | None:
    """Return what a job's ``trainer`` needs of a SLURM node, as ``${slurm:gpus,…}`` in the launcher's config.

    Args:
        what: ``gpus``, how many GPUs; None for a job on the CPU. ``cores``, how many CPU cores: 8 for each device, or
            as many as a node has.
        accelerator: Lightning's; ``auto`` means GPUs where a node of the cluster has any.
        devices: Lightning's.
        partition: of the cluster; None for all.
    """
    nodes = nodes_of(partition)
    with_gpus = [node for node in nodes if node.gpus]
    wants_gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and bool(with_gpus))
    fit = (with_gpus if wants_gpus else nodes) or nodes or [Node(THREADS, 1)]
    if isinstance(devices, int) and devices > 0:
        count = devices
    elif isinstance(devices, Sequence) and not isinstance(devices, str):
        count = max(devices, default=0) + 1  # SLURM counts the GPUs of a job from 0
    else:
        count = max(node.gpus for node in fit) if wants_gpus else 1
    if what == "gpus":
        return count if wants_gpus else None
    return min(THREADS * count, max(node.cores for node in fit))


def nodes_of(partition: str | None) -> list[Node]:
    """Return the kinds of nodes that SLURM's ``sinfo`` knows of; none where it does not answer."""
    if shutil.which("sinfo") is None:
        return []
    command = ["sinfo", "--noheader", "--format=%c %G", *([f"--partition={partition}"] if partition else [])]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SINFO_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    nodes = []
    for line in answer.splitlines():
        cores, _, resources = line.partition(" ")
        if cores.rstrip("+").isdecimal():  # of unlike nodes it gives the least, with a +
            found = re.findall(r"gpu:(?:[^:,(]+:)?(\d+)", resources)
            nodes.append(Node(int(cores.rstrip("+")), sum(map(int, found))))
    return nodes


def share_machine(devices: Any, accelerator: str) -> Any:
    """Give a job that runs beside others of its sweep its own GPUs and its part of the CPU's threads.

    With N GPUs the job of number k that asks for n of them gets those from k·n on, modulo N. The threads are the
    launcher's ``cpus_per_task``, where it has that, or SLURM's (joblib sees to it by itself).

    Args:
        devices: how many the job asks for; whoever names indices, or takes all, has them as they are.
        accelerator: Lightning's.

    Returns:
        The indices; ``devices`` itself where the jobs run one after the other.
    """
    if not in_multirun() or HydraConfig.get().launcher._target_ == BASIC:
        return devices
    hydra = HydraConfig.get()
    cores = os.environ.get("SLURM_CPUS_PER_TASK") or hydra.launcher.get("cpus_per_task")
    if cores is not None:
        import torch

        torch.set_num_threads(min(int(cores), torch.get_num_threads()))
    there = gpus(accelerator)
    if not isinstance(devices, int) or not 0 < devices < there:
        return devices
    return [(hydra.job.num * devices + k) % there for k in range(devices)]
