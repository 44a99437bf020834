"""A long inversion that is broken off goes on from its checkpoint and ends where an unbroken one does, to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.inversions import papers_prior, small_network
from helpers.processes import files
from omegaconf import OmegaConf
from torch import Tensor

import invrep.inversion.module
from invrep.api import representation
from invrep.inversion.module import Inversion
from invrep.inversion.solver import solve
from invrep.inversion.status import BatchStatus
from invrep.jobs.signals import Stop, stopped_by
from invrep.presets import build, preset
from invrep.tracking.checkpoint import Checkpoint

ROWS = [(0, "a", 0), (0, "a", 1), (1, "b", 0)]


class Breaks(pl.Callback):
    """Breaks the process off at a segment's end, as often as it is asked to."""

    def __init__(self, *passes: int) -> None:
        self.passes = list(passes)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Inversion, *_: object) -> None:
        if self.passes and pl_module.passes >= self.passes[0]:
            self.passes.pop(0)
            raise InterruptedError


@pytest.fixture
def small(photo: Tensor) -> Tensor:
    return torch.stack([photo.mean(0, keepdim=True), photo.mean(0, keepdim=True).flip(2)])


STEADY = {"name": "Adam", "schedule": "constant", "warm_up": 0, "continuation": 1, "straight_through": False}
RECIPES = {
    "adam in the fourier basis": ("natural", "adam", {"steps": 30}),
    "two stages with jitter": ("ijcv16", "ijcv16", {"steps": 36, "polish": 12}),
    "heavy ball": ("cvpr15", "cvpr15", {"steps": 30}),
    "images that diverge": ("natural", "torch", {"name": "SGD", "lr": 3e3, "steps": 30}),
    "images that are done": ("natural", "adam", {"steps": 30, "tolerance": 2.32, **STEADY}),
    "soft ReLUs": ("natural", "adam", {"steps": 30}),
}


def descent(small: Tensor, recipe: str) -> tuple[Tensor, Callable[..., Inversion]]:
    """Return photos with a recipe's channels, and what descends from a checkpoint, None for none, with callbacks."""
    prior, optim, options = RECIPES[recipe]
    phi = small_network() if recipe == "soft ReLUs" else representation("hogb")
    photos = small.expand(-1, phi.channels[-1], -1, -1)

    def run(checkpoint: Checkpoint | None, *callbacks: pl.Callback) -> Inversion:
        return solve(
            photos,
            ROWS,
            phi=phi,
            prior=build(preset("prior", prior)),
            descent=build(OmegaConf.merge(preset("optim", optim), options)),
            segment=3,
            trainer={"accelerator": "cpu"},
            callbacks=callbacks,
            checkpoint=checkpoint,
        )

    return photos, run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_broken_inversion_ends_as_an_unbroken_one(small: Tensor, tmp_path: Path, recipe: str) -> None:
    small, run = descent(small, recipe)

    whole = run(None)
    breaks = Breaks(11, 27 if "jitter" not in recipe else 33)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            run(Checkpoint(tmp_path, 6, ROWS, small, 3), breaks)
        assert {p.suffix for p in tmp_path.iterdir()} == {".ckpt"}
    checkpoint = Checkpoint(tmp_path, 6, ROWS, small, 3)
    assert checkpoint.reached() == (recipe == "two stages with jitter")
    broken = run(checkpoint)
    assert torch.equal(broken.image, whole.image) and torch.equal(broken.reconstruction(), whole.reconstruction())
    for name in ("active", "done", "ended", "pace", "fault"):
        assert torch.equal(getattr(broken.status, name), getattr(whole.status, name))
    assert (broken.passes, broken.first, broken.steps) == (whole.passes, whole.first, whole.steps)
    assert [at for at, _ in broken.curve] == [at for at, _ in whole.curve]
    for (_, ours), (_, theirs) in zip(broken.curve, whole.curve, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].nan_to_num(), theirs[name].nan_to_num()) for name in ours)
    if recipe == "images that diverge":
        assert bool((whole.status.pace < 1).any())
    if recipe == "images that are done":
        assert bool(whole.status.done.any()) and not bool(whole.status.done.all())
    checkpoint.remove()
    assert not tmp_path.exists()


