"""Show a picture in a terminal that can: by the protocols of kitty and iTerm2, or as sixels."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from invrep.reporting.terminal import is_live
from invrep.reporting.terminal_query import Answer, ask

KITTY, ITERM2, SIXEL = "kitty", "iTerm2", "sixel"
CHUNK = 4096  # base64 characters in one escape sequence of kitty's protocol, at most
COLOURS = 128  # of a sixel picture; xterm takes 256 at most
MOST_SIXELS = 1e6  # pixels of a sixel picture, which take about a second
CELL = (8, 16)  # usual width and height of a character in pixels, where the terminal does not say it
KEPT_LINES = 4  # lines of text that stay visible above a picture


def show_picture(path: Path, console: Console) -> None:
    """Show a PNG, as wide and high as the terminal at most; do nothing where the terminal shows no pictures.

    Args:
        path: PNG file.
        console: console on the terminal.
    """
    if not _may_show(console):
        return
    protocol, answer = _protocol()
    if protocol is None:
        return
    cell = answer.cell or CELL
    with Image.open(path) as file:
        picture = file.convert("RGB")
    room = console.width * cell[0] / picture.width, (console.height - KEPT_LINES) * cell[1] / picture.height
    area = math.sqrt(MOST_SIXELS / (picture.width * picture.height)) if protocol == SIXEL else 1.0
    if (scale := min(*room, area)) < 1:
        size = max(int(picture.width * scale), 1), max(int(picture.height * scale), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    columns = min(math.ceil(picture.width / cell[0]), console.width)
    console.file.write(encoded(picture, protocol, columns) + "\n")
    console.file.flush()


def encoded(picture: Image.Image, protocol: str, columns: int) -> str:
    """Return the escape sequences that show a picture.

    Args:
        picture: RGB picture.
        protocol: ``kitty``, ``iTerm2`` or ``sixel``.
        columns: width of the picture in characters; sixels have their own width in pixels.
    """
    if protocol == SIXEL:
        return _sixels(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    if protocol == ITERM2:
        given = f"inline=1;size={buffer.tell()};width={columns};preserveAspectRatio=1"
        return f"\x1b]1337;File={given}:{data}\a"
    chunks = [data[k : k + CHUNK] for k in range(0, len(data), CHUNK)]
    # q=2: no answer, which the shell would take for typed text
    heads = [f"a=T,f=100,q=2,c={columns},"] + [""] * (len(chunks) - 1)
    return "".join(
        f"\x1b_G{head}m={int(k < len(chunks) - 1)};{chunk}\x1b\\"
        for k, (head, chunk) in enumerate(zip(heads, chunks, strict=True))
    )


def _may_show(console: Console) -> bool:
    """Return whether the console is a terminal in which a picture may be tried.

    A terminal multiplexer passes no picture on, or leaves it behind in the wrong pane.
    """
    environ = os.environ
    inside = any(environ.get(name) for name in ("TMUX", "STY", "ZELLIJ")) or environ.get("TERM", "").startswith(
        ("screen", "tmux")
    )
    return is_live(console) and console.file is sys.stdout and not inside and not environ.get("NO_COLOR")


def _protocol() -> tuple[str | None, Answer]:
    """Return the terminal's protocol, by its name or else its own answer; None if it has none."""
    environ = os.environ
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM")
    kitty = "kitty" in term or "ghostty" in term
    if not kitty and (program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2"):
        return ITERM2, Answer.of_system()
    # the variables are inherited by another terminal that is started from kitty, so that they are no proof
    answer = ask(kitty=kitty or any(environ.get(name) for name in ("KITTY_WINDOW_ID", "KONSOLE_VERSION")))
    return KITTY if answer.kitty else SIXEL if answer.sixel else None, answer


def _sixels(picture: Image.Image) -> str:
    """Return a picture as sixels: bands of six rows, in each a line of characters for every colour."""
    reduced = picture.quantize(COLOURS)
    pixels, palette = np.asarray(reduced), reduced.getpalette() or []
    parts = [f'\x1bP0;1q"1;1;{picture.width};{picture.height}']
    for k in np.unique(pixels).tolist():
        red, green, blue = (round(value * 100 / 255) for value in palette[3 * k : 3 * k + 3])
        parts.append(f"#{k};2;{red};{green};{blue}")
    for top in range(0, picture.height, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band), dtype=np.uint8))[:, None]
        lines = []
        for k in np.unique(band).tolist():
            codes = ((band == k) * weights).sum(0, dtype=np.uint8)
            lines.append(f"#{k}{_repeated((codes + 63).tobytes().decode())}")
        parts.append("$".join(lines) + "-")
    return "".join(parts) + "\x1b\\"


def _repeated(line: str) -> str:
    """Return a line of sixels with runs of empty and of full ones as ``!count``; its empty end is left out."""
    return re.sub(r"\?{4,}|~{4,}", lambda run: f"!{len(run[0])}{run[0][0]}", line.rstrip("?"))
