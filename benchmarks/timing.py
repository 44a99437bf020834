"""What the benchmarks share: the line that names the machine, and computations timed in turn."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


def machine() -> str:
    """Return a line that names the processor, its instruction set, the number of threads, torch and the GPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    cpu: Any = torch.cpu  # the queries have no public name
    kinds = {"avx512_bf16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}
    extra = [kind for kind, query in kinds.items() if getattr(cpu, query, bool)()]
    sets = " ".join([torch.backends.cpu.get_cpu_capability().lower(), *extra])
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor} ({sets}), {torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"


@dataclass(frozen=True)
class Pairs:
    """Hold the times of two computations that ran in turn, in seconds; the ratio is taken pair by pair."""

    ours: list[float]
    theirs: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        """Return the median time of ours and of theirs, in seconds."""
        return statistics.median(self.ours), statistics.median(self.theirs)

    @property
    def ratios(self) -> list[float]:
        """Return our time over theirs for every pair, least first."""
        return sorted(one / other for one, other in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        """Return the ratio's median, least and greatest value."""
        return f"{statistics.median(self.ratios):.3f} ({self.ratios[0]:.2f}–{self.ratios[-1]:.2f})"


def seconds(run: Callable[[], object]) -> float:
    """Return the time that a call takes, in seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def in_turn(number: int, *runs: Callable[[], float]) -> list[list[float]]:
    """Return the times of several computations that run in turn, after one unrecorded round to warm up.

    Args:
        number: number of rounds; every other one goes through the computations backwards.
        runs: functions that each run a computation and return its time in seconds.
    """
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(number + 1):
        for k in range(len(runs))[:: 1 if turn % 2 else -1]:
            time_of = runs[k]()
            if turn:
                found[k].append(time_of)
    return found


def pairs(ours: Callable[[], float], theirs: Callable[[], float], number: int) -> Pairs:
    """Run two computations in turn (:func:`in_turn`)."""
    return Pairs(*in_turn(number, ours, theirs))
