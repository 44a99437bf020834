"""Baselines as jobs: measured, found again, compared, and refused where they do not fit."""

import csv

import pytest

from invrep.reporting.comparison import compare, find_runs


def test_a_baseline_is_an_ordinary_job_without_passes(job, photos):
    outcome = job("baseline=hoggle", f"data.path={photos}", "restarts=2", "save_codes=true")
    assert outcome.status == 0, outcome.err
    assert outcome.folder.name.startswith("hog-hoggle-") and "by a baseline, without a descent" in outcome.out
    rows = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    assert len(rows) == 6 and {row["passes"] for row in rows} == {"0"}
    assert all(0.05 < float(row["error"]) < 0.7 and 0 < float(row["ssim"]) < 1 for row in rows)
    again = job("baseline=hoggle", f"data.path={photos}", "restarts=2")
    assert "6 of 6 are finished" in again.out and again.folder == outcome.folder


@pytest.mark.parametrize(
    "given",
    [
        ("step",),
        ("plain", "baseline.steps=5"),
        ("average", "baseline.restarts=2"),
        ("nearest", "baseline.path=photos"),
        ("linear", "baseline.path=others"),
    ],
)
def test_every_baseline_runs_as_a_job(job, photos, given):
    (photos / "sub").rename(photos.parent / "others")
    name, *more = given
    outcome = job(f"baseline={name}", "data.path=photos", *more)
    assert outcome.status == 0, outcome.err
    rows = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    assert len(rows) == 2 and all(0 < float(row["error"]) < 3 for row in rows)


def test_a_sweep_compares_baselines_with_the_descent(job, photos):
    outcome = job("-m", "baseline=null,hoggle,step", "data.path=photos", "data.limit=1")
    assert outcome.status == 0, outcome.err
    folders = [path for path in outcome.output.iterdir() if path.name.startswith("hog-")]
    assert len(folders) == 3 and sum(path.name.startswith("hog-hoggle-") for path in folders) == 1
    runs = find_runs([outcome.output])
    assert list(compare(runs)) == ["baseline"] and {run.point["baseline"] for run in runs} == {None, "hoggle", "step"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("baseline=hogle",), "There is no baseline=hogle; the nearest is hoggle"),
        (("baseline=hoggle", "rep=dsift"), "no paired dictionary for dsift"),
        (("baseline=hoggle", "data.color=rgb"), "add data.color=gray"),
        (("baseline=hoggle", "objective.region=5x5"), "a picture of a whole code"),
        (("baseline=step", "objective=caricature"), "a picture of a whole code"),
        (("baseline=nearest",), "give baseline.path=photos/"),
        (("baseline=nearest", "baseline.path=nowhere"), "no file or folder baseline.path=nowhere"),
        (("baseline=linear", "baseline.path=photos"), "the photos that it predicts"),
        (("baseline=plain", "baseline.steps=0"), "baseline.steps=0"),
        (("baseline=average", "baseline.restarts=0"), "baseline.restarts=0"),
    ],
)
def test_a_wrong_setting_is_one_sentence(job, photos, overrides, said):
    outcome = job(f"data.path={photos.name}", *overrides)
    assert outcome.status == 1 and said in outcome.err and outcome.err.count("\n") == 1