def test_why_an_image_is_slowed_is_kept() -> None:
    status, resumed = BatchStatus(3), BatchStatus(3)
    for one in (status, resumed):
        one.begin(torch.zeros(3, 1, 2, 2))
    status.active[:2], status.pace[:2] = False, 0.001
    status.blame(torch.tensor([False, True, True]), torch.tensor([True, False, True]), torch.ones(3, dtype=torch.bool))
    resumed.restore(status.state())
    assert resumed.whys() == status.whys()
    assert "its code became" in resumed.whys()[0] and "its gradient became" in resumed.whys()[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_signal_in_the_middle_of_a_pass_loses_no_segment(
    small: Tensor, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, run = descent(small, recipe)
    backward, done, stop_at = invrep.inversion.module.backward, [], [14, 26]

    def stopping(loss: Tensor, surrogate: object) -> None:
        backward(loss, surrogate)
        done.append(loss)
        if stop_at and len(done) == stop_at[0]:
            stop_at.pop(0)
            done.append(loss)  # this pass is done again
            os.kill(os.getpid(), signal.SIGTERM)

    whole = run(None)
    monkeypatch.setattr(invrep.inversion.module, "backward", stopping)
    for _ in range(2):
        with pytest.raises(Stop, match=r"Ended by SIGTERM"), stopped_by(signal.SIGTERM):
            run(Checkpoint(tmp_path, 1000, ROWS, small, 3))
        assert {p.suffix for p in tmp_path.iterdir()} == {".ckpt"}
    begun = len(done)
    broken = run(Checkpoint(tmp_path, 1000, ROWS, small, 3))
    assert broken.passes - (len(done) - begun) >= 21  # of the segments of two and more that were done
    assert torch.equal(broken.image, whole.image) and [at for at, _ in broken.curve] == [at for at, _ in whole.curve]
    for (_, ours), (_, theirs) in zip(broken.curve, whole.curve, strict=True):
        assert all(torch.equal(ours[name].nan_to_num(), theirs[name].nan_to_num()) for name in theirs)


@pytest.mark.parametrize("damage", [lambda old: old[: len(old) // 2], lambda old: b"", lambda old: b"{}" * 40])
def test_a_damaged_checkpoint_counts_for_nothing(
    small: Tensor, tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def run(*callbacks: pl.Callback) -> Inversion:
        return solve(
            small,
            ROWS,
            phi=representation("hogb"),
            prior=papers_prior(),
            descent=build(OmegaConf.merge(preset("optim", "adam"), {"steps": 6, "polish": 3})),
            segment=1,
            trainer={"accelerator": "cpu"},
            callbacks=callbacks,
            checkpoint=Checkpoint(tmp_path, 1, ROWS, small, 1),
        )

    with pytest.raises(InterruptedError):
        run(Breaks(5))
    files = sorted(tmp_path.iterdir())
    assert [file.suffixes[-2] for file in files] == [".0", ".1"]
    files[1].write_bytes(damage(files[1].read_bytes()))
    goes_on = run()
    assert f"The checkpoint {files[1]} is damaged" in caplog.text
    for file in tmp_path.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(run().image, goes_on.image)


def test_the_same_command_goes_on_from_the_checkpoint(job, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ("rep=hogb", f"data.path={photos}", "data.limit=2", "optim.steps=12", "checkpoint.every=4")
    evaluate, passes = Inversion._evaluate, []
    limit = 9

    def counted(self: Inversion) -> Tensor:
        if len(passes) == limit:
            raise KeyboardInterrupt
        passes.append(self.passes)
        return evaluate(self)

    monkeypatch.setattr(Inversion, "_evaluate", counted)
    outcome = job(*base)
    assert outcome.status == 130 and "Interrupted; what is finished is kept" in outcome.err
    (kept,) = (outcome.folder / "checkpoints").iterdir()
    # another batch, other restarts, other points of the curve: none of theirs
    passes.clear()
    for other in ("restarts=2", "data.batch_size=1", "log_every=4"):
        job(*base, other, "optim.steps=12")
        assert passes[0] == 0
        passes.clear()
    limit = 1000
    outcome = job(*base)
    assert outcome.status == 0 and passes == [8, 9, 10, 11], (passes, outcome.err)
    assert not kept.parent.exists()
    whole = job(*base, "checkpoint.every=null", "output=whole")
    (folder,) = (whole.output.parent / "whole").iterdir()
    assert files(folder) == files(outcome.folder)


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "Interrupted"), (signal.SIGTERM, "Ended by SIGTERM"), (signal.SIGUSR1, "Ended by SIGUSR1")],
)
def test_a_signal_is_one_sentence_and_keeps_the_state_of_a_lone_photo(
    job, photos: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    base = ("rep=hogb", f"data.path={photos}", "data.limit=1", "optim.steps=12", "checkpoint.every=1000")
    evaluate, passes = Inversion._evaluate, []

    def counted(self: Inversion) -> Tensor:
        passes.append(self.passes)
        if len(passes) == 10:
            os.kill(os.getpid(), number)
        return evaluate(self)

    monkeypatch.setattr(Inversion, "_evaluate", counted)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        outcome = job(*base)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert outcome.status == 128 + number and f"error: {said}" in outcome.err and "Traceback" not in outcome.err
    passes.clear()
    assert job(*base).status == 0 and passes == [8, 9, 10, 11]


@pytest.mark.parametrize("every", ["0", "often", "true", "1.5"])
def test_a_wrong_number_of_passes(job, every: str) -> None:
    outcome = job(f"checkpoint.every={every}")
    assert outcome.status == 1 and f"checkpoint.every={every.title() if every == 'true' else every}" in outcome.err
