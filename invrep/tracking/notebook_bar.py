"""Show the progress of a descent in a notebook."""

from __future__ import annotations

import math
import warnings
from typing import Any

from tqdm import TqdmWarning

from invrep.tracking.bar_text import which_images
from invrep.tracking.progress import Report, Ticks, worded


class NotebookBar(Ticks):
    """Draw tqdm's bar over all passes of all images, with the pass, the error and the time left.

    It is a widget where ipywidgets is installed, else a line of text. It disappears at the end.

    Args:
        total: work of the whole call, in pixels times passes.
        images: number of images of the whole call.
    """

    def __init__(self, total: float, images: int) -> None:
        super().__init__(self._show)
        self.total, self.count = total, images
        self.bar: Any = None

    def __enter__(self) -> NotebookBar:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # it asks for ipywidgets, which nobody needs
            from tqdm.auto import tqdm
        layout = "{desc}{percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=self.total, leave=False, bar_format=layout, dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def _show(self, report: Report) -> None:
        value = "" if math.isnan(report.value) else f"{report.shows} {worded(report.shows, report.value)}"
        which = which_images(report.images, self.count)
        self.bar.set_description_str(f"{which}: " if which else "", refresh=False)
        self.bar.set_postfix_str(", ".join(filter(None, (report.place, value))), refresh=False)
        self.bar.n = min(report.done, self.total)
        self.bar.refresh()
