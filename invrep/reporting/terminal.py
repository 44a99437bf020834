"""Print to a terminal or a log of any encoding."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def take_any_character() -> None:
    """Let stdout replace a character that its encoding lacks, such as Φ in Latin-1; stderr escapes it by default."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook or a test may have replaced stdout by another object
        sys.stdout.reconfigure(errors="replace")


def make_console(**options: Any) -> Console:
    """Return a console on stdout that prints any text; ``options`` are arguments of rich's Console."""
    take_any_character()
    return Console(highlight=False, **options)


def is_live(console: Console) -> bool:
    """Return whether a console draws on a terminal that can overwrite a line.

    rich believes ``FORCE_COLOR``, which CI services set, and would fill their logs with control characters.
    """
    return console.is_interactive and not console.is_dumb_terminal and console.file.isatty()
