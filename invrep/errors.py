"""Define the exceptions for a user's mistake, and find the valid names nearest to a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

NO_MEMORY = (  # texts of torch, CUDA, cuBLAS, cuDNN, oneDNN, C++ and the system
    r"out of memory|(can't|cannot|could not|failed to|unable to) allocate|not enough memory|insufficient memory|"
    r"ALLOC_FAILED|bad[ _]alloc|fail at alloc_cpu|could not (create|execute) a (primitive|memory)|"
    r"can't start new thread"
)


class InvrepError(ValueError):
    """Report a mistake that the user can mend.

    The message says what is wrong, what was expected and what to type. The command ``invrep`` prints it without a
    traceback and exits with status 1.

    Args:
        message: message, one sentence.
        details: lines below the message, such as one for each failed job of a sweep.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UnfitError(InvrepError):
    """Report images that the representation rejects, for example too small ones; other images of the job may fit.

    Args:
        message: message, one sentence.
        rows: places of these images in the batch; empty: all.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of any library, means that memory has run out."""
    from pytorch_lightning.utilities.memory import is_oom_error  # not at the top: it imports torch

    words = " ".join(map(str, error.args))
    return isinstance(error, MemoryError) or is_oom_error(error) or re.search(NO_MEMORY, words, re.I) is not None


class LayerError(InvrepError):
    """Report a layer that a network lacks; the network may have the layers of the sweep's other jobs."""


class VocabularyError(InvrepError):
    """Report a vocabulary whose file is missing; the sweep's other jobs may have theirs."""


class ToldError(InvrepError):
    """Report a mistake that rank 0 tells the user; other ranks only exit with status 1."""


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """Return the valid names closest to ``name``, as the end of an error message.

    Args:
        name: wrong name.
        options: valid names.
        count: greatest number of names.

    Returns:
        ``the nearest are a, b, c``; if none is similar, the first twenty: ``there are a, b, c, …``.
    """
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(name, options, n=count, cutoff=0.5)
    if close:
        return f"the nearest {'is' if len(close) == 1 else 'are'} {', '.join(close)}"
    return f"there are {', '.join(options[:20])}{', …' if len(options) > 20 else ''}"


def words(error: BaseException) -> str:
    """Return the first line of an exception's message after the exception's class: ``KeyError: 'model'``."""
    first = next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
