"""Make the user's own modules importable."""

from __future__ import annotations

import importlib
import os
import sys


def find_here() -> None:
    """Add the working folder to the end of ``sys.path``, so that an installed package of the same name comes first."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
