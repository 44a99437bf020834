"""What a job takes is planned, what is free is known, and memory that runs out costs no finished descent."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from PIL import Image

import invrep.inversion.measures
import invrep.inversion.module
import invrep.jobs.completion
import invrep.jobs.memory
import invrep.jobs.plan
import invrep.jobs.worker
from invrep.data.batching import Batch, split
from invrep.errors import out_of_memory
from invrep.jobs.memory import Line, Need, Peak, room
from invrep.results.store import Results

pytestmark = pytest.mark.rehearsed
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to …"


def finished(outcome) -> list[tuple[str, int]]:
    return sorted(Results(outcome.folder).rows())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(ALLOCATOR),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("could not execute a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_every_library_says_in_its_own_words_that_memory_has_run_out(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not out_of_memory(error)


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried to allocate 2.00 GiB", "could not create a primitive"])
def test_memory_that_runs_out_halves_the_batch(job, seven: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solve, sizes, held = invrep.jobs.worker.solve, [], []

    def scarce(photos, rows, **options):
        gc.collect()
        assert not any(one() is not None for one in held), "the batch that failed is still in memory"
        sizes.append(len(rows))
        taken = torch.zeros(9)
        if len(rows) > 2:
            held.append(weakref.ref(taken))
            raise RuntimeError(words)
        return solve(photos, rows, **options)

    monkeypatch.setattr(invrep.jobs.worker, "solve", scarce)
    outcome = job(f"data.path={seven}", "data.batch_size=auto")
    assert outcome.status == 0 and sizes == [7, 3, 1, 2, 4, 2, 2], (sizes, outcome.err)
    assert len(finished(outcome)) == 7


def test_a_photo_that_does_not_fit_alone_is_named_and_the_others_are_kept(
    job, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = invrep.jobs.worker.solve

    def scarce(photos, rows, **options):
        if any(image == "3.png" for _, image, _ in rows):
            raise RuntimeError("could not create a primitive")
        return solve(photos, rows, **options)

    monkeypatch.setattr(invrep.jobs.worker, "solve", scarce)
    outcome = job(f"data.path={seven}", "data.batch_size=4")
    assert outcome.status == 1 and len(finished(outcome)) == 6
    assert "3.png does not fit into memory (could not create a primitive)" in outcome.err


def test_a_photo_that_cannot_be_decoded_for_lack_of_memory_is_named(
    job, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import invrep.jobs.job

    read = invrep.jobs.job.read

    def scarce(file, **options):
        if options["name"].endswith("3.png"):
            raise RuntimeError(ALLOCATOR)
        return read(file, **options)

    monkeypatch.setattr(invrep.jobs.job, "read", scarce)
    outcome = job(f"data.path={seven}", "data.batch_size=4")
    assert outcome.status == 1 and len(finished(outcome)) == 6
    assert "3.png does not fit into memory; make it smaller" in outcome.err


def _runs_out(*_: object, **__: object) -> None:
    raise RuntimeError(ALLOCATOR)


@pytest.mark.parametrize(
    ("place", "name", "blank"),
    [
        (invrep.inversion.measures, "ssim", {"ssim"}),
        (invrep.inversion.measures, "psnr", {"psnr"}),
        ("objective", "measures", {"root_error", "distance", "code_norm", "pairwise_error"}),
        ("classifier", "__call__", set()),
    ],
)
def test_a_measure_for_which_there_is_no_memory_is_blank_and_the_descent_kept(
    job, seven: Path, place: object, name: str, blank: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from invrep.evaluation.top1_class import Classifier
    from invrep.objectives.match import Match

    place = {"objective": Match, "classifier": Classifier}.get(place, place) if isinstance(place, str) else place
    whole = job(f"data.path={seven}", "output=whole")
    monkeypatch.setattr(place, name, _runs_out)
    outcome = job(f"data.path={seven}")
    assert outcome.status == 0, outcome.err
    assert "Memory has run out after the last pass" in outcome.out + outcome.err
    rows = Results(outcome.folder).rows()
    exact = Results(next((outcome.output.parent / "whole").glob("hog-*"))).rows()
    assert rows.keys() == exact.keys() and whole.status == 0
    for key, row in rows.items():
        assert {n for n, v in row.items() if v != v} - {n for n, v in exact[key].items() if v != v} == blank
        assert row["error"] == pytest.approx(exact[key]["error"], rel=1e-5)


def test_the_final_energy_is_found_image_by_image_where_memory_is_short(
    job, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = invrep.inversion.module.Inversion.forward

    def scarce(self, *, jitter: bool = False):
        if not jitter and self._rows is None:
            raise RuntimeError(ALLOCATOR)
        return forward(self, jitter=jitter)

    exact = job(f"data.path={seven}", "output=whole")
    monkeypatch.setattr(invrep.inversion.module.Inversion, "forward", scarce)
    outcome = job(f"data.path={seven}")
    assert (exact.status, outcome.status) == (0, 0), outcome.err
    wanted = Results(next((outcome.output.parent / "whole").glob("hog-*"))).rows()
    for key, row in Results(outcome.folder).rows().items():
        assert row["energy"] == pytest.approx(wanted[key]["energy"], rel=1e-5)


def test_memory_that_runs_out_anywhere_else_is_one_sentence(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.completion, "finish", _runs_out)
    outcome = job(f"data.path={seven}")
    assert outcome.status == 1 and "Memory has run out" in outcome.err and "Traceback" not in outcome.err


def test_a_batch_larger_than_memory_is_warned_of(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "warning" not in job(f"data.path={seven}", "dry_run=true").out
    monkeypatch.setattr(invrep.jobs.plan, "room", lambda accelerator, ranks: 1000)
    assert "of which 0 MB are free" in job(f"data.path={seven}", "dry_run=true").out


def test_a_plan_that_cannot_know_says_so(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.memory, "solve", _runs_out)
    outcome = job(f"data.path={seven}", "data.batch_size=auto", "dry_run=true")
    assert outcome.status == 0 and "an unknown amount of memory" in outcome.out


def test_tensors_are_followed_in_both_directions_and_until_they_are_gone() -> None:
    layer = torch.nn.Linear(1000, 500, bias=False).requires_grad_(False)
    images = torch.rand(8, 1000, requires_grad=True)
    with Peak(torch.device("cpu")) as peak:
        hidden = layer(images)  # 500 values each; the weights were there before
        assert peak.kept == [0, 4 * 8 * 500]
        hidden.square().sum().backward()
        assert peak.kept[1] >= 4 * 8 * (500 + 1000)
        bounds = peak.bounds
        del hidden
        images.grad = None
    assert peak.kept[1] < 4 * 8 * 10
    assert all(k * 4 * 8 * 2000 <= most < k * 4 * 8 * 3100 for k, most in zip(peak.factors, bounds, strict=True))


def test_blocks_that_the_system_gives_by_themselves_waste_nothing() -> None:
    with Peak(torch.device("cpu"), larger=2**10) as peak:
        kept = torch.zeros(2**15)
    assert peak.bounds == [kept.nbytes, kept.nbytes] == [2**17, 2**17]


def test_the_heap_grows_with_the_passes() -> None:
    device = torch.device("cpu")
    first, later, last = (Peak(device, passes=passes).factors for passes in (1, 100, 10_000))
    assert first[0] == later[0] == last[0] < first[1] < later[1] < last[1] < 6


def test_a_plan_is_a_number_where_that_is_near_whatever_the_heap_does_and_else_a_range() -> None:
    near = Need(Line(10 * 2**20, 2**20), Line(10 * 2**20, 1.5 * 2**20))
    assert near.words(1) == "about 11 MB"
    assert near.words(1000) == "about 1.2 GB"
    far = Need(Line(10 * 2**20, 2**20), Line(10 * 2**20, 2 * 2**20))
    assert far.words(100) == "110 MB (at first) to 210 MB (after many passes)"
    assert far.fit(30 * 2**20) == 10  # for sure


def plan(job, monkeypatch: pytest.MonkeyPatch, *options: str) -> Line:
    """Return the most that a job needs, as a dry run finds it out."""
    found, need = [], invrep.jobs.memory.need

    def watched(*arguments):
        found.append(need(*arguments))
        return found[-1]

    with monkeypatch.context() as patch:
        patch.setattr(invrep.jobs.plan, "need", watched)
        outcome = job(*options, "dry_run=true")
    assert outcome.status == 0, outcome.err
    return found[-1].most


def test_the_plan_grows_with_what_the_job_is(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def each(*options: str) -> float:
        return plan(job, monkeypatch, f"data.path={seven}", *options).each

    base = each("optim.steps=9")
    image = 4 * 24 * 16
    assert 1.7 < each("dtype=float64", "optim.steps=9") / base < 2.3
    assert (
        each("optim.name=LBFGS", "optim.options=null", "data.limit=1", "optim.steps=9", "optim.schedule=constant")
        > base + 12 * image
    )
    assert each("video=gif", "optim.steps=100", "log_every=1") > base + 100 * image / 2
    assert each("data.batch_size=2", "optim.steps=9") > base  # what is read ahead and written behind


def test_a_large_photo_is_planned_from_a_smaller_one(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.effect_noise((300, 200), 50).save(tmp_path / "large.png")
    exact = plan(job, monkeypatch, "data.path=large.png")
    monkeypatch.setattr(invrep.jobs.memory, "SMALL", 100 * 150)
    told = plan(job, monkeypatch, "data.path=large.png")
    assert 0.8 < told.each / exact.each < 1.2


def _file(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.memory, "ROOT", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8_000_000 * 1024))
    assert room("cpu") == 8_000_000 * 1024
    group, base = ("0::/pod/job", "sys/fs/cgroup") if version == 2 else ("4:memory:/pod/job", "sys/fs/cgroup/memory")
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    _file(tmp_path, "proc/self/cgroup", f"8:pids:/pod/job\n{group}\n")
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    for below, most, used, cached in (("pod/job", unlimited, 10, 5), ("pod", "2000000000", 600_000_000, 100_000_000)):
        _file(tmp_path, f"{base}/{below}/memory.{names[0]}", most)
        _file(tmp_path, f"{base}/{below}/memory.{names[1]}", str(used))
        word = "inactive_file" if version == 2 else "total_inactive_file"
        _file(tmp_path, f"{base}/{below}/memory.stat", f"anon 1\n{word} {cached}\n")
    assert room("cpu") == 1_500_000_000
    assert room("cpu", ranks=4) == 375_000_000


def test_a_shells_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.memory, "ROOT", tmp_path)
    limits = {psutil.RLIMIT_AS: 5_000_000, psutil.RLIMIT_DATA: psutil.RLIM_INFINITY}
    monkeypatch.setattr(psutil.Process, "rlimit", lambda _, which: (limits[which], psutil.RLIM_INFINITY))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(vms=1000 * 1024, data=10 * 1024))
    assert room("cpu") == 5_000_000 - 1000 * 1024
    assert room("cpu", ranks=4) == 5_000_000 - 1000 * 1024  # each process has its own


def test_ranks_that_share_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (6000, 9000))
    assert [room("auto", ranks) for ranks in (1, 2, 3)] == [6000, 6000, 3000]


@pytest.mark.parametrize(
    ("launch", "options", "ranks"),
    [
        ({}, (), 1),
        ({}, ("trainer.devices=3",), 3),
        ({"RANK": "0", "WORLD_SIZE": "5", "LOCAL_RANK": "0", "GROUP_WORLD_SIZE": "2"}, (), 3),
    ],
)
def test_ranks_of_a_machine_share_its_memory(
    job, seven: Path, launch: dict[str, str], options: tuple[str, ...], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(invrep.jobs.plan, "room", lambda accelerator, ranks: asked.append(ranks) or 2**40)
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    outcome = job(f"data.path={seven}", "data.batch_size=auto", "dry_run=true", "trainer.accelerator=cpu", *options)
    assert outcome.status == 0 and set(asked) == {ranks}, outcome.err


def test_automatic_batches_fit_for_sure(job, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.memory, "PROCESS", 0)
    monkeypatch.setattr(invrep.jobs.memory, "MAPPED", 2**15)  # a few pre-images lie in the heap, 64 do not
    each = plan(job, monkeypatch, f"data.path={seven}", "data.limit=1").each
    monkeypatch.setattr(invrep.jobs.plan, "room", lambda accelerator, ranks: 5 * each)
    outcome = job(f"data.path={seven}", "data.batch_size=auto", "dry_run=true")
    assert outcome.status == 0 and re.search("of up to [2345] pre-images", outcome.out), outcome.out
    assert "warning" not in outcome.out


def test_parts_of_a_batch_are_about_equal_and_lose_nothing() -> None:
    batch = Batch((8, 8), 10, range(20, 40))
    parts = list(split(batch, 7))
    assert [len(part.rows) for part in parts] == [6, 7, 7] and [r for part in parts for r in part.rows] == [*batch.rows]
    assert list(split(batch, 20)) == [batch]


@pytest.mark.parametrize("batch_size", ["auto", "2"])
def test_more_restarts_than_a_batch_holds_are_divided(
    job, seven: Path, batch_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, sizes = invrep.jobs.worker.solve, []
    monkeypatch.setattr(invrep.jobs.plan, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(
        invrep.jobs.worker, "solve", lambda p, rows, **o: sizes.append(len(rows)) or solve(p, rows, **o)
    )
    options = (f"data.path={seven}", "data.limit=2", f"data.batch_size={batch_size}")
    outcome = job(*options, "restarts=3")
    assert outcome.status == 0 and max(sizes) == 2 and sum(sizes) == 6
    assert finished(outcome) == [(f"{k}.png", r) for k in range(2) for r in range(3)]
    sizes.clear()
    assert "6 of 10 are finished" in job(*options, "restarts=5").out
    assert sum(sizes) == 4


def test_restarts_without_end_are_refused_at_once(job, seven: Path) -> None:
    outcome = job(f"data.path={seven}", "restarts=1000000000", "dry_run=true")
    assert outcome.status == 1 and "restarts=1000000000 is not valid" in outcome.err and "at most 1000" in outcome.err
