"""Write the comparison of two jobs or sweeps: a table in the terminal, CSV or LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from invrep.errors import InvrepError
from invrep.messages import printable
from invrep.reporting.layouts.cells import save, write_csv
from invrep.reporting.layouts.latex import tabular
from invrep.reporting.paired_measures import Compared, Comparison

HEADS = ("", "A", "B", "A − B", "95 % interval", "A : B", "p", "n")  # A : B are the photos on which each is better
NARROWEST = 16  # characters of the measures' names, which wrap
COLUMNS = ("measure", "a", "b", "difference", "low", "high", "a_better", "b_better", "win_rate", "test", "p", "n")


def paired_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the table for a terminal, with a section for each pair of jobs of two sweeps."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for k, head in enumerate(HEADS):
        table.add_column(head, justify="right" if k else "left", no_wrap=k > 0, min_width=None if k else NARROWEST)
    for k, comparison in enumerate(comparisons):
        if comparison.pair.name:
            if k:
                table.add_row()
            table.add_row(Text(printable(comparison.pair.name), style="bold"))
        for measure in comparison.measures:
            table.add_row(*map(Text, _texts(measure)))
    return table


def write_comparison(path: Path, comparisons: Sequence[Comparison], *, at_equal_error: bool) -> None:
    """Write the table as CSV or LaTeX (booktabs), by the file's suffix.

    Args:
        path: path of the file, with the suffix .csv or .tex.
        comparisons: comparisons of two jobs, or of the jobs of two sweeps.
        at_equal_error: whether they are on photos of equal code error alone, which the file says.

    Raises:
        InvrepError: the suffix is another, or the file cannot be written.
    """
    check_suffix(path)
    files: dict[str, Callable[[Path], Any]] = {
        ".csv": lambda place: write_csv(place, *_table(comparisons, at_equal_error)),
        ".tex": lambda place: place.write_text(_latex(comparisons), encoding="ascii"),
    }
    save(path.with_suffix(""), {path.suffix: files[path.suffix]})


def _table(comparisons: Sequence[Comparison], at_equal_error: bool) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the lines of the CSV file."""
    lines = [
        [*one.pair.at.values(), *_numbers(measure), at_equal_error] for one in comparisons for measure in one.measures
    ]
    return [*comparisons[0].pair.at, *COLUMNS, "at_equal_error"], lines


def _latex(comparisons: Sequence[Comparison]) -> str:
    several = len(comparisons) > 1
    top = [*(["at"] if several else []), *HEADS]
    body = [
        [*([one.pair.name] if several else []), *_texts(measure)] for one in comparisons for measure in one.measures
    ]
    return tabular(top, body, " ".join([*notes(comparisons), test_note(comparisons)]))


def check_suffix(path: Path) -> None:
    """Check that a table can be written in the format of a file's suffix.

    Raises:
        InvrepError: the suffix is neither .csv nor .tex.
    """
    if path.suffix not in (".csv", ".tex"):
        raise InvrepError(f"{path} is neither CSV nor LaTeX; give -o FILE.csv or -o FILE.tex.")


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the sentences of all comparisons; of several, each with its swept values."""
    several = len(comparisons) > 1
    return [f"{one.pair.name}: {note}" if several else note for one in comparisons for note in one.notes]


def test_note(comparisons: Sequence[Comparison]) -> str:
    """Return the sentence on the test and on what a photo's value is."""
    test = next(measure.paired.test for one in comparisons for measure in one.measures)
    return (
        "Means over n photos, restarts averaged first; bootstrap intervals of the paired difference. A : B are the "
        f"photos on which each is better. p is of a two-sided {test} test of n pairs, not corrected for the number of "
        "measures."
    )


def _texts(measure: Compared) -> list[str]:
    paired = measure.paired
    wins = "" if measure.wins is None else "{} : {}".format(*measure.wins)
    ends = "" if paired.interval is None else " to ".join(map(measure.text, paired.interval))
    p = "< .001" if paired.p < 0.001 else f"{paired.p:.3f}".removeprefix("0").removesuffix(".000")
    values = map(measure.text, (measure.first, measure.second, paired.difference))
    return [measure.heading, *values, ends, wins, p, str(paired.n)]


def _numbers(measure: Compared) -> list[Any]:
    paired, wins = measure.paired, measure.wins
    rate = "" if wins is None else f"{wins[0] / paired.n:.6g}"
    numbers = [measure.first, measure.second, paired.difference, *(paired.interval or ("", ""))]
    texts = [value if value == "" else f"{value:.6g}" for value in numbers]
    return [measure.name, *texts, *(wins or ("", "")), rate, paired.test, f"{paired.p:.6g}", paired.n]
