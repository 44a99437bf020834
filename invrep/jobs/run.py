"""Run one job from its config: plan, execute, complete."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from invrep.errors import InvrepError, ToldError, out_of_memory
from invrep.inversion.compute import exact
from invrep.jobs.certifying import check_certificate
from invrep.jobs.completion import complete
from invrep.jobs.config import check
from invrep.jobs.executors import Devices, Executor, OneOfMany, ThisProcess
from invrep.jobs.failures import raise_failures
from invrep.jobs.identity import name_of
from invrep.jobs.job import Job, assemble
from invrep.jobs.machine import register, share_machine
from invrep.jobs.plan import make_plan
from invrep.jobs.plan_text import show_plan
from invrep.jobs.process import prepare_process
from invrep.jobs.ranks import check_launch, gpus, launched, local_devices
from invrep.jobs.signals import ended_by_launcher
from invrep.jobs.summary import Summary
from invrep.jobs.summary_text import print_summary
from invrep.jobs.sweep_note import in_multirun, noted
from invrep.jobs.sweep_place import place_in_sweep
from invrep.jobs.words import Words
from invrep.messages import printable
from invrep.presets import build
from invrep.reporting.layer_table import layers_table
from invrep.reporting.terminal import make_console
from invrep.representations.network import Network
from invrep.representations.tracing.layer_names import LISTING
from invrep.tracking.bar_text import about
from invrep.tracking.film import film_format
from invrep.validation import choice

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Run one job and return the mean of its ``metric`` over photos and restarts.

    The default metric is the relative error ‖Φ−Φ0‖²/‖Φ0‖², or the activation for an objective that raises one.
    Finished pre-images in the job's folder are skipped. A photo that cannot be read or inverted is reported after the
    others are done.

    Args:
        config: composed config of the job; it is not changed.

    Returns:
        The mean; None for ``dry_run=true``, ``layer=list`` and every rank but rank 0.

    Raises:
        InvrepError: the config is wrong, memory has run out, nothing can be inverted, or some photos failed.
    """
    register()  # a launcher may have started this process without the command
    try:
        with noted() as tell, ended_by_launcher():
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
            # Hydra shows only the first failure of a sweep, at its end
            log.error("%s", error)
        raise


@exact()
def _run(config: DictConfig, tell: Callable[[Path], None]) -> float | None:
    prepare_process()
    console = make_console(quiet=_is_quiet(config))
    _show_place(console)
    if HydraConfig.initialized() and (began := HydraConfig.get().runtime.cwd) != os.getcwd():
        console.print(f"hydra.job.chdir=true: relative paths begin in {os.getcwd()}, not in {began}", soft_wrap=True)
    config = config.copy()
    check(config)
    config.name = name_of(config)
    film_format(config.video)
    if config.layer in LISTING:
        _show_layers(config, console)
        return None
    devices = _devices(config)
    job = assemble(config, console)
    tell(job.results.folder)
    check_certificate(job)
    metric = _metric(job)
    if (rank := launched()) is None:
        summary = _carry_out(job, ThisProcess() if len(devices) == 1 else Devices(devices))
    else:
        executor = OneOfMany(rank, Words(job.results.ranks, rank, job.tell))
        with nullcontext() if config.dry_run else executor.words:
            summary = _carry_out(job, executor)
    return None if summary is None else _told(job, summary, metric)


def _is_quiet(config: DictConfig) -> bool:
    """Return whether only the result is printed; a plan or a list of layers is itself the result."""
    return config.quiet is True and config.dry_run is not True and config.layer not in LISTING


def _show_place(console: Console) -> None:
    """Print which of a sweep's jobs this is, what it differs in, and the time left."""
    sweep, rank = place_in_sweep(), launched()
    if sweep is not None and (rank is None or rank.index == 0):
        left = about(sweep.left(math.nan))
        what = ", ".join(filter(None, (sweep.what, f"{left} left" if left else "")))
        console.print(f"\n[bold]{sweep.label.replace('/', ' of ')}[/]: {escape(printable(what))}", soft_wrap=True)


def _carry_out(job: Job, executor: Executor) -> Summary | None:
    """Plan, execute and complete a job.

    Returns:
        Summary of the job; None for a dry run, and in a rank that leaves the completion to rank 0.

    Raises:
        InvrepError: no photo can be read, or the execution fails.
    """
    plan = make_plan(job, executor.ranks, only=executor.index or None, here=executor.here)
    if not plan.places:
        raise_failures(job, done=0)
    if not executor.index:
        show_plan(job, plan)
    if job.config.dry_run:
        raise_failures(job, done=len(plan.places))
        return None
    if executor.index:
        executor.execute(job, plan, None)
        return None
    return complete(job, plan, executor)


def _told(job: Job, summary: Summary, metric: str) -> float:
    """Print the summary of a job, and return the mean of a metric.

    Raises:
        InvrepError: photos failed, a rank was absent, or no photo has a relative error.
    """
    print_summary(job, summary)
    raise_failures(job, done=summary.images)
    if summary.late:
        raise InvrepError(summary.late)
    if summary.count and summary.bare == summary.count:
        raise InvrepError(
            f"No photo has a relative error, since {' or '.join(summary.remarked)}; choose another layer, region or "
            f"channels."
        )
    return summary.columns[metric].mean


def _devices(config: DictConfig) -> list[int]:
    """Return the indices of the job's devices on this machine; set ``trainer.devices`` if it is one.

    Raises:
        InvrepError: a device does not exist, or a launcher has started another number of processes.
    """
    accelerator, rank = config.trainer.accelerator, launched()
    check_launch(config.trainer.devices, config.trainer.num_nodes, rank)
    asked = share_machine(config.trainer.devices, accelerator) if rank is None else 1
    devices = local_devices(asked, accelerator)
    if len(devices) == 1:
        config.trainer.devices = devices if gpus(accelerator) else 1
    return devices


def _show_layers(config: DictConfig, console: Console) -> None:
    """Print the table of a network's layers.

    Raises:
        InvrepError: the representation has no layers.
    """
    node = config.rep.get("descriptor") or config.rep
    network = build(node) if "layer" in node else None
    if not isinstance(network, Network):
        raise InvrepError(f"rep={config.name} is one code and has no layers; leave layer out.")
    wide = console if console.is_terminal else make_console(width=160)
    wide.print(layers_table(network))


def _metric(job: Job) -> str:
    """Return the column of ``metrics.csv`` whose mean the job returns.

    Raises:
        InvrepError: ``metric`` is no column of this job.
    """
    shows = job.kind.shows
    compared = ("psnr", "ssim") if "path" in job.config.data else ()  # measures that compare with the photo
    there = (shows, *(("root_error",) if shows == "error" else ()), *compared, "energy", "data")
    return choice("metric", job.config.metric or shows, there)
