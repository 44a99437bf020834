"""Print the summary of a job."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console

from invrep.evaluation.certificate.columns import worded as certificate_words
from invrep.jobs.job import Job
from invrep.jobs.summary import Summary
from invrep.jobs.summary_table import results_table
from invrep.reporting.terminal import make_console
from invrep.reporting.terminal_picture import show_picture
from invrep.results.rows import SPREADS
from invrep.tracking.progress import worded

MOST_NAMED = 5  # photos named in a line
CERTIFIED = {  # columns of certificates, and how their means are told
    "jpeg_equivalent": "as a JPEG of quality {}",
    "shift_equivalent": "a shift by {} px",
    "noise_equivalent": "noise of {} grey levels",
    "null_percentile": "{} of other photos nearer",
    "other_class_kept": "class kept by {} of other networks",
}


def _remarks(summary: Summary) -> Iterator[str]:
    """Yield a line for each remark, with the photos that have it."""
    for remark, images in summary.remarked.items():
        some = f"{len(images)} photo{'s have' if len(images) > 1 else ' has'} no relative error, since {remark}"
        names = ", ".join(list(images)[:MOST_NAMED]) + (", …" if len(images) > MOST_NAMED else "")
        yield f"{some}: {names}; the numbers leave {'them' if len(images) > 1 else 'it'} out"


def _print_measure(console: Console, shows: str, summary: Summary) -> None:
    """Print the error of a match, or the activation of another objective."""
    columns = summary.columns
    if shows == "error":
        error = columns["error"]
        spread = "" if math.isnan(error.deviation) else f" ± {100 * error.deviation:.2f}"
        root = f" (root {100 * math.sqrt(error.mean):.1f} %)" if summary.count == 1 and error.mean else ""
        console.print(f"error ‖Φ−Φ0‖²/‖Φ0‖²: {100 * error.mean:.2f}{spread} %{root}")
    else:
        value = columns["activation"]
        some = f", {value.least:.4g} to {value.most:.4g}" if value.count > 1 else ""
        console.print(f"activation: {worded('activation', value.mean)}{some}")


def _print_details(console: Console, summary: Summary) -> None:
    """Print the errors of single layers, the classes kept, and the spread between restarts."""
    columns = summary.columns
    layers = {name.removeprefix("error/"): one.mean for name, one in columns.items() if name.startswith("error/")}
    if layers:
        console.print(f"of each layer: {', '.join(f'{name} {100 * mean:.2f} %' for name, mean in layers.items())}")
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
    if summary.certified:
        names = [name for name in CERTIFIED if name in columns and math.isfinite(columns[name].mean)]
        told = [CERTIFIED[name].format(certificate_words(name, columns[name].mean)) for name in names]
        console.print(f"certificates: {', '.join(told)}", soft_wrap=True)


def _still_falling(summary: Summary) -> str | None:
    """Return a line about pre-images whose error still falls, with the passes to try; None without any."""
    falls = summary.columns.get("still_falling")
    if falls is None or not falls.total or summary.passes_to_try is None:
        return None
    who = "the error" if falls.count == 1 else f"the error of {falls.total:.0f} of {falls.count} pre-images"
    return f"still falling: {who}; try optim.steps={summary.passes_to_try}"


def print_summary(job: Job, summary: Summary) -> None:
    """Print the table of a job's results, their measures, the path of the picture and, where it can be, the picture.

    With ``quiet=true``, only the mean error, the photos that it leaves out, and the path are printed.
    """
    quiet = job.console.quiet
    console = make_console() if quiet else job.console
    if not summary.count:
        return
    for line in _remarks(summary):
        console.print(line, soft_wrap=True, markup=False)
    if summary.bare < summary.count:  # otherwise no pre-image has a meaningful number
        if not quiet:
            console.print(results_table(summary, console.width))
        _print_measure(console, job.kind.shows, summary)
        if not quiet:
            _print_details(console, summary)
            if (falls := _still_falling(summary)) is not None:
                console.print(falls, soft_wrap=True, style="yellow")
    if summary.certified:
        console.print(f"certificates: {job.results.certificate}", soft_wrap=True, markup=False)
    console.print(f"picture: {job.results.grid}", soft_wrap=True, markup=False)
    if quiet:
        return
    show_picture(job.results.grid, console)
    if summary.seen:
        console.print(f"more:    {summary.seen}", soft_wrap=True, style="dim", markup=False)
