"""What the loggers get, read back from their files."""

import csv
import re
from typing import ClassVar

import pytest
from helpers.paths import ROOT
from helpers.wandb_file import OfflineRun
from PIL import Image
from pytorch_lightning.loggers.logger import Logger

import invrep.tracking.logger
from invrep.inversion.module import Inversion


def test_wandb_gets_curves_grids_the_table_and_the_config(job, photos):
    outcome = job("logger=wandb", f"data.path={photos}", "data.batch_size=2", "restarts=2", "images_every=2")
    assert outcome.status == 0 and "wandb sync" in outcome.out, outcome.err
    run = OfflineRun(outcome.folder)
    scalars = [row for row in run.history if "error" in row]
    # two batches of four passes, with points at 0, 2 and 4 of each: the axis goes on
    assert [row["pass"] for row in scalars] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert all({"error", "energy", "data", "prior/tv", "prior/alpha"} <= row.keys() for row in scalars)
    assert {run.steps[name] for name in ("error", "energy", "data", "prior/*", "reconstructions")} == {"pass"}
    rows = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    curve = [float(p["error"]) for p in csv.DictReader((outcome.folder / "curves.csv").open()) if p["pass"] == "2"]
    assert scalars[2]["error"] == pytest.approx(sum(curve[:4]) / 4, rel=1e-5)
    pictures = [row for row in run.history if "reconstructions/path" in row]
    assert len(pictures) >= 4
    with Image.open(run.files / pictures[-1]["reconstructions/path"]) as grid:
        assert grid.width > 3 * 64
    table = next(row for row in run.history if "results/path" in row)
    assert (table["results/nrows"], table["results/ncols"]) == (6, len(rows[0]))
    assert any("grid/path" in row for row in run.history)
    assert run.summary["mean/error"] == pytest.approx(outcome.value, rel=1e-5)
    artifact = run.artifacts["results"]
    assert set(artifact) == {"grid.png", "metrics.csv", "curves.csv", "spread.csv", "config.yaml"}
    for name, file in artifact.items():
        assert file.read_bytes() == (outcome.folder / name).read_bytes() and file.is_relative_to(outcome.folder)
    assert run.config["rep"]["cell"] == 8 and run.config["data"]["color"] == "gray"
    assert run.name == outcome.folder.name and run.exit_code == 0


def test_every_key_is_documented_and_jobs_compare_by_layer_and_weight(job, photos):
    """What docs/wandb.md names is what a run has, and no more."""
    page = (ROOT / "docs" / "wandb.md").read_text()
    documented = set(re.findall(r"^\| `([^`]+)` \|", page, re.M))
    options = ("rep=alexnet", "rep.weights=random", "data.resize=none", f"data.path={photos}", "restarts=2")
    outcome = job("-m", "logger=wandb", *options, "layer=relu1,relu2", "data.limit=2", "optim.steps=2")
    assert outcome.status == 0, outcome.err
    runs = [OfflineRun(p) for p in outcome.output.iterdir() if p.name.startswith("alexnet")]
    for run in runs:
        history = {key for row in run.history for key in row if not key.startswith("_")}
        keys = {re.sub("/(?!tv|box|global_step).*", "", key) for key in history}
        keys |= {key for key in run.summary if key.startswith("mean/")} | {f"used.{key}" for key in run.config["used"]}
        assert keys <= documented, keys - documented
    used = {run.config["used"]["layer"]: run.config["used"] for run in runs}
    assert {layer: (u["tv_weight"], u["receptive_field"], u["prior"]) for layer, u in used.items()} == {
        "relu1": (0.01, 11, "natural"),
        "relu2": (0.01, 51, "natural"),
    }
    assert all(run.summary["mean/error"] > 0 and run.summary["mean/spread_code"] > 0 for run in runs)


def test_each_job_of_a_sweep_is_its_own_run_of_one_group_and_a_failure_shows(job, photos):
    (photos / "c.png").write_text("no photo")
    outcome = job("-m", "logger=wandb", f"data.path={photos}", "rep=hog,hogb", "optim.steps=1")
    assert outcome.status == 1
    runs = [OfflineRun(p) for p in outcome.output.iterdir() if p.name.startswith("hog")]
    assert len(runs) == 2 and len({run.group for run in runs}) == 1 and runs[0].group
    assert [run.exit_code for run in runs] == [1, 1]


def test_wandb_gets_activations_and_spreads(job):
    options = ("objective=maximise", "objective.channels=3", "data=none", "data.size=[48,64]", "images_every=2")
    outcome = job("logger=wandb", "rep=hogb", *options, "restarts=2")
    assert outcome.status == 0, outcome.err
    run = OfflineRun(outcome.folder)
    scalars = [row for row in run.history if "activation" in row]
    assert [row["pass"] for row in scalars] == [0, 1, 2, 3, 4] and "error" not in scalars[0]
    assert run.steps["activation"] == "pass"
    assert run.summary["mean/activation"] == pytest.approx(outcome.value, rel=1e-5)
    assert 0 < run.summary["mean/spread_ssim"] < 2 and "mean/error" not in run.summary
    picture = next(row["reconstructions/path"] for row in run.history if "reconstructions/path" in row)
    with Image.open(run.files / picture) as grid:
        assert grid.width < 3 * 64  # the two restarts alone


def test_wandb_says_nothing_of_its_own_and_no_word_where_it_is_disabled(job, photos):
    outcome = job("logger=wandb", f"data.path={photos}", "data.limit=1", "optim.steps=1")
    assert "anonymous" not in outcome.out + outcome.err and "WARNING" not in outcome.err
    # as WANDB_MODE=disabled, which W&B reads only once in a process
    off = ("logger=wandb", "+logger.mode=disabled", "output=disabled")
    outcome = job(*off, f"data.path={photos}", "data.limit=1", "optim.steps=1")
    assert outcome.status == 0 and "picture:" in outcome.out and "wandb" not in outcome.out + outcome.err


@pytest.mark.parametrize("broken", ["_open", "_scalars", "_picture", "_close"])
def test_a_failing_logger_does_not_fail_the_job(job, photos, monkeypatch, broken):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(invrep.tracking.logger.Record, broken, fail)
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

    outcome = job("logger=tensorboard", f"data.path={photos}", "data.limit=1", "seed=1", "output=tb")
    (folder,) = (outcome.output.parent / "tb").iterdir()
    (path,) = folder.rglob("events.out.*")
    events = EventAccumulator(str(path.parent)).Reload()
    assert [e.step for e in events.Scalars("error")] == [0, 1, 2, 3, 4]
    assert "reconstructions" in events.Tags()["images"]
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


def test_a_logger_of_the_users_own_gets_curves_and_pictures(job, photos):
    Lines.got.clear()
    target = f"+logger._target_={__name__}.Lines"
    assert job(f"data.path={photos}", "data.limit=1", "optim.steps=4", target).status == 0
    numbers = [got[0] for got in Lines.got if isinstance(got, tuple) and len(got) == 2]
    pictures = [got for got in Lines.got if isinstance(got, tuple) and len(got) == 3]
    assert Lines.got[0] is None and numbers == [0, 1, 2, 3, 4]
    assert pictures and all(key == "reconstructions" and width > height for _, key, (width, height) in pictures)
