"""Names of files that every file system takes."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

LONGEST_NAME = 200  # bytes, of the 255 that file systems take; ours has a restart and a suffix as well
LONGEST_PATH = 1000  # bytes, of the 4096 that Linux takes


def file_name(image: str) -> str:
    """Return an image id as a relative path that any file system takes and that no other id has.

    Control characters, a percent sign and what other systems forbid are percent-encoded; other scripts stay readable.
    So are ``.`` and ``..``, which would lead elsewhere, and the end of a folder that is named as a file of ours may
    be. What is too long for a file system ends with a hash instead.
    """

    def part_name(part: str) -> str:
        if part in ("", ".", ".."):
            return "%2E" * len(part) or "%"
        return "".join(
            quote(c, errors="surrogateescape") if not c.isprintable() or c in '%<>:"\\|?*' else c for c in part
        )

    def short(name: str, most: int) -> str:
        whole = name.encode(errors="surrogateescape")
        if len(whole) <= most:
            return name
        head = whole[: most - 20].decode(errors="ignore").replace("/", "%")
        return f"{head}%-{hashlib.sha256(whole).hexdigest()[:16]}"

    *folders, last = map(part_name, image.split("/"))
    folders = [re.sub(r"\.(png|safetensors)$", r"%2E\1", name) for name in folders]
    names = [short(name, LONGEST_NAME) for name in (*folders, last)]
    joined = "/".join(names)
    return joined if len(joined.encode()) <= LONGEST_PATH else short(joined, LONGEST_NAME)
