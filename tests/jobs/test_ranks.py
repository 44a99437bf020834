"""Ranks share the list and nothing else: the same files with any number of them, and no one waits for a dead one."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import weakref
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from helpers.full_disk import full_disk
from helpers.processes import TORCHRUN, command, done, files
from helpers.wandb_file import OfflineRun
from safetensors.torch import load_file

from invrep.data.photo import Photo
from invrep.errors import InvrepError
from invrep.importing import uncollected
from invrep.jobs import nursery
from invrep.jobs.local_ranks import spread
from invrep.jobs.ranks import Rank, launched, local_devices
from invrep.jobs.words import Gathered
from invrep.results.store import Results


def test_one_two_and_three_ranks_leave_the_same_files_in_a_sweep_too(seven: Path, tmp_path: Path) -> None:
    found = []
    for ranks, sweep in ((1, ("rep=hogb",)), (2, ("-m", "rep=hog,hogb")), (3, ("rep=hogb",))):
        status, out, err = done(
            command(tmp_path, *sweep, "data.path=seven", f"trainer.devices={ranks}", f"output=out{ranks}")
        )
        assert status == 0, err
        assert ("on 2 ranks" in out) == (ranks == 2)
        folders = sorted(p for p in (tmp_path / f"out{ranks}").iterdir() if p.name != "sweeps")
        assert [p.name[:4] for p in folders] == (["hog-", "hogb"] if ranks == 2 else ["hogb"])
        assert ranks != 2 or len(list((tmp_path / "out2" / "sweeps").iterdir())) == 1
        assert not any((folder / "ranks").exists() for folder in folders)
        assert all(len(load_file(folder / "reconstructions.safetensors")) == 7 for folder in folders)
        found.append(files(folders[-1]))
    assert found[0] == found[1] == found[2]


def test_one_photo_on_two_ranks_and_a_bad_one(job, seven: Path) -> None:
    outcome = job(f"data.path={seven}", "data.limit=1", "trainer.devices=2", "trainer.accelerator=cpu")
    assert outcome.status == 0 and len(load_file(outcome.folder / "reconstructions.safetensors")) == 1, outcome.err
    again = job(f"data.path={seven}", "data.limit=1", "trainer.devices=2", "trainer.accelerator=cpu")
    assert again.status == 0 and "1 of 1 are finished" in again.out, again.err
    (seven / "bad.jpg").write_text("no photo")
    outcome = job(f"data.path={seven}", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=3")
    assert outcome.status == 1 and "1 photo could not be inverted, all others are done" in outcome.err
    assert len(load_file(outcome.folder / "reconstructions.safetensors")) == 7


def test_a_sweep_on_two_ranks_with_a_failing_job_and_one_run_in_wandb(
    job, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invrep.jobs.completion.TABLE_ROWS", 2)
    options = ("-m", f"data.path={seven}", "data.limit=3", "rep.cell=0,8", "trainer.devices=2", "data.batch_size=2")
    outcome = job(*options, "trainer.accelerator=cpu", "logger=wandb")
    assert outcome.status == 1 and "cell" in outcome.err
    assert len(list((outcome.output / "sweeps").iterdir())) == 1
    rows = Results(outcome.folder).rows()
    assert [image for image, _ in rows] == ["0.png", "1.png", "2.png"]
    run = OfflineRun(outcome.folder)  # there is one only
    assert [row["image"] for row in run.table()] == ["0.png", "1.png"]
    errors = [row["error"] for row in rows.values()]
    assert [row["error"] for row in run.table()] == pytest.approx(errors[:2])
    assert run.summary["mean/error"] == pytest.approx(sum(errors) / 3)
    curve = [row for row in run.history if "energy" in row]
    assert [row["pass"] for row in curve] == [0, 1, 2, 3, 4] and curve[-1]["error"] == pytest.approx(
        sum(errors) / 3, rel=1e-4
    )
    (picture,) = run.pictures()
    assert (run.files / picture["grid/path"]).read_bytes() == (outcome.folder / "grid.png").read_bytes()


def test_a_rank_that_dies_leaves_the_others_to_finish(seven: Path, tmp_path: Path) -> None:
    options = ("data.path=seven", "trainer.devices=2", "output=out", "data.batch_size=1", "optim.steps=60", "rep=hogb")
    process = command(tmp_path, *options)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*/parts/*.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(_ranks(process.pid)[0], signal.SIGKILL)
    status, _, err = done(process)
    assert status == 1 and "is missing, since its process died; run the same command again" in err
    (folder,) = (tmp_path / "out").iterdir()
    finished = len(load_file(folder / "reconstructions.safetensors"))
    assert 3 <= finished < 7
    status, out, err = done(command(tmp_path, *options))
    assert status == 0 and f"{finished} of 7 are finished" in out, err
    assert len(load_file(folder / "reconstructions.safetensors")) == 7


def test_no_rank_outlives_the_first_process(seven: Path, tmp_path: Path) -> None:
    process = command(tmp_path, "data.path=seven", "trainer.devices=2", "output=out", "optim.steps=100000")
    deadline = time.monotonic() + 120
    while len(ranks := _ranks(process.pid)) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    others = [*_children(process.pid), *ranks]
    process.kill()
    process.communicate()
    while any("train.py" in _command(p) for p in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ranks(pid: int) -> list[int]:
    """The ranks of a command, which its one child has forked."""
    return [rank for child in _children(pid) for rank in _children(child)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


SLURM = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("common", "each"),
    [
        (SLURM, ("SLURM_PROCID", "SLURM_LOCALID")),
        (TORCHRUN, ("RANK", "LOCAL_RANK")),
    ],
)
def test_ranks_that_a_launcher_starts(
    seven: Path, tmp_path: Path, common: dict[str, str], each: tuple[str, str]
) -> None:
    processes = [
        command(tmp_path, "data.path=seven", "output=out", **common, **dict.fromkeys(each, str(rank)))
        for rank in (1, 0)
    ]
    ends = [done(process) for process in processes]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "on 2 ranks" in ends[1][1] and "px" not in ends[0][1]
    (folder,) = (tmp_path / "out").iterdir()
    status, _, err = done(command(tmp_path, "data.path=seven", "output=alone"))
    assert status == 0, err
    (alone,) = (tmp_path / "alone").iterdir()
    assert files(folder) == files(alone)


BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}  # a batch script's
STEP = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
TORCH = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """Set what a launcher's processes see, and nothing else of a launcher."""
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in (*TORCH, *TORCHRUN)]:
        monkeypatch.delenv(name)
    return lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_variables_that_speak_of_ranks_that_nobody_started(
    job, seven: Path, environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invrep.jobs.words.ABSENCE", 0.5)
    options = (f"data.path={seven}", "trainer.accelerator=cpu", "rep=hogb")
    environment({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"})
    outcome = job(*options)
    assert outcome.status == 1 and "Rank 0 of 2 has not come within a minute" in outcome.err
    assert "unset RANK and WORLD_SIZE" in outcome.err
    assert "0.png is missing" in outcome.err and "1.png" not in outcome.err and "Traceback" not in outcome.err
    assert len(Results(outcome.folder).rows()) == 3
    environment({"RANK": "0", "LOCAL_RANK": "0"})
    outcome = job(*options)
    assert outcome.status == 1 and "rank 1 of 2 has not come within a minute, and rank 0 does its share" in outcome.out
    assert "rank 0 has done its share; where nobody has started several ranks, unset RANK and WORLD_SIZE" in outcome.err
    environment({"WORLD_SIZE": "3", "RANK": "0"})
    assert job(*options, "output=other").status == 1
    (other,) = (outcome.output.parent / "other").iterdir()
    assert len(Results(other).rows()) == len(Results(outcome.folder).rows()) == 7  # the others' shares as well
    assert not (other / "ranks").exists()
    environment({"RANK": "2"})
    assert job(*options, "output=other").status == 0  # nothing is missing
    assert (other / "ranks").exists()  # what rank 2 has said
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    assert job(*options, "output=other").status == 0 and not (other / "ranks").exists()


def test_no_rank_is_idle_by_default(job, seven: Path) -> None:
    for limit, size, said in (
        (4, "null", "2 batches of up to 2 pre-images"),
        (4, "auto", "2 batches of up to 2 pre-images"),
        (4, "4", "1 batch of up to 4 pre-images"),
        (1, "null", "1 batch of up to 1 pre-image"),
    ):
        options = (f"data.path={seven}", f"data.limit={limit}", f"data.batch_size={size}", "trainer.devices=2")
        outcome = job(*options, "trainer.accelerator=cpu", "dry_run=true")
        assert said in outcome.out and "on 2 ranks" in outcome.out, outcome.out + outcome.err


def test_ctrl_c_of_two_ranks_is_one_sentence_and_keeps_their_state(seven: Path, tmp_path: Path) -> None:
    options = ("data.path=seven", "data.limit=2", "optim.steps=100000", "checkpoint.every=20", "logger=none")
    process = command(tmp_path, *options, "trainer.devices=2", "trainer.accelerator=cpu", "output=out", usual=False)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("out/*/checkpoints/*.ckpt"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    for pid in (process.pid, *_children(process.pid), *_ranks(process.pid)):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    status, _, err = done(process)
    assert status == 130 and err.count("\n") == 1 and err.startswith("error: Interrupted"), err


def test_a_ranks_mistake_is_the_jobs_and_ctrl_c_is_not_for_a_rank_that_imports() -> None:
    def ctrl_c() -> None:
        while len(ranks := multiprocessing.active_children()) < 2:
            time.sleep(0.001)
        for rank in ranks:
            os.kill(rank.pid, signal.SIGINT)

    thread = threading.Thread(target=ctrl_c, daemon=True)
    thread.start()
    with pytest.raises(InvrepError, match="No space is left"):
        spread(full_disk, [(0,), (1,)], lambda *_: None)
    thread.join(10)
    assert not thread.is_alive()


def _tell(pipe: Connection) -> None:
    pipe.send((os.getpid(), gc.isenabled(), [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGCHLD)]))


@pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked on Linux only")
def test_a_nursery_forks_ranks_as_fresh_as_new_processes_until_it_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "_line", None)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    nursery.open_nursery(_tell, 1)
    assert nursery.fork() is None  # one device needs no ranks
    with uncollected():
        nursery.open_nursery(_tell, "auto")
    for _ in range(2):
        pipe, pid = nursery.fork()
        assert pipe.recv() == (pid, True, [signal.SIG_DFL, signal.SIG_DFL])
        with pytest.raises(EOFError):
            pipe.recv()
    nursery._line.shutdown(socket.SHUT_RDWR)
    assert nursery.fork() is None and nursery._line is None
    gc.unfreeze()


def test_rank_0_does_its_own_share_and_reads_what_it_has_finished_once(
    job, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (f"data.path={seven}", "data.batch_size=2", "trainer.accelerator=cpu", "logger=none")
    assert job(*options, "data.limit=3").status == 0
    read, shares, content = [], [], Photo.content
    monkeypatch.setattr(Photo, "content", lambda photo: read.append(photo.id) or content(photo))
    monkeypatch.setattr(
        "invrep.jobs.executors.work",
        lambda job, todo, *_: shares.append([job.photos.ids[place] for batch in todo for place in batch.places]),
    )
    monkeypatch.setattr("invrep.jobs.words.Words.gather", lambda *_: Gathered())
    monkeypatch.setattr("invrep.jobs.completion.note_gone", lambda *_: None)  # nothing was inverted
    for name, value in {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert job(*options).status == 0
    assert shares == [["4.png", "5.png"]]  # of the batches 01, 23, 45, 6 the first and third
    assert read == ["0.png", "1.png", "2.png"]


# --- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, None),
        (STEP, Rank(0, 2, 0, "7-0-")),
        (STEP | {"SLURM_RESTART_COUNT": "1"}, Rank(0, 2, 0, "7-0-1")),
        (STEP | {"SLURM_PROCID": "1", "SLURM_LOCALID": ""}, Rank(1, 2, 1, "7-0-")),
        (BATCH | {"SLURM_STEP_ID": "0"}, Rank(0, 2, 0, "7-0-")),
        (BATCH, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),  # the shell of salloc
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # sbatch within a step of srun
        (STEP | {"SLURM_PROCID": ""}, None),
        (TORCH, Rank(1, 2, 1, "none--", 2)),
        (TORCH | STEP, Rank(1, 2, 1, "none--", 2)),  # srun starts a torchrun on each node
        (TORCH | {"LOCAL_RANK": "", "GROUP_WORLD_SIZE": ""}, Rank(1, 2, 1, "none--")),
        (TORCH | {"WORLD_SIZE": "1", "RANK": "0"}, None),
        (TORCH | {"WORLD_SIZE": ""}, None),
    ],
)
def test_what_a_launcher_says(environment, values: dict[str, str], wanted: Rank | None) -> None:
    environment(values)
    assert launched() == wanted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (TORCH | {"WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
        (TORCH | {"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
        (TORCH | {"RANK": "2"}, "RANK=2 does not fit WORLD_SIZE=2: expected 0 to 1"),
        (STEP | {"SLURM_PROCID": "1.5"}, "SLURM_PROCID=1.5"),
    ],
)
def test_what_no_launcher_says(environment, job, values: dict[str, str], said: str) -> None:
    environment(values)
    outcome = job()
    assert outcome.status == 1 and said in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(("given", "wanted"), [(1, [0]), ("3", [0, 1, 2]), ([1], [1]), ("auto", [0]), (-1, [0])])
def test_devices(given: object, wanted: list[int]) -> None:
    assert local_devices(given, "cpu") == wanted


@pytest.mark.parametrize("given", [0, "two", [], [-1], True, 1.5])
def test_wrong_devices(given: object) -> None:
    with pytest.raises(InvrepError, match=r"expected a number, a list of indices or auto"):
        local_devices(given, "cpu")


@pytest.mark.parametrize("given", [10**9, "1000000000"])
def test_more_devices_than_a_machine_can_have_are_refused_at_once(given: object) -> None:
    with pytest.raises(InvrepError, match=r"trainer.devices=1000000000 is not valid: expected at most 1000"):
        local_devices(given, "cpu")


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert local_devices("auto", "gpu") == [0, 1]
    with pytest.raises(InvrepError, match=r"asks for the GPU 3, but this machine has 2"):
        local_devices([0, 3], "auto")


def test_what_a_batch_leaves_is_gone_before_the_next(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import invrep.jobs.worker

    solve, left, alive = invrep.jobs.worker.solve, [], []

    def watched(*arguments, **options):
        alive.append(sum(one() is not None for one in left))
        found = solve(*arguments, **options)
        left.append(weakref.ref(found))
        return found

    monkeypatch.setattr(invrep.jobs.worker, "solve", watched)
    assert job(f"data.path={seven}", "data.batch_size=2").status == 0
    assert len(alive) == 4 and max(alive) <= 1  # the last one, which the callbacks may still hold
