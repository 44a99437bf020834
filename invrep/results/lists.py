"""Names that a message is too short for, in the job's folder: ``left_out.txt`` and ``failed.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from invrep.messages import printable
from invrep.results.atomic_files import atomic


def write_list(path: Path, items: Mapping[str, str]) -> None:
    """Write ``name<TAB>why`` lines, or remove the file of an earlier run where there is nothing to write."""
    if items:
        lines = "".join(f"{printable(name)}\t{printable(why)}\n" for name, why in items.items())
        atomic(path, lambda beside: beside.write_text(lines, encoding="utf-8"))
    else:
        path.unlink(missing_ok=True)
