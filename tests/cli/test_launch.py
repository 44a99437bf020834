"""Sweeps: jobs beside each other, each with its own GPU; all failures at the end; the metric for a sweeper."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

import invrep.jobs.machine
from invrep.errors import InvrepError
from invrep.jobs.machine import BASIC, machine, register, share_machine, slurm
from invrep.jobs.ranks import Rank, check_launch
from invrep.presets import FOLDER
from invrep.results.store import Results

BASE = ("rep=hogb", "rep.cell=16", "data.limit=1", "logger=none", "optim.steps=3", "log_every=2", "output=out")


def sweep(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run ``python train.py -m …``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *BASE, *overrides],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=280,
    )


# --- all failures ----------------------------------------------------------------------------------------------------


def test_a_sweep_ends_with_every_job_that_failed(job, photos: Path) -> None:
    outcome = job("-m", f"data.path={photos}", "data.limit=1", "rep=hogb", "rep.cell=0,16", "seed=1,2")
    assert outcome.status == 1
    assert "2 of 4 jobs of the sweep failed, all others are done (out/sweeps/" in outcome.err
    listed = [line for line in outcome.err.splitlines() if line.startswith("  #")]
    assert [line[:4] for line in listed] == ["  #0", "  #1"]
    assert all("rep.cell=0" in line and "HOG's cell must be a whole number" in line for line in listed)
    assert "seed=1" in listed[0] and "seed=2" in listed[1]
    done = [Results(p).rows() for p in outcome.output.iterdir() if p.name.startswith("hogb")]
    assert [len(rows) for rows in done] == [1, 1]


def test_a_fault_of_the_programs_own_keeps_its_traceback(job, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invrep.jobs.completion.finish", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job("-m", f"data.path={photos}", "data.limit=1", "seed=1,2")


def test_a_single_job_fails_by_itself(job) -> None:
    outcome = job("rep.cell=0")
    assert outcome.status == 1 and outcome.err.startswith("error: HOG's cell must be")


# --- plugins ---------------------------------------------------------------------------------------------------------


def test_joblib_runs_twins_at_once_and_the_second_says_so(photos: Path, tmp_path: Path) -> None:
    twins = ("seed=1,1", "optim.steps=200", "rep.cell=8")
    ended = sweep(tmp_path, "launcher=joblib", f"data.path={photos}", *twins, "hydra.launcher.n_jobs=2")
    assert ended.returncode == 1 and "1 of 2 jobs of the sweep failed" in ended.stderr, ended.stderr
    assert ended.stderr.count("Another process is at work in out/hogb-") == 1
    (folder,) = (p for p in (tmp_path / "out").iterdir() if p.name != "sweeps")
    assert len(Results(folder).rows()) == 1


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "ray"])
def test_a_launcher_runs_a_sweep_and_says_what_failed(name: str, photos: Path, tmp_path: Path) -> None:
    ended = sweep(tmp_path, f"launcher={name}", f"data.path={photos}", "rep.cell=16,0")
    assert ended.returncode == 1, ended.stderr
    assert "1 of 2 jobs of the sweep failed, all others are done" in ended.stderr
    assert "#1 " in ended.stderr and "HOG's cell must be a whole number" in ended.stderr
    assert "is validated against ConfigStore" not in ended.stderr
    (folder,) = (p for p in (tmp_path / "out").iterdir() if p.name != "sweeps")
    assert len(Results(folder).rows()) == 1


def test_optuna_searches_the_prior_and_the_step(photos: Path, tmp_path: Path) -> None:
    ended = sweep(
        tmp_path, "hparams=optuna", f"data.path={photos}", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"
    )
    assert ended.returncode == 0, ended.stderr
    (best,) = (tmp_path / "out" / "sweeps").glob("*/optimization_results.yaml")
    found = OmegaConf.load(best)
    assert set(found.best_params) == {"prior.tv.weight", "optim.lr"}
    folders = [p for p in (tmp_path / "out").iterdir() if p.name != "sweeps"]
    ssim = [row["ssim"] for folder in folders for row in Results(folder).rows().values()]
    assert len(ssim) == 2 and found.best_value == pytest.approx(max(ssim), rel=1e-6)


@pytest.mark.parametrize(
    ("override", "group", "choice"),
    [
        ("launcher=joblib", "launcher", "joblib"),
        ("launcher=ray", "launcher", "ray"),
        ("launcher=submitit_local", "launcher", "submitit_local"),
        ("launcher=submitit_slurm", "launcher", "submitit_slurm"),
        ("hparams=optuna", "sweeper", "optuna"),
    ],
)
def test_a_plugin_that_is_missing_is_named(
    job, override: str, group: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plugins.instance()  # registers those that are installed
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{choice}.yaml")
    outcome = job("-m", override)
    extra = choice.partition("_")[0]
    assert outcome.status == 1 and outcome.err.endswith(f"not installed: pip install 'invrep[{extra}]'.\n")


def test_every_plugin_is_among_what_the_development_extra_installs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = {name for line in extras["dev"] for name in re.findall(r"invrep\[(.*)\]", line) for name in name.split(",")}
    assert own == extras.keys() - {"dev"}


def test_what_a_launcher_itself_refuses_is_one_sentence(job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Here that there is no SLURM; see test_slurm.py for what SLURM itself refuses."""
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = job("-m", "launcher=submitit_slurm", "seed=1,2")
    assert outcome.status == 1 and "Traceback" not in outcome.err
    assert 'error: submitit could not start the jobs of the sweep: Could not detect "srun"' in outcome.err


