"""Divide a machine, or request nodes of a cluster, for a sweep whose jobs run at the same time."""

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

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # runs one job after the other
AT_ONCE = 4  # concurrent jobs on a machine without GPUs
THREADS = 8  # CPU cores for each device of a SLURM job, if a node has as many
SINFO_SECONDS = 30  # time limit of sinfo


def register() -> None:
    """Register the resolvers ``${machine:…}`` and ``${slurm:…}`` of the launchers' configs.

    Every process that composes or reads such a config needs them: the command, and each job of a sweep.
    """
    OmegaConf.register_new_resolver("machine", machine, replace=True)
    OmegaConf.register_new_resolver("slurm", slurm, replace=True)


def machine(what: str) -> int:
    """Return a number that describes this machine, for ``${machine:…}`` in a launcher's config.

    Args:
        what: one of four names. ``gpus``: number of GPUs. ``gpu``: 1 with a GPU, else 0. ``jobs``: number of
            concurrent jobs, one for each GPU, or without GPUs one for each CPU core up to 4. ``cores``: number of CPU
            cores for each of these jobs.
    """
    import torch  # takes seconds, and every command registers this resolver

    there = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = there or min(cores, AT_ONCE)
    return {"gpus": there, "gpu": min(there, 1), "jobs": jobs, "cores": max(cores // jobs, 1)}[what]


class Node(NamedTuple):
    """Describe a kind of node of the cluster.

    Attributes:
        cores: number of CPU cores.
        gpus: number of GPUs.
    """

    cores: int
    gpus: int


def slurm(what: str, accelerator: str, devices: Any, partition: str | None = None) -> int | None:
    """Return the GPUs or CPU cores that a job requests of a SLURM node, for ``${slurm:…}`` in a launcher's config.

    Args:
        what: ``gpus`` or ``cores``.
        accelerator: Lightning's accelerator; ``auto``: GPUs if a node of the partition has any.
        devices: Lightning's devices.
        partition: partition of the cluster; None: all.

    Returns:
        For ``gpus``, the number of GPUs, None for a job on the CPU. For ``cores``, 8 for each device, or as many as a
        node has.
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
    """Return the kinds of nodes that SLURM's ``sinfo`` lists; an empty list if it fails.

    Args:
        partition: partition of the cluster; None: all.
    """
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
        if cores.rstrip("+").isdecimal():  # for unlike nodes sinfo prints the least number and a +
            found = re.findall(r"gpu:(?:[^:,(]+:)?(\d+)", resources)
            nodes.append(Node(int(cores.rstrip("+")), sum(map(int, found))))
    return nodes


def share_machine(devices: Any, accelerator: str) -> Any:
    """Return the devices of a job that runs beside others of its sweep, and limit its CPU threads.

    With N GPUs, job k with n devices gets the n GPUs from k·n on, modulo N. The number of threads is SLURM's
    ``SLURM_CPUS_PER_TASK`` or the launcher's ``cpus_per_task``; joblib limits its threads itself.

    Args:
        devices: number of devices for each job; a list of indices, or all devices, is returned unchanged.
        accelerator: Lightning's accelerator.

    Returns:
        Indices of the devices; ``devices`` itself if the jobs run one after the other.
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
