"""Ask a terminal what it can show."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from typing import NamedTuple

PATIENCE = 1.0  # seconds; a terminal behind a slow connection takes a while
# kitty's protocol: would a picture of one pixel be shown?
MAY_KITTY = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
CELL_SIZE, ATTRIBUTES = "\x1b[16t", "\x1b[c"  # every terminal answers the last one
NO_FLUSH = termios.TCSANOW  # typed text stays


class Answer(NamedTuple):
    """Hold what a terminal has answered.

    Attributes:
        kitty: bool; True if it shows pictures by kitty's protocol.
        sixel: bool; True if it shows sixels.
        cell: width and height of a character in pixels; None if unknown.
    """

    kitty: bool = False
    sixel: bool = False
    cell: tuple[int, int] | None = None

    @classmethod
    def of_system(cls) -> Answer:
        """Return the size of a character that the operating system knows, without asking the terminal."""
        try:
            found = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        except (OSError, ValueError):
            return cls()
        rows, columns, width, height = struct.unpack("HHHH", found)
        sound = rows and columns and width >= columns and height >= rows
        return cls(cell=(width // columns, height // rows) if sound else None)


def ask(*, kitty: bool) -> Answer:
    """Ask the terminal on stdin and stdout what it can show.

    It is not asked where its answer could be lost or take a typed character with it: another program reads the
    terminal, or text has been typed ahead.

    Args:
        kitty: bool; True also asks for kitty's protocol, which some old terminals would print as text.
    """
    known = Answer.of_system()
    try:
        reads, writes = sys.stdin.fileno(), sys.stdout.fileno()
        if not (os.isatty(reads) and os.isatty(writes)) or os.tcgetpgrp(reads) != os.getpgrp():
            return known
        text = _exchange(reads, writes, (MAY_KITTY if kitty else "") + CELL_SIZE + ATTRIBUTES)
    except (OSError, ValueError, AttributeError, termios.error):
        return known
    attributes = re.search(r"\x1b\[\?([\d;]*)c", text)
    cell = re.search(r"\x1b\[6;(\d+);(\d+)t", text)
    size = (int(cell[2]), int(cell[1])) if cell and int(cell[1]) and int(cell[2]) else None
    sixel = attributes is not None and "4" in attributes[1].split(";")[1:]
    return Answer("\x1b_Gi=31;OK" in text, sixel, known.cell or size)


def _exchange(reads: int, writes: int, question: str) -> str:
    """Return the terminal's answer to escape sequences; empty if text has been typed ahead or no answer comes."""
    before = termios.tcgetattr(reads)
    silent = [*before[:3], before[3] & ~(termios.ICANON | termios.ECHO), *before[4:]]
    termios.tcsetattr(reads, NO_FLUSH, silent)
    try:
        if select.select([reads], [], [], 0)[0]:
            return ""
        os.write(writes, question.encode())
        text, end = "", time.monotonic() + PATIENCE
        while not re.search(r"\x1b\[\?[\d;]*c", text):
            if not select.select([reads], [], [], max(end - time.monotonic(), 0))[0]:
                break
            text += os.read(reads, 1024).decode(errors="replace")
        return text
    finally:
        termios.tcsetattr(reads, NO_FLUSH, before)
