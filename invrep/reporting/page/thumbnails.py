"""Encode the pictures of a page: thumbnails, and full sizes that are embedded or linked."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image
from rich.console import Console
from rich.progress import track


class Picture(NamedTuple):
    """Locate a picture on the page.

    Attributes:
        thumb: index into ``Pictures.thumbs``; −1 for an unreadable file.
        full: index into ``Pictures.full``; −1 for an unreadable file.
    """

    thumb: int
    full: int


class Pictures:
    """Collect the pictures of a page; files of equal content, such as a photo of several jobs, are kept once.

    Args:
        page: folder of the page; links are relative to it.
        side: longer side of a thumbnail, in pixels.
        embed: bool; True embeds full sizes and films, False links them.

    Attributes:
        thumbs: thumbnails, WebP in base64.
        full: full sizes, as data URIs or relative addresses.
        paths: indices of each picture, by its path.
        contents: indices of each picture, by the hash of its content.
    """

    def __init__(self, page: Path, side: int, embed: bool) -> None:
        self.page, self.side, self.embed = page, side, embed
        self.thumbs: list[str] = []
        self.full: list[str] = []
        self.paths: dict[Path, Picture] = {}
        self.contents: dict[bytes, Picture] = {}

    def add(self, paths: Sequence[Path], console: Console) -> None:
        """Add the pictures at some paths, several at a time.

        Args:
            paths: paths of PNG files.
            console: console for a progress bar.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(self._encode, paths)
            bar = track(done, "pictures", total=len(paths), console=console, transient=True)
            for path, encoded in zip(paths, bar, strict=True):
                if encoded is None:
                    self.paths[path] = Picture(-1, -1)
                    continue
                content, thumb, full = encoded
                if content not in self.contents:
                    self.contents[content] = Picture(len(self.thumbs), len(self.full))
                    self.thumbs.append(thumb)
                    self.full.append(full)
                self.paths[path] = self.contents[content]

    def _encode(self, path: Path) -> tuple[bytes, str, str] | None:
        """Return the hash of a PNG's content, its thumbnail, and its full size or link; None if it is unreadable."""
        try:
            data = path.read_bytes()
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, SyntaxError, ValueError):
            return None
        full = _uri(_webp(image, 90), "image/webp") if self.embed else self.link(path)
        small = image.copy()
        small.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return hashlib.sha256(data).digest(), as_base64(_webp(small, 75)), full

    def film(self, path: Path) -> str:
        """Return the address of a film, as a data URI if films are embedded, else relative to the page."""
        if not self.embed:
            return self.link(path)
        return _uri(path.read_bytes(), "video/mp4" if path.suffix == ".mp4" else "image/gif")

    def link(self, path: Path) -> str:
        """Return a file's address relative to the page."""
        return quote(os.fsencode(os.path.relpath(path.resolve(), self.page.resolve())))


def _webp(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=3)
    return file.getvalue()


def as_base64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{as_base64(data)}"
