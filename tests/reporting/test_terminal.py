"""What a terminal is sent, decoded again: pictures by three protocols, and nothing where they would do harm."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import ONE_THREAD
from PIL import Image

SHOW = (
    "import sys; from pathlib import Path; from invrep.reporting.terminal import make_console;"
    "from invrep.reporting.terminal_picture import show_picture;"
    "show_picture(Path(sys.argv[1]), make_console()); print('end'); print('typed', input() if sys.argv[2:] else '')"
)
SIXEL_TERMINAL = {rb"\x1b\[c": b"\x1b[?62;4;22c", rb"\x1b\[16t": b"\x1b[6;20;10t"}
KITTY_TERMINAL = {rb"\x1b_Gi=31": b"\x1b_Gi=31;OK\x1b\\", rb"\x1b\[c": b"\x1b[?62;c"}
PLAIN_TERMINAL = {rb"\x1b\[c": b"\x1b[?62;22c"}
NAMES = ("TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "KONSOLE_VERSION", "TMUX", "STY", "ZELLIJ", "NO_COLOR")


def sent(
    path: Path,
    answers: dict[bytes, bytes],
    *,
    pixels: tuple[int, int] = (800, 800),
    typed: bytes = b"",
    **environment: str,
) -> bytes:
    """Return what a terminal of 80×40 characters is sent, except questions; it answers each question once."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, *pixels))
    environ = {name: value for name, value in ONE_THREAD.items() if name not in (*NAMES, "COLUMNS", "FORCE_COLOR")}
    os.write(master, typed)
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW, str(path), *(["ask"] if typed else [])],
        stdin=slave, stdout=slave, env=environ | {"TERM": "xterm-256color"} | environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    output, left, end = b"", dict(answers), time.monotonic() + 60
    while time.monotonic() < end and not (child.poll() is not None and not select.select([master], [], [], 0)[0]):
        if select.select([master], [], [], 0.1)[0]:
            try:
                output += os.read(master, 65536)
            except OSError:  # Linux: the other end is closed
                break
        for question in [question for question in left if re.search(question, output)]:
            os.write(master, left.pop(question))
    os.close(master)
    assert child.wait(10) == 0
    return output


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture twice as wide as the terminal, of two colours and a gradient."""
    pixels = np.zeros((120, 1600, 3), np.uint8)
    pixels[:60, :, 0], pixels[60:, :, 2] = 255, np.linspace(0, 255, 1600)
    path = tmp_path_factory.mktemp("picture") / "grid.png"
    Image.fromarray(pixels).save(path)
    return path


def resized(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.resize((800, 60), Image.Resampling.LANCZOS))


def test_kitty_is_sent_the_picture_in_chunks_at_the_terminals_width(picture: Path) -> None:
    output = sent(picture, KITTY_TERMINAL, TERM="xterm-kitty")
    chunks = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", output.partition(b"\x1b[c")[2])
    assert chunks[0][0].startswith(b"a=T,f=100,q=2,c=80,") and max(len(data) for _, data in chunks) <= 4096
    assert [head[-3:] for head, _ in chunks] == [b"m=1"] * (len(chunks) - 1) + [b"m=0"]
    shown = Image.open(io.BytesIO(base64.b64decode(b"".join(data for _, data in chunks))))
    assert np.array_equal(np.asarray(shown), resized(picture))


def test_iterm2_is_known_by_its_name_and_not_asked(picture: Path) -> None:
    output = sent(picture, {}, TERM_PROGRAM="iTerm.app")
    ((given, data),) = re.findall(rb"\x1b\]1337;File=([^:]*):([^\a]*)\a", output)
    assert b"inline=1" in given and b"width=80;" in given and b"\x1b[c" not in output
    assert int(re.search(rb"size=(\d+)", given)[1]) == len(base64.b64decode(data))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), resized(picture))


def _unsixel(data: str) -> np.ndarray:
    """Return the pixels of sixels, by DEC's description of them."""
    width, height = map(int, re.match(r'"1;1;(\d+);(\d+)', data).groups())
    pixels, palette, x, y, colour = np.full((height + 5, width, 3), -1.0), {}, 0, 0, 0
    for token in re.findall(r"#[\d;]+|![0-9]+.|[$-]|[?-~]", data[data.index("#") :]):
        if token[0] == "#":
            colour, *values = map(int, token[1:].split(";"))
            palette |= {colour: values[1:]} if values else {}
        elif token == "$":
            x = 0
        elif token == "-":
            x, y = 0, y + 6
        else:
            times = int(token[1:-1]) if token[0] == "!" else 1
            for bit in range(6):
                if (ord(token[-1]) - 63) >> bit & 1:
                    pixels[y + bit, x : x + times] = palette[colour]
            x += times
    assert (pixels[height:] == -1).all()
    return pixels[:height] * 2.55


def test_a_terminal_that_answers_so_is_sent_sixels(picture: Path) -> None:
    output = sent(picture, SIXEL_TERMINAL, pixels=(0, 0))  # the size of a character is then its own answer
    sixels = re.search(rb"\x1bP0;1q(.*?)\x1b\\", output, re.S)[1].decode()
    error = np.abs(_unsixel(sixels) - resized(picture))
    assert error.max() < 25 and error.mean() < 3


@pytest.mark.parametrize(
    "environment",
    [
        {"TMUX": "/tmp/tmux"},
        {"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1", "TERM": "xterm-kitty"},
    ],
)
def test_where_a_picture_would_do_harm_nothing_is_asked_or_sent(picture: Path, environment: dict[str, str]) -> None:
    assert sent(picture, SIXEL_TERMINAL, **environment).split() == [b"end", b"typed"]


def test_a_terminal_without_pictures_is_sent_none_and_keeps_what_was_typed_ahead(picture: Path) -> None:
    assert b"\x1bP" not in sent(picture, PLAIN_TERMINAL, KITTY_WINDOW_ID="1")  # inherited from another terminal
    assert b"typed ls" in sent(picture, SIXEL_TERMINAL, typed=b"ls\n")