# --- what a job takes of the machine ---------------------------------------------------------------------------------


@pytest.fixture
def in_sweep(monkeypatch: pytest.MonkeyPatch):
    """Be job ``number`` of a sweep, on a machine with some GPUs."""

    def be(number: int, there: int, target: str = "JoblibLauncher", **launcher: int) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: there)
        monkeypatch.setattr(invrep.jobs.machine, "in_multirun", lambda: True)
        hydra = SimpleNamespace(
            launcher=OmegaConf.create({"_target_": target, **launcher}), job=SimpleNamespace(num=number)
        )
        monkeypatch.setattr(invrep.jobs.machine.HydraConfig, "get", staticmethod(lambda: hydra))

    return be


def test_jobs_beside_each_other_have_a_gpu_each(in_sweep) -> None:
    found = []
    for number in range(6):
        in_sweep(number, 4)
        found.append(share_machine(1, "auto"))
    assert found == [[0], [1], [2], [3], [0], [1]]
    in_sweep(1, 4)
    assert share_machine(2, "gpu") == [2, 3]
    # who names GPUs, or takes all, or computes on the CPU, has what was asked for
    assert share_machine([0], "auto") == [0] and share_machine("auto", "auto") == "auto"
    assert share_machine(4, "auto") == 4 and share_machine(1, "cpu") == 1
    in_sweep(1, 1)  # SLURM and Ray show a job its own only
    assert share_machine(1, "auto") == 1
    in_sweep(1, 4, target=BASIC)  # one after the other
    assert share_machine(1, "auto") == 1


def test_threads_are_the_launchers(in_sweep) -> None:
    before = torch.get_num_threads()
    try:
        in_sweep(0, 0, cpus_per_task=1)
        share_machine(1, "auto")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_jobs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    for there, wanted in ((0, (0, 0, 4, 4)), (8, (8, 1, 8, 2)), (32, (32, 1, 32, 1))):
        monkeypatch.setattr("torch.cuda.device_count", lambda there=there: there)
        assert tuple(machine(what) for what in ("gpus", "gpu", "jobs", "cores")) == wanted


