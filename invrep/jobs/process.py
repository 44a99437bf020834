"""What a process that does a job is set up for."""

from __future__ import annotations

import ctypes
import warnings
from contextlib import suppress

from PIL import Image


def prepare_process() -> None:
    """Set up this process for a job: its memory, and warnings that we turn into sentences."""
    _keep_memory()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # photo_reading refuses such photos


def _keep_memory() -> None:
    """Let glibc keep the memory that a pass frees for the next one, which needs the same.

    By default it hands large blocks back to the system each time, and getting them anew costs a fifth of a HOG pass,
    and many times the pass on a virtual machine whose host takes unused pages away.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # no glibc
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 * 2**20)  # the most it takes
    mallopt(trim_threshold, 2**30)


def return_memory() -> None:
    """Let glibc hand back what it has kept."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
