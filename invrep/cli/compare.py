"""Compare two finished jobs or sweeps from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from invrep.cli.sentences import one_sentence
from invrep.errors import InvrepError


def compare(arguments: Sequence[str] | None = None) -> None:
    """Run ``invrep compare A B``: print each measure's paired difference, and write it as CSV or LaTeX.

    Args:
        arguments: arguments after ``compare``; None: those of the process.

    Raises:
        SystemExit: an argument is wrong (status 2), or there is nothing to compare (status 1).
    """
    parser = argparse.ArgumentParser(
        prog="invrep compare",
        description="Compare two finished jobs or sweeps photo by photo: differences with intervals, wins, a test.",
        epilog="The jobs of two sweeps are paired by their swept values. Certificates of both add measures.",
    )
    parser.add_argument("first", type=Path, metavar="A", help="folder of a job or of a sweep")
    parser.add_argument("second", type=Path, metavar="B", help="folder to compare it with")
    parser.add_argument(
        "--at-equal-error", action="store_true", help="on photos alone whose code errors agree within 10 %%"
    )
    parser.add_argument("--test", choices=("permutation", "sign"), default="permutation", help="default: permutation")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table to FILE.csv or FILE.tex")
    given = parser.parse_args(arguments)
    with one_sentence():
        _compare(given)


def _compare(given: argparse.Namespace) -> None:
    from invrep.reporting.paired_jobs import differing, paired_jobs
    from invrep.reporting.paired_measures import compare_jobs
    from invrep.reporting.paired_table import check_suffix, notes, paired_table, test_note, write_comparison
    from invrep.reporting.terminal import make_console

    if given.output is not None:
        check_suffix(given.output)  # an error costs no comparison
    pairs, alone = paired_jobs(given.first, given.second)
    ready = [pair for pair in pairs if pair.first.rows and pair.second.rows]
    alone += [f"{pair.name} has no pre-image in one of both, and is left out." for pair in pairs if pair not in ready]
    found = [compare_jobs(pair, at_equal_error=given.at_equal_error, test=given.test) for pair in ready]
    if not any(comparison.measures for comparison in found):
        details = [f"  {note}" for note in notes(found)]
        raise InvrepError("No photo is left to compare on:" if details else "No job is left to compare.", details)
    console = make_console()
    console.print(f"A: {given.first}", soft_wrap=True, markup=False)
    console.print(f"B: {given.second}", soft_wrap=True, markup=False)
    if phrases := differing(ready):
        console.print(f"A against B: {'; '.join(phrases)}", soft_wrap=True, markup=False)
    console.print()
    console.print(paired_table(found))
    console.print()
    for note in (*notes(found), *alone, test_note(found)):
        console.print(note, markup=False)
    if given.output is not None:
        write_comparison(given.output, found, at_equal_error=given.at_equal_error)
        console.print(f"table: {given.output}", soft_wrap=True, markup=False)
