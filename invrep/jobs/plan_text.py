"""Print a job's plan before the job starts."""

from __future__ import annotations

import torch
from rich.markup import escape

from invrep.data.folders import some_of
from invrep.inversion.compute import EXACT_END
from invrep.jobs.job import Job
from invrep.jobs.memory import in_bytes
from invrep.jobs.plan import Plan
from invrep.jobs.ranks import gpus
from invrep.messages import count, printable


def show_plan(job: Job, plan: Plan) -> None:
    """Print the plan: images and restarts, finished pre-images, warnings about the descent, batches and memory."""
    config, console = job.config, job.console
    wanted, rows = (sum(len(batch.rows) for batch in some) for some in (plan.batches, plan.left))
    images = wanted // config.restarts
    sizes = sorted({batch.size for batch in plan.batches})
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    size = f"{', '.join(f'{w}×{h}' for h, w in sizes[:3])} px{more}"
    what = escape(job.title)
    console.print(
        f"[bold]{what}[/]: {count(images, 'image')} × {count(config.restarts, 'restart')}, {size}, "
        f"{'RGB' if job.channels == 3 else 'grey'}, {_way(job)}"
    )
    if left_out := job.photos.left_out:
        where = "" if config.dry_run else f"; all are in {job.results.folder / 'left_out.txt'}"
        what = f"{count(len(left_out), 'file is', 'files are')} left out: {some_of(left_out)}{where}"
        console.print(printable(what), soft_wrap=True, markup=False)
    if wanted > rows and images:
        console.print(f"{wanted - rows} of {wanted} are finished in {escape(str(job.results.folder))} and are skipped")
        if config.video:
            console.print("a film is taken during the descent, so that of what is finished none is made")
    for height, width in sizes if job.baseline is None else ():
        shape = (job.channels, height, width)
        warnings = job.descent.warnings(job.phi, job.prior.for_shape(shape, job.phi), shape)
        for warning in warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        if warnings:
            break
    if plan.left:
        _show_memory(job, plan)


def _way(job: Job) -> str:
    """Return how each pre-image is made: the passes and their precision, or the baseline."""
    return f"{job.passes} passes each{_precision(job)}" if job.baseline is None else "by a baseline, without a descent"


def _precision(job: Job) -> str:
    """Return what ``compute.precision=auto`` means for this job; nothing for a precision by its name."""
    if job.compute.precision != "auto":
        return ""
    device = torch.device("cuda" if gpus(job.config.trainer.accelerator) else "cpu")
    rounds = job.compute.rounds(job.phi, device, 0.0)
    return f", in bfloat16 up to the last {EXACT_END:.0%}" if rounds else ", in float32"


def _show_memory(job: Job, plan: Plan) -> None:
    """Print the number of batches and the memory of the largest one, with a warning if less is free."""
    config, console, batch, ranks = job.config, job.console, plan.largest, len(plan.shares)
    where = "GPU memory" if gpus(config.trainer.accelerator) else "memory"
    takes = f"an unknown amount of {where}"
    if plan.need is not None:
        takes = f"{plan.need.words(len(batch.rows))} of {where}"
        if plan.need.most(len(batch.rows)) > plan.free:
            console.print(
                f"[yellow]warning:[/] {count(len(batch.rows), 'pre-image')} of {batch.size[1]}×{batch.size[0]} px "
                f"want {takes}, of which {in_bytes(plan.free)} are free; make photos smaller (data.resize), or "
                f"data.batch_size or restarts.",
                soft_wrap=True,
            )
    console.print(
        f"{count(len(plan.left), 'batch', 'batches')} of up to {count(len(batch.rows), 'pre-image')}, {takes}"
        f"{' each' if ranks > 1 else ''}{f', on {ranks} ranks' if ranks > 1 else ''}; results in "
        f"{escape(str(job.results.folder))}",
        soft_wrap=True,
    )
