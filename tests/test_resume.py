"""A run that is killed at any moment goes on, and ends with the same files as one that was not."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from test_ranks import command, done, files, seven  # noqa: F401, a fixture

OPTIONS = ("rep=hogb", "data.path=seven", "optim.steps=40", "log_every=10", "data.batch_size=2", "logger=none")
ENDLESS = (*OPTIONS[:2], "optim.steps=100000", "logger=none", "output=out")


def test_killed_many_times_and_gone_on_with(seven: Path, tmp_path: Path) -> None:  # noqa: F811
    status, _, err = done(command(tmp_path, *OPTIONS, "output=whole", usual=False))
    assert status == 0, err
    draw = random.Random(0)
    for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = command(tmp_path, *OPTIONS, "output=broken", usual=False)
        before = len(list(tmp_path.glob("broken/*/parts/*")))
        deadline = time.monotonic() + 120
        # importing takes seconds: the moment is drawn from when the first photos of this run are being written
        while process.poll() is None and len(list(tmp_path.glob("broken/*/parts/*"))) == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(draw.random() * 0.1)
        process.send_signal(kind)
        done(process)
    status, _, err = done(command(tmp_path, *OPTIONS, "output=broken", usual=False))
    assert status == 0, err
    (whole,), (broken,) = (tmp_path / "whole").iterdir(), (tmp_path / "broken").iterdir()
    assert files(broken) == files(whole)
    assert not (broken / "parts").exists() and not list(broken.rglob("*.tmp"))


def test_a_second_process_on_the_same_folder_is_refused(seven: Path, tmp_path: Path) -> None:  # noqa: F811
    first = command(tmp_path, *ENDLESS, usual=False)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*/config.yaml")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    status, _, err = done(command(tmp_path, *ENDLESS, usual=False))
    assert status == 1 and "Another process is at work in" in err
    first.send_signal(signal.SIGINT)
    status, _, err = done(first)
    assert status == 1 and "Interrupted; what is finished is kept" in err
