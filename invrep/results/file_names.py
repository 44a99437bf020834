"""Make file names that every file system accepts."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

LONGEST_NAME = 200  # bytes; file systems accept 255, and a restart and a suffix are added
LONGEST_PATH = 1000  # bytes; Linux accepts 4096, and the job's folder comes before


def file_name(image: str) -> str:
    """Return an image id as a relative path that every file system accepts and no other id shares.

    Control characters, percent signs and ``<>:"\\|?*`` are percent-encoded; other scripts stay readable. The parts
    ``.`` and ``..`` are encoded too, since they would lead to another folder. A folder's suffix ``.png`` or
    ``.safetensors`` is encoded, since a file of a job may have that name. A name that is too long ends with a hash.
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
