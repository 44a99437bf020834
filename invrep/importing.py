"""Where modules are found that a user names."""

from __future__ import annotations

import importlib
import os
import sys


def find_here() -> None:
    """Let the working folder's modules be imported; an installed package of the same name comes first."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
