"""What a run of W&B has, read back from its file."""

import contextlib
import csv
import json
import re
import runpy
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import wandb
import yaml
from helpers.paths import ROOT
from helpers.wandb_file import OfflineRun
from PIL import Image

from invrep.tracking.wandb_values import plain, tags

PAGE = (ROOT / "docs" / "wandb.md").read_text()


def test_a_run_has_curves_captioned_pictures_the_table_and_the_config(job, photos):
    outcome = job("logger=wandb", f"data.path={photos}", "data.batch_size=2", "restarts=2", "images_every=2")
    assert outcome.status == 0 and "wandb sync" in outcome.out, outcome.err
    run = OfflineRun(outcome.folder)
    scalars = [row for row in run.history if "error" in row]
    assert [row["pass"] for row in scalars] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]  # two batches: the axis goes on
    assert all({"error", "energy", "data", "prior/tv", "prior/alpha"} <= row.keys() for row in scalars)
    assert {run.steps[name] for name in ("error", "energy", "data", "prior/*", "grid", "results")} == {"pass"}
    rows = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    points = [p for p in csv.DictReader((outcome.folder / "curves.csv").open()) if p["pass"] == "2"]
    curve = [float(p["error"]) for p in points if p["image"] != "sub/a.png"]  # the first batch
    assert scalars[2]["error"] == pytest.approx(sum(curve) / 4, rel=1e-5)
    _pictures(run, outcome.folder, f"pass 2 of 4 | a.png: error {100 * curve[0]:.2f} %, {100 * curve[1]:.2f} % | b.png")
    _table(run, rows)
    means = {"mean/error": outcome.value, "photos": 3, "pre_images": 6}
    assert {name: run.summary[name] for name in means} == pytest.approx(means, rel=1e-5)
    assert run.summary["error"] == {"min": pytest.approx(min(row["error"] for row in scalars))}
    artifact = run.artifacts["results"]
    assert set(artifact) == {"grid.png", "metrics.csv", "curves.csv", "spread.csv", "config.yaml"}
    for name, file in artifact.items():
        assert file.read_bytes() == (outcome.folder / name).read_bytes() and file.is_relative_to(outcome.folder)
    assert run.config["rep"]["cell"] == 8 and run.config["data"]["color"] == "gray"
    assert "logger" not in run.config and "_target_" not in repr(run.config) and "trainer/global_step" not in run.steps
    assert run.name == outcome.folder.name and run.exit_code == 0
    assert (run.tags, run.job_type) == (["hog", "match", "natural"], "inversion")


def _pictures(run: OfflineRun, folder: Path, second: str) -> None:
    """Check the pictures: starts, every two passes, the first batch's end, and the job's end, each once."""
    pictures = run.pictures()
    assert [row["pass"] for row in pictures] == [0, 2, 4, 4, 6, 8]
    captions = [row["grid/caption"] for row in pictures]
    assert captions[0].startswith("hog, start | a.png: error ") and captions[1].startswith(f"hog, {second}")
    assert captions[2].startswith("hog, pass 4 of 4 | a.png") and captions[3].startswith("hog, start | sub/a.png")
    assert captions[5].startswith("hog, end, mean error ") and captions[5].endswith("| a.png, b.png, sub/a.png")
    assert len({row["grid/sha256"] for row in pictures}) == 6
    assert all("error" in row for row in pictures if "start" in row["grid/caption"])  # one row for both
    with Image.open(run.files / pictures[0]["grid/path"]) as start:
        assert start.width > 3 * 112 > start.height
    assert (run.files / pictures[-1]["grid/path"]).read_bytes() == (folder / "grid.png").read_bytes()


def _table(run: OfflineRun, rows: list[dict[str, str]]) -> None:
    """Check the table: the rows of ``metrics.csv``, each after its pictures, whose files are those on disk."""
    table = run.table()
    assert [(row["image"], str(row["restart"])) for row in table] == [(row["image"], row["restart"]) for row in rows]
    assert [row["error"] for row in table] == pytest.approx([float(row["error"]) for row in rows])
    assert list(table[0])[:3] == ["photo", "pre-image", "image"] and "content" not in table[0]
    assert len({row["photo"]["path"] for row in table}) == 3 and len({row["pre-image"]["path"] for row in table}) == 6
    error = f"error {100 * float(rows[1]['error']):.2f} %"
    assert table[1]["pre-image"]["caption"] == f"a.png, hog, restart 1: {error}"
    assert {row[name]["path"] for row in table for name in ("photo", "pre-image")} < run.artifacts["run_table"].keys()


