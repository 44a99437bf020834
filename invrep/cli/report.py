"""Make the page of finished results from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from invrep.cli.sentences import one_sentence


def report(arguments: Sequence[str] | None = None) -> None:
    """Run ``invrep report …``: write the page of finished jobs, and print its path and size.

    Args:
        arguments: arguments after ``report``; None: those of the process.

    Raises:
        SystemExit: an argument is wrong (status 2), or there are no results (status 1).
    """
    parser = argparse.ArgumentParser(
        prog="invrep report",
        description="Make one HTML page of finished jobs: pictures, errors, curves.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of jobs, of a sweep, or the outputs folder")
    parser.add_argument("-o", "--output", type=Path, help="the HTML file; report.html in the first folder if not given")
    given = parser.parse_args(arguments)
    from invrep.reporting.comparison import find_runs
    from invrep.reporting.page.page import NAME, write
    from invrep.reporting.terminal import make_console

    path = given.output or given.runs[0] / NAME
    if path.is_dir():
        path = path / NAME
    with one_sentence():
        console = make_console()
        write(find_runs(given.runs), path, console)
        console.print(f"page: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