@pytest.mark.parametrize("path", sorted((FOLDER / "launcher").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_launcher_composes(path: Path) -> None:
    register()
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        config = compose("config", [f"launcher={path.stem}"], return_hydra_config=True)
    assert OmegaConf.to_container(config.hydra.launcher, resolve=True)["_target_"]


@pytest.mark.parametrize(
    ("cluster", "accelerator", "devices", "wanted"),
    [
        ("4 (null)", "auto", 1, (None, 4)),
        ("64+ (null)", "auto", "auto", (None, 8)),
        ("64 (null)", "cpu", 4, (None, 32)),
        ("32 gpu:a100:4(S:0-1)\n64 (null)", "auto", 1, (1, 8)),
        ("32 gpu:a100:4(S:0-1)\n64 (null)", "auto", -1, (4, 32)),
        ("32 gpu:a100:4(S:0-1)\n64 (null)", "cpu", 1, (None, 8)),
        ("96 gpu:h100:4,gpu:l4:4,shard:16", "gpu", 8, (8, 64)),
        ("96 gpu:8", "auto", [0, 3], (4, 32)),
        ("4 (null)", "gpu", 2, (2, 4)),  # SLURM says that it has none
        (None, "gpu", "auto", (1, 8)),  # and here nothing answers
    ],
)
def test_a_job_of_slurm_asks_for_what_its_trainer_needs(
    cluster: str | None,
    accelerator: str,
    devices: object,
    wanted: tuple[int | None, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if cluster is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        sinfo = tmp_path / "sinfo"
        sinfo.write_text(f"#!/bin/sh\ncat <<'END'\n{cluster}\nEND\n")
        sinfo.chmod(0o755)
    assert (slurm("gpus", accelerator, devices), slurm("cores", accelerator, devices)) == wanted


# --- launchers of ranks ----------------------------------------------------------------------------------------------


def test_what_was_started_is_what_was_asked_for() -> None:
    rank = Rank(0, 32, 0, "run", nodes=4)
    check_launch(8, 4, rank)
    check_launch(1, 1, rank)  # says nothing
    check_launch("auto", 1, rank)
    check_launch(8, 1, None)
    for devices, nodes, started, said in (
        (8, 2, rank, "trainer.num_nodes=2 does not fit what was started, on 4 machine"),
        (4, 4, rank, r"trainer.devices=4 does not fit what was started, 8 process\(es\) on each machine"),
        (8, 4, None, "srun --nodes=4 --ntasks-per-node=8"),
        (1, 0, None, "trainer.num_nodes=0 is not valid"),
        (1, "two", rank, "trainer.num_nodes=two is not valid"),
    ):
        with pytest.raises(InvrepError, match=said):
            check_launch(devices, nodes, started)


def test_nodes_without_a_launcher(job) -> None:
    outcome = job("trainer.num_nodes=2")
    assert outcome.status == 1 and "torchrun --nnodes=2" in outcome.err


# --- the metric ------------------------------------------------------------------------------------------------------


def test_the_metric_is_a_column(job, photos: Path) -> None:
    values = {}
    for metric in ("null", "error", "psnr", "ssim", "energy"):
        outcome = job(f"data.path={photos}", "rep=hogb", "data.limit=2", f"metric={metric}")
        assert outcome.status == 0, outcome.err
        values[metric] = outcome.value
    rows = Results(outcome.folder).rows().values()
    for metric in ("error", "psnr", "ssim", "energy"):
        assert values[metric] == pytest.approx(sum(row[metric] for row in rows) / 2, rel=1e-6)
    assert values["null"] == values["error"] != values["energy"]


def test_a_metric_that_is_not_there(job) -> None:
    outcome = job("metric=lpips")
    assert outcome.status == 1 and "expected one of error, root_error, psnr, ssim, energy, data" in outcome.err
    outcome = job(
        "rep=hogb", "objective=maximise", "objective.channels=3", "data=none", "data.size=[48,64]", "metric=ssim"
    )
    assert outcome.status == 1 and "expected one of activation, energy, data" in outcome.err
