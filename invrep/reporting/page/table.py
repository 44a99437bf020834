"""Make the page's table of jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from invrep.reporting.comparison import Run, words

SYMBOLS = {
    **{"prior.tv.weight": "λ_V", "prior.tv.beta": "β", "prior.alpha.weight": "λ_α", "objective.weight": "C"},
    **{"optim.steps": "passes", "optim.lr": "rate", "rep": "representation", "data.path": "photos"},
}

HEADINGS = {
    **{"error": "error", "root_error": "root error", "pairwise_error": "pairwise error", "activation": "activation"},
    **{"psnr": "PSNR, dB", "ssim": "SSIM", "energy": "energy", "class_kept": "class kept"},
    **{"class_probability": "class probability", "spread_ssim": "1 − SSIM of restarts", "passes": "passes"},
    **{"spread_lpips": "LPIPS of restarts", "spread_code": "code spread", "seconds": "seconds each"},
}

PERCENT = {"error", "root_error", "pairwise_error", "class_kept", "spread_code"}
OF_A_PICTURE = tuple(name for name in HEADINGS if not name.startswith("spread_"))


def table_of(runs: Sequence[Run], swept: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the headings and rows of the table.

    A heading is (key, text, whether its column is numeric). A cell is (text, sort value).

    Args:
        runs: jobs, one row each.
        swept: values of each swept key, in order.
    """
    layers = dict.fromkeys(name for run in runs for name in run.means if name.startswith("error/"))
    names = [name for name in (*HEADINGS, *layers) if any(name in run.means for run in runs)]
    # equal numbers of passes are under the page's title
    names = [n for n in names if n != "passes" or len({run.means[n] for run in runs if n in run.means}) > 1]
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
        cells += [
            (_mean(name, *run.means[name]), run.means[name][0]) if name in run.means else ("", None) for name in names
        ]
        rows.append(cells)
    return {"headings": headings, "rows": rows}


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