def test_every_key_is_documented_and_jobs_compare_by_layer_and_weight(job, photos):
    """What docs/wandb.md names is what a run has, and no more."""
    documented = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.M))
    options = ("rep=alexnet", "rep.weights=random", "data.resize=none", f"data.path={photos}", "restarts=2")
    outcome = job("-m", "logger=wandb", *options, "layer=relu1,relu2", "data.limit=2", "optim.steps=2")
    assert outcome.status == 0, outcome.err
    runs = [OfflineRun(p) for p in outcome.output.iterdir() if p.name.startswith("alexnet")]
    for run in runs:
        history = {key for row in run.history for key in row if not key.startswith("_")}
        keys = {re.sub("/(?!tv|box).*", "", key) for key in history}
        keys |= {key for key in run.summary if key.startswith("mean/")} | {f"used.{key}" for key in run.config["used"]}
        assert keys <= documented, keys - documented
    used = {run.config["used"]["layer"]: run.config["used"] for run in runs}
    assert {layer: (u["tv_weight"], u["receptive_field"], u["prior"]) for layer, u in used.items()} == {
        "relu1": (0.01, 11, "natural"),
        "relu2": (0.01, 51, "natural"),
    }
    assert {tag for run in runs for tag in run.tags} == {"alexnet", "relu1", "relu2", "match", "natural"}
    assert all(run.summary["mean/error"] > 0 and run.summary["mean/spread_code"] > 0 for run in runs)


def test_each_job_of_a_sweep_is_its_own_run_of_one_group_and_a_failure_shows(job, photos):
    (photos / "c.png").write_text("no photo")
    outcome = job("-m", "logger=wandb", f"data.path={photos}", "rep=hog,hogb", "optim.steps=1")
    assert outcome.status == 1
    runs = [OfflineRun(p) for p in outcome.output.iterdir() if p.name.startswith("hog")]
    assert len(runs) == 2 and len({run.group for run in runs}) == 1 and runs[0].group
    assert [run.exit_code for run in runs] == [1, 1]


def test_a_run_of_activations(job):
    options = ("objective=maximise", "objective.channels=3", "data=none", "data.size=[48,64]", "images_every=2")
    outcome = job("logger=wandb", "rep=hogb", *options, "restarts=2")
    assert outcome.status == 0, outcome.err
    run = OfflineRun(outcome.folder)
    scalars = [row for row in run.history if "activation" in row]
    assert [row["pass"] for row in scalars] == [0, 1, 2, 3, 4] and "error" not in scalars[0]
    assert (run.steps["activation"], run.best["activation"]) == ("pass", "max")
    assert run.summary["activation"] == {"max": pytest.approx(max(row["activation"] for row in scalars))}
    assert run.summary["mean/activation"] == pytest.approx(outcome.value, rel=1e-5)
    assert 0 < run.summary["mean/spread_ssim"] < 2 and "mean/error" not in run.summary
    assert run.pictures()[1]["grid/caption"].startswith("hogb 3, pass 2 of 4 | ")
    with Image.open(run.files / run.pictures()[0]["grid/path"]) as grid:
        assert grid.width < 3 * 112  # the two restarts alone
    assert next(iter(run.table()[0])) == "pre-image"


def test_wandb_says_nothing_of_its_own_and_no_word_where_it_is_disabled(job, photos):
    outcome = job("logger=wandb", f"data.path={photos}", "data.limit=1", "optim.steps=1")
    assert "anonymous" not in outcome.out + outcome.err and "WARNING" not in outcome.err
    # as WANDB_MODE=disabled, which W&B reads only once in a process
    off = ("logger=wandb", "+logger.mode=disabled", "output=disabled")
    outcome = job(*off, f"data.path={photos}", "data.limit=1", "optim.steps=1")
    assert outcome.status == 0 and "picture:" in outcome.out and "wandb" not in outcome.out + outcome.err


def test_a_job_is_one_run_however_often_it_is_started(job, photos):
    options = ("logger=wandb", f"data.path={photos}", "data.limit=1", "+logger.tags=[mine]")
    outcome = job(*options)
    again = job(*options)
    (first,) = outcome.folder.glob("wandb/offline-run-*")
    assert again.status == 0 and again.out.count(first.name) == 1  # nothing new: the finished run stays as it is
    longer = job(*options, "restarts=2")
    assert longer.status == 0, longer.err
    parts = sorted(outcome.folder.glob("wandb/offline-run-*"))
    assert len(parts) == 2 and all(part.name in longer.out.rsplit("wandb sync")[-1] for part in parts)
    one, two = map(OfflineRun, parts)
    assert one.id == two.id and "mine" in two.tags
    assert [row["pass"] for row in two.history if "error" in row] == [4, 5, 6, 7, 8]  # the axis goes on
    assert (len(one.table()), len(two.table())) == (1, 2)


