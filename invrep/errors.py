"""The one exception for a user's mistake, and the nearest valid names to a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

NO_MEMORY = (  # what torch, CUDA, cuBLAS, cuDNN, oneDNN, C++ and the system say
    r"out of memory|(can't|cannot|could not|failed to|unable to) allocate|not enough memory|insufficient memory|"
    r"ALLOC_FAILED|bad[ _]alloc|fail at alloc_cpu|could not (create|execute) a (primitive|memory)|"
    r"can't start new thread"
)


class InvrepError(ValueError):
    """A mistake that the user can mend: the message names the thing, what was expected and what to do.

    ``train.py`` prints it as one sentence, without a traceback, and exits with status 1.

    Args:
        message: the sentence.
        details: lines that stand below it, such as one for each job of a sweep that failed.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UnfitError(InvrepError):
    """Images that the representation cannot take, for example too small ones; others of the job may well fit.

    Args:
        message: the sentence.
        rows: places in the batch of the images concerned; empty for all.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory has run out, whichever library raised it."""
    from pytorch_lightning.utilities.memory import is_oom_error  # imports torch

    words = " ".join(map(str, error.args))
    return isinstance(error, MemoryError) or is_oom_error(error) or re.search(NO_MEMORY, words, re.I) is not None


class LayerError(InvrepError):
    """A layer that a network lacks; the network may well have those of other jobs of the sweep."""


class ToldError(InvrepError):
    """A mistake of which rank 0 tells the user: another rank only exits with status 1."""


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """Return the ``count`` valid names closest to ``name``, for the end of an error message.

    Returns ``"the nearest are a, b, c"``, or, where none is similar, ``"there are a, b, c, …"``.
    """
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(name, options, n=count, cutoff=0.5)
    if close:
        return f"the nearest {'is' if len(close) == 1 else 'are'} {', '.join(close)}"
    return f"there are {', '.join(options[:20])}{', …' if len(options) > 20 else ''}"


def words(error: BaseException) -> str:
    """Return an exception's own words on one line, with its kind before them: ``KeyError: 'model'``."""
    first = next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
