"""Run a job in several ranks: processes that share the list of photos and nothing else.

A job with ``trainer.devices=N`` starts N processes on this machine, one for each device, and gathers their results from
disk (:mod:`invrep.jobs.local_ranks`). If one of them dies, the others finish. torchrun and SLURM start the processes
themselves. Each rank then determines its own share of the list, and rank 0 gathers (:mod:`invrep.jobs.words`). The
ranks form no process group, so that no photo waits for another rank.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from invrep.errors import InvrepError
from invrep.validation import number

MOST_DEVICES = 1000  # devices of a machine; a greater number is a typing error


@dataclass(frozen=True)
class Rank:
    """Describe one of a job's processes that a launcher has started.

    Attributes:
        index: number of the rank, from 0.
        count: number of ranks on all machines.
        device: index of its device on its machine.
        run: identifier of the launch; a requeued launch may keep it.
        nodes: number of machines.
        named: names of the environment variables that set index and count, for messages.
    """

    index: int
    count: int
    device: int
    run: str
    nodes: int = 1
    named: str = field(default="", compare=False)

    @property
    def here(self) -> int:
        """Return the number of ranks on this machine, rounded up, if the ranks are spread evenly."""
        return math.ceil(self.count / self.nodes)


def launched() -> Rank | None:
    """Return this process's rank under torchrun or srun; None unless one of them has started several processes.

    SLURM sets ``SLURM_NTASKS`` also for a batch script and for salloc's shell, which are one process each. So only the
    variables of a step count, which srun sets: ``SLURM_STEP_NUM_TASKS``, or ``SLURM_NTASKS`` beside ``SLURM_STEP_ID``.

    Raises:
        InvrepError: a launcher's variable is no number, or the rank is not below the number of ranks.
    """
    tasks = "SLURM_STEP_NUM_TASKS"
    if not os.environ.get(tasks) and os.environ.get("SLURM_STEP_ID"):
        tasks = "SLURM_NTASKS"
    torchrun = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")  # a requeued job keeps its first two
    for index, count, device, run, nodes in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", torchrun, "GROUP_WORLD_SIZE"),
        ("SLURM_PROCID", tasks, "SLURM_LOCALID", slurm, "SLURM_NNODES"),
    ):
        if _variable(count, 1) > 1 and os.environ.get(index):
            place, ranks = _variable(index, 0), _variable(count, 1)
            if place >= ranks:
                raise InvrepError(f"{index}={place} does not fit {count}={ranks}: expected 0 to {ranks - 1}.")
            name = "-".join(os.environ.get(part, "") for part in run)
            named = f"{index} and {count}"
            return Rank(place, ranks, _variable(device, place), name, max(_variable(nodes, 1), 1), named)
    return None


def _variable(name: str, default: int) -> int:
    """Return a whole number from the environment; ``default`` if the variable is unset or empty.

    Raises:
        InvrepError: the variable is no whole number.
    """
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise InvrepError(
            f"{name}={text} in the environment is not valid: torchrun and srun set it to a whole number; unset {name}."
        )
    return int(text) if text else default


def check_launch(devices: Any, nodes: Any, rank: Rank | None) -> None:
    """Check ``trainer.devices`` and ``trainer.num_nodes`` against the processes that torchrun or srun has started.

    Args:
        devices: devices of each machine; 1, the default, is not checked.
        nodes: number of machines; 1, the default, is not checked.
        rank: rank of this process; None without a launcher.

    Raises:
        InvrepError: a number is invalid, or differs from what the launcher has started.
    """
    nodes = number("trainer.num_nodes", nodes, minimum=1, whole=True)
    if rank is None:
        if nodes > 1:
            raise InvrepError(
                f"trainer.num_nodes={nodes} is for processes that a launcher starts on {nodes} machines: srun "
                f"--nodes={nodes} --ntasks-per-node=8 invrep …, or torchrun --nnodes={nodes} "
                f"--nproc-per-node=8 -m invrep … on each of them."
            )
        return
    for key, asked, started, option in (
        ("num_nodes", nodes, rank.nodes, "--nodes (srun) or --nnodes (torchrun)"),
        ("devices", devices, rank.here, "--ntasks-per-node (srun) or --nproc-per-node (torchrun)"),
    ):
        if isinstance(asked, int) and asked not in (1, started):
            what = f"on {started} machine(s)" if key == "num_nodes" else f"{started} process(es) on each machine"
            raise InvrepError(
                f"trainer.{key}={asked} does not fit what was started, {what}: give {option} that number, or leave "
                f"trainer.{key} out."
            )


def gpus(accelerator: str) -> int:
    """Return the number of GPUs for Lightning's ``accelerator``; 0 for ``cpu``."""
    import torch  # takes seconds, and every command imports this module

    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0


def local_devices(devices: Any, accelerator: str) -> list[int]:
    """Return the indices of a job's devices on this machine, one for each rank.

    Args:
        devices: number of devices, list of indices, or ``auto`` or -1 for all GPUs (one process without GPUs).
        accelerator: Lightning's accelerator.

    Raises:
        InvrepError: the machine has fewer GPUs, or ``devices`` is none of these.
    """
    there = gpus(accelerator)
    if devices in ("auto", -1, "-1"):
        return list(range(max(there, 1)))
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    if isinstance(devices, int) and devices > MOST_DEVICES:
        raise InvrepError(f"trainer.devices={devices} is not valid: expected at most {MOST_DEVICES} on a machine.")
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0:
        devices = list(range(devices))
    good = isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) > 0
    if not good or not all(isinstance(k, int) and k >= 0 for k in devices):
        raise InvrepError(f"trainer.devices={devices} is not valid: expected a number, a list of indices or auto.")
    if (there or accelerator in ("gpu", "cuda")) and max(devices) >= there:
        raise InvrepError(
            f"trainer.devices={list(devices)} asks for the GPU {max(devices)}, but this machine has {there}, from 0 on."
        )
    return list(devices)
