"""Draw a result with matplotlib: its grid and its curves."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from invrep.api.html import as_colours
from invrep.errors import InvrepError
from invrep.reporting.job_grid import MOST_ROWS, GridRow, drawn

if TYPE_CHECKING:
    from invrep.api.inverted import Inverted

DPI = 150
NAMED = 8  # images; more have one colour, without a legend


class NotebookFigure(Figure):
    """Draw a figure that a notebook shows once.

    pyplot would show a figure of its own a second time, at the end of the cell. A notebook that has not imported pyplot
    would show any other figure as text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", facecolor="white")
        return file.getvalue()


def grid(found: Inverted, images: Iterable[int] | None) -> Figure:
    """Draw photos beside their pre-images, see :meth:`Inverted.plot`."""
    n = len(found.names)
    chosen = list(range(n))[:MOST_ROWS] if images is None else list(images)
    if wrong := [k for k in chosen if not -n <= k < n]:
        raise InvrepError(f"There is no images[{wrong[0]}]; expected an index below {n}.")
    if not chosen:
        raise InvrepError("images is empty; expected indices of images, such as images=[0, 1].")
    rows = [
        GridRow(
            None if found.photos is None else as_colours(found.photos[k]),
            [as_colours(pixels) for pixels in found.reconstructions[k]],
            [found.caption(k, restart) for restart in range(found.reconstructions.shape[1])],
        )
        for k in chosen
    ]
    title = "restart 0" if found.reconstructions.shape[1] > 1 else "pre-image"
    return drawn(rows, title=title, display=found.display, figure=NotebookFigure(dpi=DPI))


def curves(found: Inverted) -> Figure:
    """Draw the error of every pre-image against the pass, see :meth:`Inverted.curve`."""
    at = [passes for passes, _ in found.history]
    values = torch.stack([terms[found.shows] for _, terms in found.history])  # (point, image, restart)
    figure = NotebookFigure(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    many = values.shape[1] > NAMED
    for image, name in enumerate(found.names):
        look: dict[str, Any] = {"color": "C0" if many else f"C{image}", "alpha": 0.3 if many else 0.8, "linewidth": 1}
        lines = axes.plot(at, values[:, image].numpy(), **look)
        lines[0].set_label(name if 1 < values.shape[1] <= NAMED else "_")
    axes.set_xscale("symlog", linthresh=1)  # the start, pass 0, has a place
    axes.set_xlim(0, max(at))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if found.shows == "error":
        axes.set_yscale("log", nonpositive="mask")
    axes.set(xlabel="pass", ylabel="relative error" if found.shows == "error" else found.shows)
    axes.grid(which="major", color="0.9")
    if 1 < values.shape[1] <= NAMED:
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
