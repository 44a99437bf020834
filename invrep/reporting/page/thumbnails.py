"""Encode the pictures of a page: thumbnails, and full sizes that are embedded or linked."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
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
        quality: quality of the full sizes, which are embedded, 0 to 100 (without loss); None links them, and films too.

    Attributes:
        thumbs: thumbnails, WebP in base64.
        full: full sizes, as data URIs or relative addresses.
        paths: indices of each picture, by its path.
        contents: indices of each picture, by the hash of its content and the side of its thumbnail.
        aspect: greatest height of a picture over its width.
    """

    def __init__(self, page: Path, quality: int | None) -> None:
        self.page, self.quality = page, quality
        self.thumbs: list[str] = []
        self.full: list[str] = []
        self.paths: dict[Path, Picture] = {}
        self.contents: dict[tuple[bytes, int], Picture] = {}
        self.aspect = 0.0

    def add(self, paths: Sequence[Path], side: int, console: Console) -> None:
        """Add the pictures at some paths, several at a time.

        Args:
            paths: paths of PNG files.
            side: longer side of their thumbnails, in pixels.
            console: console for a progress bar.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(self._encode, paths, repeat(side))
            bar = track(done, "pictures", total=len(paths), console=console, transient=True)
            for path, encoded in zip(paths, bar, strict=True):
                if encoded is None:
                    self.paths[path] = Picture(-1, -1)
                    continue
                content, aspect, thumb, full = encoded
                self.aspect = max(self.aspect, aspect)
                if (content, side) not in self.contents:
                    self.contents[content, side] = Picture(len(self.thumbs), len(self.full))
                    self.thumbs.append(thumb)
                    self.full.append(full)
                self.paths[path] = self.contents[content, side]

    def _encode(self, path: Path, side: int) -> tuple[bytes, float, str, str] | None:
        """Return a PNG's hash, height over width, thumbnail, and full size or link; None if it is unreadable."""
        try:
            data = path.read_bytes()
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, SyntaxError, ValueError):
            return None
        full = self.link(path) if self.quality is None else _uri(_webp(image, self.quality), "image/webp")
        thumb = as_base64(_webp(_small(image, side), 75))
        return hashlib.sha256(data).digest(), image.height / image.width, thumb, full

    def put(self, image: Image.Image, side: int) -> Picture:
        """Add a picture that is no file, embedded at quality 75, with a thumbnail of a longer side in pixels."""
        self.thumbs.append(as_base64(_webp(_small(image.convert("RGB"), side), 75)))
        self.full.append(_uri(_webp(image.convert("RGB"), 75), "image/webp"))
        return Picture(len(self.thumbs) - 1, len(self.full) - 1)

    def film(self, path: Path) -> int:
        """Add a film, as a data URI or a relative address, and return its index into ``full``."""
        kind = "video/mp4" if path.suffix == ".mp4" else "image/gif"
        self.full.append(self.link(path) if self.quality is None else _uri(path.read_bytes(), kind))
        return len(self.full) - 1

    def link(self, path: Path) -> str:
        """Return a file's address relative to the page."""
        return quote(os.fsencode(os.path.relpath(path.resolve(), self.page.resolve())))


def _small(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _webp(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=3, lossless=quality == 100)
    return file.getvalue()


def as_base64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{as_base64(data)}"
