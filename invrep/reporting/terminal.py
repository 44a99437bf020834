"""Where the user reads: a terminal or a log, whatever its encoding."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def take_any_character() -> None:
    """Let stdout print a stand-in for a character that its encoding lacks, such as Φ in Latin-1; stderr always does."""
    if hasattr(sys.stdout, "reconfigure"):  # not where a notebook or a test has put another object in its place
        sys.stdout.reconfigure(errors="replace")


def make_console(**options: Any) -> Console:
    """Return a console on stdout that prints any text; ``options`` are rich's."""
    take_any_character()
    return Console(highlight=False, **options)
