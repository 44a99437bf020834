"""The folder of a job: whole or not at all, each row once, and no damage that is silent."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import invrep.results.table
from invrep.data.batching import Keys
from invrep.errors import InvrepError
from invrep.reporting.layouts.cells import Cell
from invrep.results.exports import export
from invrep.results.rows import Finished, decoded, encoded
from invrep.results.store import Results

IMAGES = ["b.png", "a/x.png", "100%.png", "%25.png", "%FF.png", os.fsdecode(b"\xff.png"), "猫.png", 'a b\n,".png']


def one(image: str, restart: int = 0, content: str = "ab", value: float = 0.5, **more: object) -> Finished:
    row = {"image": image, "restart": restart, "content": content, "error": value, "pairwise_error": math.nan}
    row |= {"distance": value, "passes": 4, "seconds": 1.0, **more}
    curve = [(0, {"error": 1.0, "energy": 2.0}), (4, {"error": value, "energy": value})]
    return Finished(row, curve, torch.full((1, 4, 5), value))


def save(results: Results, *found: Finished) -> None:
    for pre_image in found:
        results.save(pre_image, "clip")


def filled(folder: Path, count: int = 4, *, compact: bool = True) -> Results:
    results = Results(folder)
    for k in range(count):
        results.save(one(f"{k}.png", value=k / 8), "clip")
    if compact:
        results.compact(math.nan, [])
        export(results)
    return results


class TestRows:
    def test_come_back_as_they_went_in_by_any_name(self, tmp_path):
        results = Results(tmp_path / "[x]*" / "error=1" / "job")
        save(results, *(one(image, value=k / 16) for k, image in enumerate(IMAGES)))
        for _ in range(2):
            rows = Results(results.folder).rows()
            assert {key[0] for key in rows} == set(IMAGES) == {image for image, _ in results.pixels()}
            for k, image in enumerate(IMAGES):
                assert rows[image, 0]["error"] == k / 16 and rows[image, 0]["image"] == image
                assert float(results.pixels([(image, 0)])[image, 0][0, 0, 0]) == k / 16
            results.compact(math.nan, [])
            export(results)
        done = results.done()
        assert all((image, 0) in done and done.of((image, 0), "ab") for image in IMAGES)
        assert ("c", 0) not in done and not done.of(("b.png", 0), "ac") and ("b.png", 1) not in done
        assert len(load_file(results.reconstructions)) == len(IMAGES)
        with results.metrics.open(newline="", encoding="utf-8") as file:
            names = [row["image"] for row in csv.DictReader(file)]
        assert sorted(names) == sorted(name if name.isprintable() or "\n" in name else "%FF.png" for name in IMAGES)

    @pytest.mark.parametrize("image", [*IMAGES, "", "%", "%%41", os.fsdecode(b"%\xc3(\xa0")])
    def test_names_are_encoded_reversibly(self, image):
        assert decoded(encoded(image)) == image
        encoded(image).encode()

    def test_have_columns_of_their_own_and_blanks(self, tmp_path):
        results = Results(tmp_path)
        results.save(one("a", value=math.inf), "clip")
        save(results, one("b", remark="why", class_kept=1), one("c", **{"class": "cat"}))
        for _ in range(2):
            rows = results.rows()
            assert [rows[key, 0]["remark"] for key in "abc"] == ["", "why", ""]
            assert rows["c", 0]["class"] == "cat" and rows["b", 0]["class_kept"] == 1 and rows["a", 0]["passes"] == 4
            assert math.isnan(rows["a", 0]["class_kept"]) and math.isnan(rows["a", 0]["psnr"])
            assert rows["a", 0]["error"] == math.inf
            results.compact(math.nan, [])
        export(results)
        with results.metrics.open(newline="") as file:
            assert [row["class_kept"] for row in csv.DictReader(file)] == ["", "1", ""]

    def test_that_are_done_anew_take_the_place_of_the_old(self, tmp_path):
        results = Results(tmp_path)
        save(results, one("a", content="1"), one("b"))
        results.compact(math.nan, [])
        results.save(one("a", content="2", value=0.25), "clip")
        results.save(one("a", content="3", value=0.125), "clip")
        for _ in range(2):
            rows = results.rows()
            assert list(rows) == [("a", 0), ("b", 0)] and rows["a", 0]["content"] == "3"
            assert results.done().of(("a", 0), "3") and not results.done().of(("a", 0), "1")
            found = {"pass": [0, 4], "error": [1.0, 0.125], "energy": [2.0, 0.125]}
            assert results.curve_points([("a", 0)]) == {("a", 0): found}
            assert results.curve_points([("a", 0)], ["pass", "none"]) == {("a", 0): {"pass": [0, 4]}}
            assert results.mean_curves()[-1] == (4, {"error": 0.3125, "energy": 0.3125})
            results.compact(math.nan, [])
        assert len(results.table.files()) == 1

    def test_are_chosen_by_image_and_restart(self, tmp_path):
        results = Results(tmp_path)
        save(results, *(one(image, restart, value=restart / 2) for image in "abc" for restart in range(3)))
        assert list(results.rows(Keys({"a", "c", "z"}, 2))) == [("a", 0), ("a", 1), ("c", 0), ("c", 1)]
        assert list(results.rows([("b", 2), ("z", 0)])) == [("b", 2)]
        assert results.mean_curves([("b", 2), ("b", 1)])[-1][1]["error"] == 0.75
        assert results.curve_points([("z", 0)]) == {("z", 0): {}} and results.rows([]) == {}

    def test_mean_curves_hold_the_last_value_of_a_descent_that_ended_early(self, tmp_path):
        results, early = Results(tmp_path), one("early", value=0.25)
        early.curve.insert(1, (2, {"error": 0.5, "energy": 1.0}))
        late = one("late")
        late.curve[1:] = [(3, {"error": 0.75, "energy": math.nan}), (8, {"error": 0.25, "energy": 0.0})]
        save(results, early, late, one("without", remark="why"))
        errors = [(at, values["error"]) for at, values in results.mean_curves()]
        assert errors == [(0, 1.0), (2, 0.75), (3, 0.625), (4, 0.5), (8, 0.25)]
        assert results.mean_curves()[-1][1]["energy"] == 0.125 and results.mean_curves()[-2][1]["energy"] == 0.25

    def test_pairwise_errors_are_of_the_jobs_own_images(self, tmp_path):
        results = Results(tmp_path)
        save(results, *(one(image, value=0.5) for image in "abc"))
        results.compact(2.0, ["a", "b"])
        errors = [row["pairwise_error"] for row in results.rows().values()]
        assert errors[:2] == [0.25, 0.25] and math.isnan(errors[2])

    def test_are_files_of_bounded_size_in_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(invrep.results.table, "MOST_BYTES", 10_000)
        monkeypatch.setattr(invrep.results.table, "MOST_PARTS", 5)
        results = Results(tmp_path)
        keys = [(f"{k:02}", r) for k in range(12) for r in range(2)]
        for image, restart in reversed(keys):
            results.save(one(image, restart), "clip")
        assert 5 <= len(results.table.files()) < 10  # a process brings its own parts together
        assert list(results.rows()) == keys
        results.compact(math.nan, [])
        export(results)
        assert len(results.table.files()) > 3 and results.table.settled() and list(results.rows()) == keys
        with results.curves.open() as file:
            assert [(p["image"], int(p["restart"]), p["pass"]) for p in csv.DictReader(file)] == [
                (*key, at) for key in keys for at in "04"
            ]


def add(folder: Path, number: int) -> None:
    invrep.results.table.MOST_PARTS = 3
    results = Results(folder)
    for k in range(20):
        results.save(one(f"{number}-{k}"), "clip")


class TestProcesses:
    def test_write_at_once(self, tmp_path):
        context = multiprocessing.get_context("forkserver")
        processes = [context.Process(target=add, args=(tmp_path, number)) for number in range(3)]
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            Results(tmp_path).rows()  # beside parts that come and go
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert len(Results(tmp_path).rows()) == 60 == len(Results(tmp_path).pixels())

    def test_late_one_loses_nothing_to_a_compaction(self, tmp_path, monkeypatch):
        first, late = Results(tmp_path), Results(tmp_path)
        first.save(one("a"), "clip")
        save = invrep.results.table.Table._save

        def slow(table, *arguments):
            monkeypatch.setattr(invrep.results.table.Table, "_save", save)
            late.save(one("b"), "clip")
            return save(table, *arguments)

        monkeypatch.setattr(invrep.results.table.Table, "_save", slow)
        first.compact(math.nan, [])
        assert list(first.rows()) == [("a", 0), ("b", 0)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("settled", [True, False])
def test_killed_at_every_step_of_the_compaction(tmp_path, monkeypatch, settled):
    monkeypatch.setattr(invrep.results.table, "MOST_BYTES", 12_000)
    whole = filled(tmp_path / "whole", 6, compact=settled)
    steps = 0

    def counted(act):
        def step(*arguments, **options):
            nonlocal steps
            steps += 1
            if steps == ends_at:
                raise Killed
            return act(*arguments, **options)

        return step

    for ends_at in range(1, 100):
        folder = tmp_path / f"{ends_at}"
        shutil.copytree(whole.folder, folder)
        steps = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", counted(os.fsync))
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(Path, "unlink", lambda path, **_: counted(os.unlink)(path) if path.exists() else None)
            try:
                Results(folder).compact(0.5, [f"{k}.png" for k in range(6)])
            except Killed:
                pass
            else:
                break
        results = Results(folder)
        assert len(results.rows()) == 6 and [row["error"] for row in results.rows().values()] == [
            k / 8 for k in range(6)
        ]
        results.compact(0.5, [f"{k}.png" for k in range(6)])
        assert results.table.settled() and not list(folder.rglob("*.tmp"))
        assert [row["pairwise_error"] for row in results.rows().values()] == [k / 4 for k in range(6)]
    assert ends_at > 6


class TestDamage:
    @pytest.mark.parametrize("settled", [True, False])
    @pytest.mark.parametrize("kind", ["cut", "empty", "a bit", "bytes", "renamed", "foreign"])
    def test_of_a_table_names_the_file_and_loses_nothing_else(self, tmp_path, kind, settled):
        filled(tmp_path, 4, compact=settled)
        path = Results(tmp_path).table.files()[0]
        data = path.read_bytes()
        middle = len(data) // 2
        damage = {
            "cut": lambda: path.write_bytes(data[:-20]),
            "empty": lambda: path.write_bytes(b""),
            "a bit": lambda: path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
            "bytes": lambda: path.write_bytes(bytes(range(256))),
            "renamed": lambda: path.rename(path.with_name("a.parquet")),
            "foreign": lambda: path.with_name("000009-x-.parquet").write_bytes(b"x"),
        }[kind]
        damage()
        for act in (Results.rows, Results.done, Results.mean_curves):
            with pytest.raises(
                InvrepError, match=r"table/\S+\.parquet is not as it was written .*; remove it"
            ) as error:
                act(Results(tmp_path))
        named = Path(str(error.value).partition(" is not")[0])
        named.unlink()
        lost = {"foreign": 0}.get(kind, 4 if settled else 1)
        assert len(Results(tmp_path).rows()) == 4 - lost

    def test_of_a_table_is_what_its_job_failed_of(self, tmp_path):
        results = filled(tmp_path, 2)
        min(results.table.files()).write_bytes(b"")
        cell = Cell({}, Results(tmp_path), "failed", ["0.png"], 1)
        assert cell.rows() == {} and cell.numbers("error") == []
        with pytest.raises(InvrepError, match="is not as it was written"):
            Cell({}, Results(tmp_path), "done", ["0.png"], 1).rows()

    def test_of_pixels(self, tmp_path):
        results = filled(tmp_path)
        path = results.part("1.png", 0)
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(InvrepError, match=r"parts/1\.png\.0\.safetensors is not as it was written"):
            results.pixels()
        path.unlink()
        done = results.done()
        assert [(f"{k}.png", 0) in done for k in range(4)] == [True, False, True, True]
        with pytest.raises(InvrepError, match=r"1\.png\.0\.safetensors is missing; run the same command again"):
            results.pixels([("1.png", 0)])

    def test_none_comes_of_more_files_than_a_process_may_map(self, tmp_path):
        results = filled(tmp_path, 3)
        pixels = results.pixels()
        assert str(tmp_path) not in Path("/proc/self/maps").read_text() and len(pixels) == 3

    def test_of_an_export_harms_nobody(self, tmp_path):
        results = filled(tmp_path)
        exports = (results.metrics, results.curves, results.reconstructions)
        before = [path.read_bytes() for path in exports]
        rows = repr(results.rows())
        results.metrics.write_bytes(before[0][:50])
        results.curves.unlink()
        results.reconstructions.write_bytes(b"")
        assert repr(Results(tmp_path).rows()) == rows
        export(Results(tmp_path))
        assert [path.read_bytes() for path in exports] == before


class TestFormat:
    @pytest.mark.parametrize("content", [None, "1", "3", "", "two \x1b[2J"])
    def test_another_one_is_one_sentence(self, tmp_path, content):
        results = filled(tmp_path)
        results.format.unlink()
        if content is not None:
            results.format.write_text(content)
        for act in (Results.done, Results.rows, Results.spreads, lambda new: new.save(one("z"), "clip")):
            with pytest.raises(
                InvrepError, match=r"holds results of format .*remove that folder, or choose another one"
            ):
                act(Results(tmp_path))

    def test_a_folder_that_holds_nothing_yet_has_none(self, tmp_path):
        assert not Results(tmp_path).done() and not Results(tmp_path / "no").rows()
        assert Results(tmp_path).mean_curves() == [] and Results(tmp_path).curve_points([("a", 0)]) == {("a", 0): {}}
        with Results(tmp_path).held():
            assert (tmp_path / "format").read_text() == "2\n"


def test_a_folder_that_goes_while_it_is_written_to_is_noticed(tmp_path):
    results = filled(tmp_path / "job", 2, compact=False)
    shutil.rmtree(results.folder)
    with pytest.raises(InvrepError, match="was removed while this job was at work in it; run the same command again"):
        results.save(one("z"), "clip")
    assert not results.folder.exists()
