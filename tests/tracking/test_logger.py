"""What loggers other than W&B get, read back from their files; and that no logger stops or slows a job."""

import csv
from typing import ClassVar

import pytest
from PIL import Image
from pytorch_lightning.loggers.logger import Logger

import invrep.tracking.logger
from invrep.inversion.module import Inversion
from invrep.tracking.live_grid import Visible
from invrep.tracking.wandb_run import WandbRun


@pytest.mark.parametrize(
    ("place", "broken"), [(WandbRun, "__init__"), (WandbRun, "write"), (WandbRun, "_results"), (Visible, "draw")]
)
def test_a_failing_logger_does_not_fail_the_job(job, photos, monkeypatch, place, broken):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(place, broken, fail)
    outcome = job("logger=wandb", f"data.path={photos}", "data.limit=1")
    assert outcome.status == 0, outcome.err
    assert "switched off" in outcome.out + outcome.err and (outcome.folder / "metrics.csv").exists()


def test_no_pass_waits_for_the_logger(job, photos, monkeypatch):
    seen = []
    evaluate = Inversion._evaluate
    monkeypatch.setattr(invrep.tracking.logger.Record, "_open", lambda *_: seen.append("open"))
    monkeypatch.setattr(Inversion, "_evaluate", lambda inversion: seen.append("pass") or evaluate(inversion))
    options = ("logger=wandb", f"data.path={photos}", "data.limit=1")
    assert job(*options).status == 0
    assert seen == ["pass", "pass", "open", "pass", "pass"]  # log_every=2
    seen.clear()
    assert job(*options).status == 0
    assert seen == ["open"]  # all is finished, and the run shows it


def test_csv_and_tensorboard(job, photos):
    outcome = job("logger=csv", f"data.path={photos}", "data.limit=1")
    (path,) = outcome.folder.rglob("CSVLogger/metrics.csv")
    rows = list(csv.DictReader(path.open()))
    assert [row["step"] for row in rows] == list("01234") and float(rows[-1]["error"]) > 0
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = job("logger=tensorboard", f"data.path={photos}", "data.limit=1", "seed=1", "output=tb", "images_every=2")
    (folder,) = (outcome.output.parent / "tb").iterdir()
    (path,) = folder.rglob("events.out.*")
    events = EventAccumulator(str(path.parent)).Reload()
    assert [e.step for e in events.Scalars("error")] == [0, 1, 2, 3, 4]
    assert [e.step for e in events.Images("grid")] == [0, 2, 4]
    with Image.open(folder / "grid.png") as grid:
        assert (events.Images("grid")[-1].width, events.Images("grid")[-1].height) == grid.size
    assert "tensorboard --logdir" in outcome.out


class Lines(Logger):
    """A logger of the user's own, which takes no folder but pictures."""

    name = version = "lines"
    got: ClassVar[list[object]] = []

    def log_hyperparams(self, params, *args, **kwargs):
        Lines.got.append(params["layer"])

    def log_metrics(self, metrics, step=None):
        Lines.got.append((step, metrics["error"]))

    def log_image(self, key, images, step=None):
        Lines.got.append((step, key, images[0].size))


class Captioned(Lines):
    """One that takes captions too, as Lightning's loggers do."""

    def log_image(self, key, images, step=None, **kwargs):
        Lines.got.append((step, key, *kwargs["caption"]))


@pytest.mark.parametrize("kind", [Lines, Captioned])
def test_a_logger_of_the_users_own_gets_curves_and_pictures(job, photos, kind):
    Lines.got.clear()
    target = f"+logger._target_={__name__}.{kind.__name__}"
    assert job(f"data.path={photos}", "data.limit=1", "optim.steps=4", target).status == 0
    numbers = [got[0] for got in Lines.got if isinstance(got, tuple) and len(got) == 2]
    pictures = [got for got in Lines.got if isinstance(got, tuple) and len(got) == 3]
    assert Lines.got[0] is None and numbers == [0, 1, 2, 3, 4]
    assert [got[:2] for got in pictures] == [(0, "grid"), (4, "grid")]  # the start and the end
    if kind is Lines:
        assert all(width > height for _, _, (width, height) in pictures)
    else:
        start, end = (caption for _, _, caption in pictures)
        assert start.startswith("hog, start | a.png: error ") and end.startswith("hog, end, mean error ")
