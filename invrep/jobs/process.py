"""Set up a process that runs a job."""

from __future__ import annotations

import ctypes
import os
import warnings
from contextlib import suppress
from pathlib import Path

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


def machine_place() -> str | None:
    """Return an identifier of the machine and its PID namespace, where process ids are comparable; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def runs(pid: int) -> bool:
    """Return whether a process of this machine and namespace runs and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
