"""Set up a process that runs a job."""

from __future__ import annotations

import ctypes
import warnings
from contextlib import suppress

from PIL import Image


def prepare_process() -> None:
    """Set up this process for a job: its memory allocator, and a warning that photo_reading replaces by an error."""
    _keep_memory()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # photo_reading rejects such photos


def _keep_memory() -> None:
    """Let glibc keep the memory that a pass frees, since the next pass needs the same amount.

    By default, glibc returns large blocks to the system after each pass. Requesting them again costs a fifth of a HOG
    pass. On a virtual machine whose host reclaims unused pages, it costs many times the pass.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # the C library is not glibc
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 * 2**20)  # the greatest value that glibc accepts
    mallopt(trim_threshold, 2**30)


def return_memory() -> None:
    """Let glibc return its free memory to the system."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