def test_names_that_wandb_would_refuse(job, tmp_path):
    """Longer than 128 characters, no UTF-8, a dot in a key, a number that JSON lacks."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.effect_noise((24, 16), 40).save(folder / b"\xff.png".decode(errors="surrogateescape"), format="PNG")
    long = f"name={'n' * 200}"
    outcome = job("logger=wandb", f"data.path={folder}", long, f"+logger.group={'g' * 200}", "optim.steps=1")
    assert outcome.status == 0 and "switched off" not in outcome.out + outcome.err, outcome.err
    run = OfflineRun(outcome.folder)
    assert run.name[-8:] == outcome.folder.name[-8:] and max(len(run.name), len(run.group)) <= 128
    assert run.table()[0]["image"] == "?.png" and run.exit_code == 0
    config = {"rep": {"_target_": "my.Net", "_partial_": True, "a.b": float("inf")}, "logger": {"x": 1}}
    assert plain(config) == {"rep": {"part": "my.Net", "a/b": "inf"}}
    (tag,) = tags({"used": {"rep": "r" * 100}, "layer": None})
    assert len(tag) == 64 and tags({"used": {}, "layer": ["relu1", "relu2"]}) == ["relu1", "relu2"]


@pytest.fixture
def fresh_wandb():
    """Let W&B read the environment anew, which it does once in a process."""
    wandb.teardown()
    yield
    wandb.teardown()


def test_a_run_of_wandbs_agent_keeps_its_own_name(job, photos, tmp_path, monkeypatch, fresh_wandb):
    """The agent names sweep, run and parameters in the environment, and types the parameters after dashes."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"wandb_version": 1, "rep": {"value": "hogb"}}))
    given = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "run1", "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "sweep.yaml")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    outcome = job("--logger=wandb", "--rep=hogb", f"--data.path={photos}", "--data.limit=1", "--optim.steps=1")
    assert outcome.status == 0, outcome.err
    run = OfflineRun(outcome.folder)
    assert (run.id, run.sweep, run.config["rep"]) == ("run1", "sweep1", "hogb") and run.summary["mean/error"] > 0


class Server(BaseHTTPRequestHandler):
    """A server that answers W&B's own client, and keeps the view that it is to save."""

    views: ClassVar[list[dict]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with contextlib.suppress(ValueError):
            asked = json.loads(body)
            self.views.extend([asked["variables"]] if "upsertView" in asked["query"] else [])
        answer = {"viewer": {"entity": "me", "username": "me", "teams": {"edges": []}}}
        answer |= {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": answer}).encode())

    def log_message(self, *_):
        pass


def test_the_workspace_of_the_docs_shows_what_a_run_has(tmp_path, monkeypatch, fresh_wandb):
    pytest.importorskip("wandb_workspaces")
    (script,) = re.findall(r"^:caption: workspace.py\n\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "workspace.py").write_text(script)
    monkeypatch.setattr(sys, "argv", ["workspace.py", "me/invrep"])
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        runpy.run_path(str(tmp_path / "workspace.py"))
        server.shutdown()
    (view,) = Server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "invrep", "invrep")
    documented = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.M))
    told = view["spec"].replace("summary_metrics.", "summary:").replace("used.value.", "used.")
    shown = re.findall(r'"(?:summary:|config:)?(mean/\w+|used\.\w+|pass|error|energy|data|grid|results)"', told)
    assert {"grid", "results", "pass", "mean/error", "used.layer", "used.tv_weight"} <= set(shown) <= documented


def test_what_is_not_to_be_sent_is_not_written(job, photos, monkeypatch, fresh_wandb):
    switches = dict(re.findall(r"`(WANDB_X?\w+)=(true|false)`", PAGE))
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_HOST", "anonymous")
    options = (f"data.path={photos}", "data.limit=1", "optim.steps=2", "images_every=null")
    outcome = job("logger=wandb", *options)
    assert outcome.status == 0, outcome.err
    run = OfflineRun(outcome.folder)
    kinds = [record.WhichOneof("record_type") for record in run.records]
    assert not {"environment", "stats", "output_raw"} & set(kinds)
    (begun,) = [record.run for record in run.records if record.WhichOneof("record_type") == "run"]
    assert begun.host == "anonymous" and not begun.git.commit
    assert not run.pictures() and next(iter(run.table()[0])) == "image" and "grid.png" not in run.artifacts["results"]
    assert not [path for path in run.files.rglob("*") if path.suffix == ".png" or path.name == "requirements.txt"]
