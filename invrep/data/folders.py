"""Find the photos in a folder, or by a pattern, and say why other files are left out."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from invrep.data.photo_reading import suffixes
from invrep.errors import InvrepError

COMPRESSED = (".tgz", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
HEIC = (".heic", ".heif", ".hif")
UNREAD = (
    *(*HEIC, ".avif", ".webp", ".jp2", ".jxl", ".psd", ".svg", ".eps", ".hdr", ".exr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),  # raw files of cameras
)
HIDDEN = ("__MACOSX", "@eaDir")  # previews by macOS and network drives; names with a leading dot are hidden too


@dataclass
class Contents:
    """Hold the contents of a folder, by paths relative to it.

    Attributes:
        photos: files with the suffix of a readable image.
        tars: archives.
        left_out: file that looks like a photo → reason why it is left out.
    """

    photos: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def contents(folder: Path) -> Contents:
    """Return the contents of a folder and its subfolders, without hidden subfolders and links to folders.

    Raises:
        InvrepError: the folder cannot be read.
    """
    found = Contents()

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise InvrepError(f"The folder data.path={folder} cannot be read ({error.strerror}).")
        found.left_out[_below(error.filename, folder)] = _reason(error)

    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not hidden(name)]
        before = "" if place == os.fspath(folder) else f"{_below(place, folder)}/"
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                found.left_out[f"{before}{name}"] = "a link to a folder, which is not entered"
        for name in names:
            if not hidden(name):
                _add(found, folder, f"{before}{name}")
    return found


def matches(pattern: Path) -> tuple[Path, Contents]:
    """Return the folder before a pattern and the pattern's matches there; a hidden file matches only a hidden pattern.

    Brackets in the name of an existing folder are no pattern.
    """
    place, parts = Path(pattern.anchor), list(pattern.parts[bool(pattern.anchor) :])
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or (place / parts[0]).exists()):
        place /= parts.pop(0)
    found = Contents()
    for path in place.glob("/".join(parts)):
        name = path.relative_to(place).as_posix()
        if not hidden(name) or any(part.startswith(".") for part in parts):
            _add(found, place, name)
    return place, found


def hidden(name: str) -> bool:
    """Return whether a relative path leads to a hidden file, or through a hidden folder."""
    return any((part[:1] == "." and part not in (".", "..")) or part in HIDDEN for part in name.split("/"))


def is_photo(name: str) -> bool:
    """Return whether a file has the suffix of a readable image."""
    return os.path.splitext(name)[1].lower() in suffixes()


def is_tar(name: str) -> bool:
    """Return whether a file has the suffix of an archive."""
    return name.lower().endswith((".tar", *COMPRESSED))


def unread(name: str) -> str | None:
    """Return why an image of an unreadable format is left out; None for readable images and other files."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in UNREAD or suffix in suffixes():
        return None
    plugin = ", or pip install pillow-heif" if suffix in HEIC else ""
    return f"{suffix[1:].upper()} is not read; convert it to PNG or JPEG{plugin}"


def some_of(left_out: Mapping[str, str]) -> str:
    """Return the first three files that are left out, each with its reason, for a message."""
    said = [f"{name} ({why})" for name, why in list(left_out.items())[:3]]
    return ", ".join(said) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")


def _add(found: Contents, folder: Path, name: str) -> None:
    """Add a file to a list by its suffix and its kind; ``left_out`` takes an unreadable one."""
    if why := unread(name):
        found.left_out[name] = why
    elif is_photo(name) or is_tar(name):
        path = folder / name
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            found.left_out[name] = _reason(error)
            return
        if stat.S_ISREG(mode) and os.access(path, os.R_OK):
            (found.photos if is_photo(name) else found.tars).append(name)
        elif not stat.S_ISDIR(mode):
            found.left_out[name] = "permission denied" if stat.S_ISREG(mode) else "no regular file"


def _reason(error: OSError) -> str:
    return "a link to nothing" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()


def _below(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
