"""Lay out a sweep's results as tables and figures, in the arrangements that papers use.

Each function takes the sweep's jobs and a path without a suffix, and returns the paths of the files that it has
written. *Keys* arrange the results in rows and columns. A key is a config key in which the jobs differ (``layer``,
``prior.tv.weight``, ``cell.layer``), a group such as ``rep``, ``image``, ``restart``, or in tables ``value``.
"""

from invrep.reporting.layouts.cells import Cell
from invrep.reporting.layouts.pictures import grid, photos
from invrep.reporting.layouts.plots import plot
from invrep.reporting.layouts.tables import table

__all__ = ["Cell", "grid", "photos", "plot", "table"]
