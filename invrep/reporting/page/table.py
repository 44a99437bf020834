"""Make the page's table of jobs, for the page and as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invrep.evaluation.certificate import columns as certificate
from invrep.reporting.comparison import CERTIFIED, SYMBOLS, Run, words
from invrep.reporting.layouts.latex import tabular

HEADINGS = {
    **{"error": "error", "root_error": "root error", "pairwise_error": "pairwise error", "activation": "activation"},
    **{"psnr": "PSNR, dB", "ssim": "SSIM", "energy": "energy", "class_kept": "class kept"},
    **{"class_probability": "class probability", "still_falling": "still falling", "passes": "passes"},
    **{"spread_ssim": "1 − SSIM of restarts", "spread_lpips": "LPIPS of restarts", "spread_code": "code spread"},
    **{"seconds": "seconds each"},
}
OF_A_PICTURE = tuple(name for name in HEADINGS if not name.startswith("spread_") and name != "still_falling")
BESIDE = ("null_rho", "null_r2", "null_snr_db", "photo_gradient_distance")  # of other photos, and of the photo
HEADINGS |= {name: certificate.HEADINGS[name] for name in CERTIFIED if name not in BESIDE}

PERCENT = {"error", "root_error", "pairwise_error", "class_kept", "spread_code", "still_falling", *certificate.PERCENT}
NOTE = "Mean ± standard deviation over photos and restarts."


@dataclass(frozen=True)
class JobTable:
    """Hold the table of a group of jobs.

    Attributes:
        headings: triple for each column: key, text, whether the column is numeric.
        rows: for each job its cells, pairs of a text and a value to sort by, which may be None.
        texts: lines of the downloads: ``csv``, the first of them the header, and ``latex``, those before, of and after
            the rows.
    """

    headings: list[tuple[str, str, bool]]
    rows: list[list[tuple[str, Any]]]
    texts: dict[str, Any]


def table_of(runs: Sequence[Run], swept: Mapping[str, Sequence[Any]]) -> JobTable:
    """Return the table of some jobs.

    Args:
        runs: jobs, one row each, in the order of their values.
        swept: values of each swept key, in order.
    """
    runs = sorted(runs, key=lambda run: [values.index(run.point[key]) for key, values in swept.items()])
    layers = dict.fromkeys(name for run in runs for name in run.means if name.startswith("error/"))
    names = [name for name in (*HEADINGS, *layers) if any(name in run.means for run in runs)]
    # equal numbers of passes are under the page's title
    names = [n for n in names if n != "passes" or len({run.means[n] for run in runs if n in run.means}) > 1]
    names = [n for n in names if n != "still_falling" or any(run.passes_to_try for run in runs)]
    lambdas = ["tv_weight"] if len({run.used.get("tv_weight") for run in runs}) > 1 else []
    lambdas = [] if "prior.tv.weight" in swept else lambdas
    has_field = any(run.used.get("receptive_field") for run in runs)
    headings = [(key, SYMBOLS.get(key, key), False) for key in swept] or [("rep", "job", False)]
    headings += [("field", "field, px", True)] * has_field + [(key, "λ_V used", True) for key in lambdas]
    headings += [("n", "n", True), *((name, HEADINGS.get(name, name.replace("/", " of ")), True) for name in names)]
    rows = []
    for run in runs:
        if not swept:
            cells: list[tuple[str, Any]] = [(label(run), None)]
        else:
            cells = [(words(run.point[key]), values.index(run.point[key])) for key, values in swept.items()]
        field = run.used.get("receptive_field")
        cells += [("all" if field is None else str(field), field or math.inf)] * has_field
        cells += [(words(run.used.get(key)), run.used.get(key)) for key in lambdas]
        cells += [(str(len(run.rows)) if run.rows else run.status, len(run.rows))]
        cells += [(_told(name, run), run.means[name][0]) if name in run.means else ("", None) for name in names]
        rows.append(cells)
    texts = {"csv": _csv(headings, rows, runs, names), "latex": _latex(headings, rows)}
    return JobTable(headings, rows, texts)


def _csv(
    headings: Sequence[tuple[str, str, bool]],
    rows: Sequence[Sequence[tuple[str, Any]]],
    runs: Sequence[Run],
    names: Sequence[str],
) -> list[str]:
    """Return the lines of the table as CSV: keys as in the table, and for each measure its mean and its deviation."""
    first = len(headings) - len(names)
    lines = [[key for key, _, _ in headings[:first]] + [f"{name}{end}" for name in names for end in ("", "_std")]]
    for run, cells in zip(runs, rows, strict=True):
        pairs = [run.means.get(name, (math.nan, math.nan)) for name in names]
        numbers = ["" if math.isnan(number) else f"{number:.6g}" for pair in pairs for number in pair]
        lines.append([text for text, _ in cells[:first]] + numbers)
    return [_csv_line(line) for line in lines]


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([cell.replace("\n", " ") for cell in cells])
    return text.getvalue().encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _latex(headings: Sequence[tuple[str, str, bool]], rows: Sequence[Sequence[tuple[str, Any]]]) -> dict[str, Any]:
    """Return the LaTeX of the table, as :func:`~invrep.reporting.layouts.latex.tabular` writes it, in three parts."""
    body = [[text for text, _ in cells] for cells in rows]
    lines = tabular([text for _, text, _ in headings], body, NOTE).split("\n")
    first = lines.index(r"\midrule") + 1
    last = first + len(rows)
    return {"before": "\n".join(lines[:first]), "rows": lines[first:last], "after": "\n".join(lines[last:])}


def _told(name: str, run: Run) -> str:
    """Return the text of a measure's cell."""
    if name == "still_falling":
        more = f", try {run.passes_to_try} passes" if run.passes_to_try else ""
        return f"{100 * run.means[name][0]:.0f} %{more}"
    return _mean(name, *run.means[name])


def _mean(name: str, mean: float, std: float) -> str:
    """Return ``mean ± std`` with two significant digits of the std; errors in percent."""
    factor, unit = (100, " %") if name.partition("/")[0] in PERCENT else (1, "")
    mean, std = factor * mean, factor * std
    if name == "passes":
        return f"{mean:g}"
    if math.isnan(std) or std == 0:
        return f"{_digits(mean, mean)}{unit}"
    return f"{_digits(mean, std)} ± {_digits(std, std)}{unit}"


def _digits(value: float, scale: float) -> str:
    places = 2 if scale == 0 else max(0, min(6, 1 - math.floor(math.log10(abs(scale)))))
    return f"{value:.{places}f}"


def label(run: Run) -> str:
    """Return the name of a job on the page: representation and layer, else its folder."""
    return " ".join(words(run.used[key]) for key in ("rep", "layer") if run.used.get(key)) or run.results.folder.name
