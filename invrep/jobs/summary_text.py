"""Print the summary of a job."""

from __future__ import annotations

import math
from collections.abc import Iterator

from invrep.jobs.job import Job
from invrep.jobs.summary import Summary
from invrep.results.rows import SPREADS
from invrep.tracking.progress import worded

MOST_NAMED = 5  # photos named in a line


def _remarks(summary: Summary) -> Iterator[str]:
    """Yield a line for each remark, with the photos that have it."""
    for remark, images in summary.remarked.items():
        some = f"{len(images)} photo{'s have' if len(images) > 1 else ' has'} no relative error, since {remark}"
        names = ", ".join(list(images)[:MOST_NAMED]) + (", …" if len(images) > MOST_NAMED else "")
        yield f"{some}: {names}; the numbers leave {'them' if len(images) > 1 else 'it'} out"


def _print_measure(job: Job, summary: Summary) -> None:
    """Print the error of a match, with each layer's own, or the activation of another objective."""
    console, columns = job.console, summary.columns
    if job.kind.shows == "error":
        error = columns["error"]
        spread = "" if math.isnan(error.deviation) else f" ± {100 * error.deviation:.2f}"
        root = f" (root {100 * math.sqrt(error.mean):.1f} %)" if summary.count == 1 and error.mean else ""
        console.print(f"error ‖Φ−Φ0‖²/‖Φ0‖²: {100 * error.mean:.2f}{spread} %{root}")
        layers = {name.removeprefix("error/"): one.mean for name, one in columns.items() if name.startswith("error/")}
        if layers:
            console.print(f"of each layer: {', '.join(f'{name} {100 * mean:.2f} %' for name, mean in layers.items())}")
    else:
        value = columns["activation"]
        some = f", {value.least:.4g} to {value.most:.4g}" if value.count > 1 else ""
        console.print(f"activation: {worded('activation', value.mean)}{some}")


def print_summary(job: Job, summary: Summary) -> None:
    """Print the measures of a job's results, the path of its picture, and how to view it in its logger."""
    console, columns = job.console, summary.columns
    if not summary.count:
        return
    for line in _remarks(summary):
        console.print(line, soft_wrap=True, markup=False)
    if summary.bare < summary.count:  # otherwise no pre-image has a meaningful number
        _print_measure(job, summary)
    if (kept := columns.get("class_kept")) is not None and kept.count:
        console.print(
            f"top-1 class kept: {int(kept.total)} of {kept.count} (mean probability of the photo's class "
            f"{columns['class_probability'].mean:.2f})"
        )
    if any(name in columns for name in SPREADS):
        means = {name: columns[name].mean for name in SPREADS}
        said = [f"{word} {means[name]:.3f}" for name, word in zip(SPREADS, ("1−SSIM", "LPIPS"), strict=False)]
        said = [words for words in said if "nan" not in words]
        if not math.isnan(means["spread_code"]):
            said.append(f"code {100 * means['spread_code']:.2f} %")
        console.print(f"spread between restarts: {', '.join(said)}")
    console.print(f"picture: {job.results.grid}", soft_wrap=True, markup=False)
    if summary.seen:
        console.print(f"more:    {summary.seen}", soft_wrap=True, style="dim", markup=False)
