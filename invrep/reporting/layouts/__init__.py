"""Tables and figures of a sweep's results, in the arrangements that papers use.

Each function takes the sweep's jobs and a path without a suffix, and returns the paths that it has written. What is in
a row and what in a column is said by *keys*: config keys by which the jobs differ (``layer``, ``prior.tv.weight``,
``cell.layer``), ``rep`` and other groups, ``image``, ``restart``, and in tables ``value``.
"""

from invrep.reporting.layouts.cells import Cell
from invrep.reporting.layouts.pictures import grid, photos
from invrep.reporting.layouts.plots import plot
from invrep.reporting.layouts.tables import table

__all__ = ["Cell", "grid", "photos", "plot", "table"]
