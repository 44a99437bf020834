"""Photos, jobs in this process, and where the shared data lie."""

import math
import os
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from PIL import Image

from invrep.data.photo_reading import bundled, read
from invrep.jobs.memory import Line, Need

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
WAITING = (("test_slurm",), ("test_resume", "test_launch"), ("test_ranks",))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each third of the tests begin with some that wait for other processes.

    pytest-xdist gives three processes a third each. So none of these tests is the last, and those of SLURM, whose node
    is one, follow each other.
    """
    groups = [[item for item in items if item.path.stem in stems] for stems in WAITING]
    others = iter([item for item in items if not any(item.path.stem in stems for stems in WAITING)])
    third = math.ceil(len(items) / len(WAITING))
    items[:] = [item for group in groups for item in (*group, *islice(others, max(third - len(group), 0)))]
    items += others


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let every test draw the same numbers in every run."""
    torch.manual_seed(0)


@pytest.fixture
def photo() -> torch.Tensor:
    """A part of the cat, (3, 48, 64) in [0, 1]."""
    return read(bundled("chelsea"))[:, 100:148, 130:194].contiguous()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three small photos, one of them in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, file in (("astronaut", "a.png"), ("coffee", "b.png"), ("rocket", "sub/a.png")):
        Image.open(bundled(name)).convert("RGB").resize((64, 48)).save(folder / file)
    return folder


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """A folder with seven photos of noise, each of another strength."""
    folder = tmp_path / "seven"
    folder.mkdir()
    for k in range(7):
        Image.effect_noise((24, 16), 10 + 9 * k).save(folder / f"{k}.png")
    return folder


class Outcome:
    """What a command left: its result or exit status, and what it printed."""

    def __init__(self, value: float | None, status: int, out: str, err: str, output: Path) -> None:
        self.value, self.status, self.out, self.err, self.output = value, status, out, err, output

    @property
    def folder(self) -> Path:
        """The one job folder below the output folder."""
        (folder,) = (p for p in self.output.iterdir() if p.is_dir() and p.name != "sweeps")
        return folder


@pytest.fixture
def job(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    """Run ``python train.py …`` in this process, with few passes and no logger unless the overrides say so.

    No passes are rehearsed for the plan of memory, but in a test marked ``rehearsed``.
    """
    sys.path.insert(0, str(ROOT))
    import invrep.jobs.plan
    import invrep.jobs.run
    import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    if request.node.get_closest_marker("rehearsed") is None:
        monkeypatch.setattr(invrep.jobs.plan, "need", lambda *_: Need(Line(2**20, 2**20), Line(2**20, 2**20)))
    values: list[float | None] = []
    run_job = invrep.jobs.run.run
    monkeypatch.setattr(invrep.jobs.run, "run", lambda config: values.append(run_job(config)))

    def run(*overrides: str, defaults: bool = True) -> Outcome:
        capfd.readouterr()
        values.clear()
        base = ["logger=none", "optim.steps=4", "log_every=2", "output=out"] if defaults else []
        monkeypatch.setattr(sys, "argv", ["train.py", *base, *overrides])
        monkeypatch.setattr(sys, "path", [*sys.path])  # the working folder is added to it
        status = 0
        try:
            train.command()
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = capfd.readouterr()
        return Outcome(values[0] if values else None, status, out, err, tmp_path / "out")

    yield run
    sys.path.pop(0)
