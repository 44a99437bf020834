"""A run that is killed at any moment goes on, and ends with the same files as one that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import ROOT
from helpers.processes import TORCHRUN, command, done, files

import invrep.jobs.plan
import invrep.results.table
from invrep.results.store import Results

OPTIONS = ("rep=hogb", "data.path=seven", "optim.steps=40", "log_every=10", "data.batch_size=1", "logger=none")
ENDLESS = (*OPTIONS[:2], "optim.steps=100000", "logger=none", "output=out")
FILE = 20_000  # bytes; so that the seven rows are several files


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServerContext]:
    """Start processes that have imported all they need: a run of theirs takes tenths of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["invrep.jobs.run", "wandb", "helpers.processes"])
    yield context


def train(place: Path, overrides: tuple[str, ...], ends_at: int, environment: dict[str, str]) -> None:
    """Be ``python train.py …`` with small files of rows, and SIGKILL yourself at a step of the disk's."""
    os.chdir(place)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    torch.set_num_threads(1)
    invrep.results.table.MOST_BYTES = FILE
    invrep.jobs.plan.need = lambda *_: None  # no passes are rehearsed for a plan of memory
    steps = 0

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == ends_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments, **options)

        return step

    # before a file is flushed, before it has its name, before a part goes
    os.fsync, os.replace, Path.unlink = counted(os.fsync), counted(os.replace), counted(Path.unlink)
    sys.argv = ["train.py", *overrides]
    sys.path.insert(0, str(ROOT))
    from invrep.cli.command import command

    command()


def start(server: ForkServerContext, place: Path, *overrides: str, ends_at: int = 0, **environment: str) -> Any:
    process = server.Process(target=train, args=(place, overrides, ends_at, environment))
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(200)
    return process.exitcode


def folder(place: Path) -> Path:
    (found,) = place.iterdir()
    return found


def test_killed_at_many_steps_of_the_disk(server: ForkServerContext, seven: Path, tmp_path: Path) -> None:
    killed_often(server, tmp_path, rounds=1)


@pytest.mark.slow
def test_killed_at_very_many_steps_of_the_disk(
    server: ForkServerContext,
    seven: Path,
    tmp_path: Path,
) -> None:
    killed_often(server, tmp_path, rounds=40)


def killed_often(server: ForkServerContext, place: Path, rounds: int) -> None:
    """Kill runs at random steps until each is whole, and compare them with an unbroken one."""
    assert ended(start(server, place, *OPTIONS, "output=whole")) == 0
    whole = folder(place / "whole")
    assert len(Results(whole).table.files()) >= 2
    draw, killed, merging = random.Random(0), 0, 0
    for turn in range(rounds):
        output = place / f"broken{turn}"
        for latest in count(3, 3):  # each run lives longer, so that one is whole in the end
            process = start(server, place, *OPTIONS, f"output={output}", ends_at=draw.randint(latest - 2, latest))
            if ended(process) == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            killed += 1
            merging += bool(list(output.glob("*/table/.compacting")) or list(output.glob("*/table/0*")))
        assert files(folder(output)) == files(whole)
    assert killed >= 5 * rounds and merging >= rounds, (killed, merging)


def test_stopped_from_outside_and_gone_on_with(server: ForkServerContext, seven: Path, tmp_path: Path) -> None:
    assert ended(start(server, tmp_path, *OPTIONS, "output=whole")) == 0
    draw = random.Random(0)
    for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        process = start(server, tmp_path, *OPTIONS, "output=broken")
        before = len(list(tmp_path.glob("broken/*/parts/*")))
        deadline = time.monotonic() + 120
        # the moment is drawn from when the first photos of this run are being written
        while process.is_alive() and len(list(tmp_path.glob("broken/*/parts/*"))) == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(draw.random() * 0.1)
        if process.is_alive():
            os.kill(process.pid, kind)
        ended(process)
    assert ended(start(server, tmp_path, *OPTIONS, "output=broken")) == 0
    whole, broken = folder(tmp_path / "whole"), folder(tmp_path / "broken")
    assert files(broken) == files(whole)


def test_a_second_process_on_the_same_folder_is_refused(seven: Path, tmp_path: Path) -> None:
    first = command(tmp_path, *ENDLESS, usual=False)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*/config.yaml")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    status, _, err = done(command(tmp_path, *ENDLESS, usual=False))
    assert status == 1 and "Another process is at work in" in err
    first.send_signal(signal.SIGINT)
    status, _, err = done(first)
    assert status == 130 and "Interrupted; what is finished is kept" in err


def test_a_rank_of_torchrun_that_dies_is_noticed_and_the_same_command_completes_the_job(
    server: ForkServerContext,
    seven: Path,
    tmp_path: Path,
) -> None:
    assert ended(start(server, tmp_path, *OPTIONS, "output=whole")) == 0

    def both(ends_at: int) -> list[Any]:
        ranks = [
            start(
                server,
                tmp_path,
                *OPTIONS,
                "output=out",
                ends_at=ends_at * rank,
                **TORCHRUN,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
            for rank in (0, 1)
        ]
        ended(ranks[1])
        return ranks

    ranks = both(ends_at=6)
    assert ranks[1].exitcode == -signal.SIGKILL and ended(ranks[0]) == 1
    out = folder(tmp_path / "out")
    # rank 0's own share, and the other one where rank 1 died before the two had met
    assert 4 <= len(Results(out).rows()) <= 7
    ranks = both(ends_at=0)
    assert [ended(rank) for rank in ranks] == [0, 0]
    found, wanted = (Results(place).pixels() for place in (out, folder(tmp_path / "whole")))
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert Results(out).table.settled() and not (out / "ranks").exists()
