"""The time left is honest: after a resume, with batches of unlike size, and while torch.compile works."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.inversions import papers_prior
from rich.console import Console

import invrep.tracking.progress
from invrep.tracking.bar_text import Line, Parts
from invrep.tracking.progress import Bar, Report, Ticks


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless it is set."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(invrep.tracking.progress, "time", clock)
    return clock


def bar(total: float) -> Bar:
    return Bar(total, Console(file=io.StringIO(), width=200))


def printed(of: Bar) -> list[str]:
    return of.console.file.getvalue().splitlines()


WORKING = Report(0, 0, 0.5, "error", False, 0)


def test_what_a_checkpoint_has_kept_takes_no_time(clock: SimpleNamespace) -> None:
    shown = bar(1000)
    clock.now = 100
    shown.tick(None, WORKING._replace(done=900, resumed=800))
    assert shown.left() == 100  # a hundred of work in a hundred seconds, and as much is left
    assert printed(shown) == ["error 50.00 %  about 1.7 min left"]


def test_compiling_is_said_at_once_and_is_no_time_of_passes(clock: SimpleNamespace) -> None:
    shown = bar(1000)
    clock.now = 1
    shown.tick(None, WORKING._replace(compiling=True, value=float("nan")))
    assert printed(shown) == ["compiling"]
    clock.now = 200
    shown.tick(None, WORKING._replace(compiling=True, value=float("nan")))
    assert printed(shown)[1:] == ["compiling"]  # no time left, of which nothing is known
    clock.now = 310
    shown.tick(None, WORKING._replace(done=100, compiled=300))
    assert shown.left() == 90


def test_ranks_that_compile_are_counted_by_their_mean(clock: SimpleNamespace) -> None:
    shown = bar(1000)
    clock.now = 110
    shown.tick(0, WORKING._replace(done=50, compiled=10))
    shown.tick(1, WORKING._replace(done=50, compiled=10))
    assert shown.left() == 900


@pytest.mark.parametrize(
    ("width", "says"),
    [
        (120, "job 2/5  images 9–16/400 BAR pass 120/300  error 33.72 %  15 images/min  1:02:03 left  sweep 12:31:00"),
        (100, "job 2/5  images 9–16/400 BAR pass 120/300  error 33.72 %  1:02:03 left  sweep 12:31:00"),
        (80, "job 2/5  images 9–16/400  error 33.72 %  1:02:03 left  sweep 12:31:00"),
        (60, "images 9–16/400  error 33.72 %  1:02:03 left"),
        (30, "error 33.72 %  1:02:03 left"),
        (10, "1:02:03"),
    ],
)
def test_parts_give_way_in_a_narrow_terminal_and_nothing_wraps(width: int, says: str) -> None:
    line = Line()
    line.share = 0.4
    line.parts = Parts(
        "job 2/5", "images 9–16/400", "pass 120/300", "error 33.72 %", "15 images/min", "1:02:03 left", "sweep 12:31:00"
    )
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(line)
    (row,) = console.file.getvalue().splitlines()
    assert len(row) <= width - 3 and re.sub(r" +━[━╸╺ ]+", " BAR ", row).strip() == says[: width - 3]


def test_speed_and_time_left_of_job_and_sweep(clock: SimpleNamespace) -> None:
    sweep = {"job": "job 2/5", "of_sweep": lambda left: left + 3600}
    shown = Bar(1000, Console(file=io.StringIO(), width=200), images=40, **sweep)
    clock.now = 100
    shown.tick(None, WORKING._replace(done=250, place="pass 5/20", images=(9, 16)))
    said = "job 2/5  images 9–16/40  pass 5/20  error 50.00 %  6.0 images/min  about 5.0 min left  sweep about 65.0 min"
    assert printed(shown) == [said]


def test_a_log_with_forced_colours_gets_lines_and_no_control_characters(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as GitHub's runners set it
    with bar(1000) as shown:
        clock.now = 31
        shown.tick(None, WORKING._replace(done=100))
    assert printed(shown) == ["error 50.00 %  about 4.7 min left"]


def _inversion(count: int = 2, *, first: int = 0, steps: int = 10, last: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        image=torch.zeros(count, 3, 8, 4),
        size=(6, 2),
        counted=torch.ones(count, dtype=torch.bool),
        passes=first,
        steps=steps,
        last=last,
        compiling=False,
        still=False,
        latest={},
        objective=SimpleNamespace(shows="error"),
        on_tick=None,
    )


def test_work_is_pixels_that_passes_have_seen_over_stages_and_batches(clock: SimpleNamespace) -> None:
    told: list[Report] = []
    ticks = Ticks(told.append)
    stage = _inversion(steps=6, last=False)
    ticks.on_fit_start(None, stage)
    ticks.on_train_start(None, stage)
    stage.passes = 6
    ticks.on_fit_end(None, stage)
    assert told[-1].done == 6 * 2 * 6 * 2 and told[-1].resumed == 0
    stage = _inversion(first=6, steps=10)
    ticks.on_train_start(None, stage)
    stage.passes = 8  # it has converged there, and no pass more will come
    ticks.on_fit_end(None, stage)
    assert told[-1].done == 10 * 2 * 6 * 2 and told[-1].resumed == 0
    resumed = _inversion(first=4)
    ticks.on_train_start(None, resumed)
    assert ticks.resumed == 4 * 2 * 6 * 2


def test_the_seconds_of_compiling_are_those_between_two_ticks(clock: SimpleNamespace) -> None:
    told: list[Report] = []
    ticks = Ticks(told.append)
    inversion = _inversion()
    ticks.on_fit_start(None, inversion)
    inversion.compiling = True
    inversion.on_tick(inversion)
    clock.now = 70
    inversion.compiling, inversion.passes = False, 1
    inversion.on_tick(inversion)
    assert [report.compiling for report in told] == [True, False] and told[-1].compiled == 70


@pytest.mark.parametrize("mode", [None, "default"])
def test_a_descent_tells_of_the_pass_that_compiles(mode: str | None, photo: torch.Tensor) -> None:
    from invrep.api import representation
    from invrep.inversion.compute import Compute
    from invrep.inversion.module import Inversion
    from invrep.inversion.solver import solve
    from invrep.presets import build, preset

    phi = representation("torchvision", model="alexnet", layer="relu1", weights="random")
    seen = []

    class Compiles(Ticks):
        def on_train_start(self, trainer, inversion: Inversion) -> None:
            if mode:  # torch.compile itself takes a minute
                inversion._encode = lambda images, *_: phi(images)

    descent = replace(build(preset("optim", "adam")), steps=3)
    compute = Compute(compile=mode)
    told = Compiles(lambda report: seen.append(report.compiling))
    options = {"phi": phi, "prior": papers_prior(), "descent": descent, "compute": compute}
    solve(photo[None], [(0, "a", 0)], trainer={"accelerator": "cpu"}, callbacks=[told], **options)
    assert any(seen) == (mode is not None) and not seen[-1]
    assert seen[:2] == ([True, False] if mode else seen[:2])
