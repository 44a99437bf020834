"""Write tables of means over photos, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from invrep.reporting.layouts.cells import (
    Cell,
    Keys,
    Label,
    Labels,
    is_miniature,
    label_of,
    listed,
    named,
    save,
    spread_of,
    status_of,
    write_csv,
)
from invrep.reporting.layouts.latex import tabular
from invrep.validation import choice


def table(
    cells: Sequence[Cell],
    stem: Path,
    *,
    rows: Keys,
    columns: Keys,
    values: Mapping[str, str],
    spread: str = "std",
    scale: float = 100.0,
    labels: Labels | None = None,
    note: str | None = None,
) -> list[Path]:
    """Write means ± spread over photos as CSV (one line for each cell), Markdown and LaTeX (booktabs).

    A cell without a number shows its jobs' status. A cell in which only some photos are finished is marked with †.

    Args:
        cells: jobs of the sweep.
        stem: path of the files without a suffix.
        rows: keys of the rows; several ``values`` need the key ``value`` in ``rows`` or ``columns``.
        columns: keys of the columns.
        values: printed name of each averaged value, see :meth:`Cell.numbers`.
        spread: ``std`` for the standard deviation (CVPR), or ``sem`` for 1.96 standard errors of the mean (IJCV).
        scale: factor on the values; 100 for percent.
        labels: for each key the names of its values, or a format such as ``λ = {}``.
        note: text below the table; None: no text.

    Returns:
        Paths of the files.

    Raises:
        InvrepError: a key or ``spread`` is invalid, or a file cannot be written.
    """
    choice("spread", spread, ("std", "sem"))
    rows, columns = listed(rows), listed(columns)
    names = {**(labels or {}), "value": values}
    gathered: dict[tuple[Label, Label], tuple[list[float], list[Cell]]] = {}
    for cell in cells:
        for value in values:
            known = {**cell.values, "value": value}
            place = label_of(known, rows), label_of(known, columns)
            numbers, some = gathered.setdefault(place, ([], []))
            numbers += cell.numbers(value)
            some.append(cell)
    heads = list(dict.fromkeys(column for _, column in gathered))
    sides = list(dict.fromkeys(row for row, _ in gathered))
    text, lines = {}, []
    for (row, column), (numbers, some) in gathered.items():
        numbers = [scale * number for number in numbers]
        status = status_of(some, bool(numbers))
        middle = mean(numbers) if numbers else math.nan
        around = spread_of(numbers, spread)
        mark = " †" if numbers and status != "done" else ""
        shown = f"{middle:.1f}" + ("" if math.isnan(around) else f" ± {around:.1f}") + mark
        text[row, column] = shown if numbers else status
        ends = ["" if math.isnan(number) else f"{number:.6g}" for number in (middle, around)]
        lines.append([*row, *column, *ends, len(numbers), status])
    header = [*rows, *columns, "mean", "std" if spread == "std" else "1.96 sem", "n", "status"]
    if any("†" in one for one in text.values()):
        note = f"{note + ' ' if note else ''}† Not all photos."
    if is_miniature(cells):
        note = f"Miniature by quick=true: no result.{f' {note}' if note else ''}"
    top = ["", *(named(columns, head, names) for head in heads)]
    body = [[named(rows, side, names), *(text.get((side, head), "") for head in heads)] for side in sides]
    written = {
        ".csv": lambda path: write_csv(path, header, lines),
        ".md": lambda path: path.write_text(markdown(top, body, note), encoding="utf-8", errors="replace"),
        ".tex": lambda path: path.write_text(tabular(top, body, note), encoding="ascii"),
    }
    return save(stem, written)


def markdown(top: Sequence[str], body: Sequence[Sequence[str]], note: str | None) -> str:
    """Return a table of Markdown, with the arguments of :func:`~invrep.reporting.layouts.latex.tabular`."""

    def escaped(cell: str) -> str:
        return " ".join(cell.split()).replace("|", "\\|")

    lines = [top, ["---"] * len(top), *body]
    text = "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)
    return text + (f"\n{note}\n" if note else "")
