"""Make the user's own modules importable, and import large packages fast."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def find_here() -> None:
    """Add the working folder to the end of ``sys.path``, so that an installed package of the same name comes first."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collections, and exempt what the imports made from later ones.

    Modules live as long as the process, so that collections find nothing among their objects. Searching the half
    million objects of torch, SciPy and Lightning again and again takes a fifth of their imports.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
