"""Lay out a sweep's results as tables and figures, in the arrangements that papers use.

Each function writes files for the sweep's jobs at a path without a suffix, and returns their paths. *Keys* arrange the
results in rows and columns. A key is a config key in which the jobs differ, such as ``layer`` or ``prior.tv.weight``.
It may also be a group such as ``rep``, or ``image``, ``restart``, or in tables ``value``.
"""

from invrep.reporting.layouts.cells import Cell
from invrep.reporting.layouts.pictures import grid, photos
from invrep.reporting.layouts.plots import plot
from invrep.reporting.layouts.scores import scores
from invrep.reporting.layouts.tables import table

__all__ = ["Cell", "grid", "photos", "plot", "scores", "table"]
