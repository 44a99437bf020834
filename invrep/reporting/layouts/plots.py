"""Plot means over photos against a key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from invrep.reporting.layouts.cells import (
    DPI,
    Cell,
    Keys,
    Labels,
    figure_files,
    label_of,
    listed,
    named,
    save,
    spread_of,
    write_csv,
)
from invrep.validation import choice


def plot(
    cells: Sequence[Cell],
    stem: Path,
    *,
    x: str,
    values: Mapping[str, str],
    lines: Keys = (),
    spread: str = "sem",
    labels: Labels | None = None,
) -> list[Path]:
    """Plot means over photos against a key, one panel for each value, as PNG (300 dpi) and PDF; numbers as CSV.

    A value without numbers has no panel, unless no value has any.

    Args:
        cells: jobs of the sweep.
        stem: path of the files without a suffix.
        x: key of the horizontal axis, in the order of the sweep.
        values: name of the vertical axis for each plotted value, see :meth:`Cell.numbers`.
        lines: keys; each combination of their values has a line.
        spread: length of the error bars: ``std``, or ``sem`` for 1.96 standard errors of the mean.
        labels: for each key the names of its values, or a format such as ``λ = {}``.

    Returns:
        Paths of the files.

    Raises:
        InvrepError: a key or ``spread`` is invalid, or a file cannot be written.
    """
    choice("spread", spread, ("std", "sem"))
    lines, labels = listed(lines), labels or {}
    places = list(dict.fromkeys(label_of(cell.values, [x]) for cell in cells))
    panels_of = [value for value in values if any(cell.numbers(value) for cell in cells)] or list(values)
    figure = Figure(figsize=(max(3.2, 0.3 * len(places) + 1), 1.8 * len(panels_of)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = dict(zip(panels_of, figure.subplots(len(panels_of), 1, sharex=True, squeeze=False)[:, 0], strict=True))
    table_lines = []
    for value in values:
        for key in dict.fromkeys(label_of(cell.values, lines) for cell in cells):
            points = []
            for cell in cells:
                if label_of(cell.values, lines) == key:
                    numbers = cell.numbers(value)
                    middle, around = mean(numbers) if numbers else math.nan, spread_of(numbers, spread)
                    points.append((places.index(label_of(cell.values, [x])), middle, around))
                    ends = ["" if math.isnan(number) else f"{number:.6g}" for number in (middle, around)]
                    table_lines.append([value, cell.values[x], *key, *ends, len(numbers), cell.status])
            if value not in panels:
                continue
            across, up, spreads = zip(*points, strict=True)
            bars = [0 if math.isnan(bar) else bar for bar in spreads]
            label = named(lines, key, labels) or None
            panels[value].errorbar(across, up, yerr=bars, marker="o", markersize=3, linewidth=1, capsize=2, label=label)
    for value, panel in panels.items():
        panel.set_ylabel(values[value], fontsize=7)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=6)
        panel.grid(alpha=0.3)
        if lines:
            panel.legend(fontsize=6)
    panel.set_xticks(range(len(places)), [named([x], place, labels) for place in places], rotation=60, ha="right")
    header = ["value", x, *lines, "mean", "std" if spread == "std" else "1.96 sem", "n", "status"]
    files = figure_files(figure, cells)
    return save(stem, {**files, ".csv": lambda path: write_csv(path, header, table_lines)})
