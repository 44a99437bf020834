"""Ranks and arrays under a real SLURM, where one answers: ``eval "$(slurm-one-node.sh start)"`` starts one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.paths import ROOT
from PIL import Image

from invrep.results.store import Results

USUAL = ("rep=hogb", "data.path=photos", "logger=none", "log_every=2", "trainer.accelerator=cpu", "output=out")


def _answers() -> bool:
    """Whether there is a SLURM that takes jobs."""
    if shutil.which("sinfo") is None:
        return False
    try:
        found = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0 and bool(found.stdout.strip())


pytestmark = [pytest.mark.slurm, pytest.mark.skipif(not _answers(), reason="no SLURM answers (sinfo)")]


def until(condition: Callable[[], object], seconds: float = 280) -> object:
    """Wait for what a condition finds, however slow the machine is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


class Slurm:
    """Commands of SLURM in a folder with photos.

    Attributes:
        folder: where jobs run and write ``NAME.log``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_STEP")},
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def photos(self, count: int) -> None:
        """Make so many small photos."""
        (self.folder / "photos").mkdir(exist_ok=True)
        for k in range(count):
            Image.effect_noise((24, 16), 10 + 9 * k).save(self.folder / "photos" / f"{k}.png")

    def command(self, *overrides: str, output: str = "out") -> list[str]:
        """Return the words of ``python train.py …``."""
        return [sys.executable, str(ROOT / "train.py"), *USUAL[:-1], f"output={output}", *overrides]

    def batch(self, script: str, *options: str) -> int:
        """Submit a batch script, and return the job's id."""
        path = self.folder / "script.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        found = subprocess.run(
            ["sbatch", "--parsable", "--output=%x.log", "--open-mode=append", *options, str(path)],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            check=True,
        )
        return int(found.stdout)

    def control(self, *words: str) -> str:
        """Run another command of SLURM and return what it prints."""
        return subprocess.run(words, env=self.environment, text=True, capture_output=True, check=True).stdout

    def ended(self, number: int) -> bool:
        """Whether all of a job, or of an array, has ended."""
        states = re.findall(r"JobState=(\w+)", self.control("scontrol", "show", "job", str(number)))
        return all(state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED") for state in states)

    def log(self, name: str) -> str:
        """Return what a job has printed so far."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def results(self, output: str = "out") -> Results:
        """Return the one job's results below an output folder."""
        (folder,) = (self.folder / output).iterdir()
        return Results(folder)


@pytest.fixture
def slurm(tmp_path: Path):
    """SLURM's commands in a folder of their own; what they have left running is cancelled."""
    user = Slurm(tmp_path)
    yield user
    jobs = user.control("squeue", "--noheader", "--format=%A %Z").splitlines()
    if mine := sorted({line.split()[0] for line in jobs if line.split()[1] == str(tmp_path)}):
        user.control("scancel", *mine)


def test_a_batch_script_without_srun_is_one_process_in_an_array_too(slurm: Slurm) -> None:
    slurm.photos(2)
    words = " ".join(slurm.command("optim.steps=4", output="out$SLURM_ARRAY_TASK_ID"))
    job = slurm.batch(words, "--ntasks=2", "--array=0-1", "--job-name=alone")
    until(lambda: slurm.ended(job))
    for task in (0, 1):
        assert len(slurm.results(f"out{task}").rows()) == 2, slurm.log("alone")
    assert "ranks" not in slurm.log("alone") and "Traceback" not in slurm.log("alone")


def ranks(slurm: Slurm) -> dict[int, dict[str, object]]:
    """Return what each rank says at present."""
    found = {}
    for path in slurm.folder.glob("out/*/ranks/*-*.json"):
        with contextlib.suppress(OSError):
            found[int(path.name.partition("-")[0])] = json.loads(path.read_text())
    return found


def met(slurm: Slurm) -> bool:
    """Return whether both ranks have seen each other: one that ends before counts as one that has not come."""
    found = ranks(slurm)
    return len(found) == 2 and all(rank["answers"] for rank in found.values())


def finished(slurm: Slurm) -> list[str]:
    """Return the PNGs of finished pre-images."""
    return sorted(path.name for path in slurm.folder.glob("out/*/reconstructions/*.png"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_is_noticed_and_the_same_command_completes_the_job(slurm: Slurm, victim: int) -> None:
    slurm.photos(8)
    words = ("srun", "--ntasks=2", *slurm.command("optim.steps=200", "data.batch_size=1"))
    job = slurm.batch(f"{' '.join(words)}; echo status $?", "--ntasks=2", "--job-name=killed")
    until(lambda: finished(slurm) and met(slurm))
    os.kill(ranks(slurm)[victim]["pid"], signal.SIGKILL)
    until(lambda: slurm.ended(job))
    log = slurm.log("killed")
    assert f"ank {victim} of 2 died" in log if victim == 0 else "since rank 1 died" in log, log
    assert "png is missing" in log and "status 0" not in log and "Traceback" not in log, log
    if victim == 0:
        until(lambda: subprocess.run(words, cwd=slurm.folder, env=slurm.environment, check=False).returncode == 0)
        assert len(slurm.results().rows()) == 8 and not (slurm.results().folder / "ranks").exists()


def test_a_job_that_is_queued_again_believes_no_word_of_its_first_life(slurm: Slurm) -> None:
    slurm.photos(3)
    Image.effect_noise((256, 256), 50).save(slurm.folder / "photos" / "0.png")  # rank 0's, much the slowest
    whole = (slurm.folder / "photos" / "2.png").read_bytes()
    (slurm.folder / "photos" / "2.png").write_bytes(whole[:20])
    words = " ".join(slurm.command("optim.steps=1000", "checkpoint.every=20"))
    job = slurm.batch(f"srun --ntasks=2 {words}; echo status $?", "--ntasks=2", "--requeue", "--job-name=again")
    until(lambda: ranks(slurm).get(1, {}).get("failures") and list(slurm.folder.glob("out/*/checkpoints/*")))
    assert ranks(slurm)[1]["state"] == "done" and ranks(slurm)[0]["state"] == "working"
    (slurm.folder / "photos" / "2.png").write_bytes(whole)
    slurm.control("scontrol", "requeue", str(job))
    until(lambda: slurm.log("again").endswith("status 0\n"))
    assert len(slurm.results().rows()) == 3 and not (slurm.results().folder / "ranks").exists()


def test_the_signal_before_a_time_limit_is_one_sentence_and_keeps_the_state(slurm: Slurm) -> None:
    slurm.photos(2)
    words = " ".join(slurm.command("optim.steps=1000000", "checkpoint.every=20"))
    job = slurm.batch(f"srun --ntasks=2 {words}; echo status $?", "--ntasks=2", "--job-name=limit")
    until(lambda: len(list(slurm.folder.glob("out/*/checkpoints/*.ckpt"))) == 2 and met(slurm))
    slurm.control("scancel", "--signal=USR1", str(job))  # as --signal=USR1@60 does
    until(lambda: "status" in slurm.log("limit"))
    log = slurm.log("limit")
    assert "status 138" in log and log.count("error: Ended by SIGUSR1") == 1 and "Traceback" not in log, log
    assert len(list(slurm.folder.glob("out/*/checkpoints/*.ckpt"))) == 2


# --- launcher=submitit_slurm -----------------------------------------------------------------------------------------


def sweep(slurm: Slurm, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep by the launcher, on devices as Lightning finds them."""
    python, script, *words = (word for word in slurm.command(*overrides) if "accelerator" not in word)
    words = [python, script, "-m", "launcher=submitit_slurm", *words]
    return subprocess.run(
        words, cwd=slurm.folder, env=slurm.environment, text=True, capture_output=True, timeout=280, check=False
    )


def test_each_job_of_a_sweep_is_one_of_slurm_and_asks_for_no_gpu_that_is_not_there(slurm: Slurm) -> None:
    slurm.photos(1)
    ended = sweep(slurm, "optim.steps=4", "rep.cell=8,0")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert "1 of 2 jobs of the sweep failed, all others are done" in ended.stderr
    assert "HOG's cell must be a whole number" in ended.stderr
    (folder,) = (path for path in (slurm.folder / "out").iterdir() if path.name != "sweeps")
    assert len(Results(folder).rows()) == 1
    (script,) = (slurm.folder / "out" / "sweeps").glob("*/.submitit/.submission_file_*.sh")
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script.read_text()))
    gpus = "gpu" in slurm.control("sinfo", "--noheader", "--format=%G")
    assert asked.get("gpus-per-node") == ("1" if gpus else None) and asked["array"].startswith("0-1")
    assert 1 <= int(asked["cpus-per-task"]) <= 8


def test_what_slurm_refuses_is_one_sentence(slurm: Slurm) -> None:
    ended = sweep(slurm, "seed=1,2", "hydra.launcher.partition=nowhere")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    said = "error: submitit could not start the jobs of the sweep: sbatch: error: invalid partition specified: nowhere"
    assert said in ended.stderr
