"""Write ``left_out.txt`` and ``failed.txt`` into a job's folder: all names, where a message shows only the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from invrep.messages import printable
from invrep.results.atomic_files import atomic


def write_list(path: Path, items: Mapping[str, str]) -> None:
    """Write ``name<TAB>why`` lines; without items, remove the file of an earlier run.

    Args:
        path: path of the file.
        items: reason for each name.

    Raises:
        InvrepError: the file cannot be written.
    """
    if items:
        lines = "".join(f"{printable(name)}\t{printable(why)}\n" for name, why in items.items())
        atomic(path, lambda beside: beside.write_text(lines, encoding="utf-8"))
    else:
        path.unlink(missing_ok=True)
