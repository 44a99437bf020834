"""Baselines as jobs: measured, found again, compared, and refused where they do not fit."""

import csv

import pytest


def test_a_baseline_is_an_ordinary_job_without_passes(job, photos):
    outcome = job("baseline=hoggle", f"data.path={photos}", "restarts=2", "save_codes=true")
    assert outcome.status == 0, outcome.err
    assert outcome.folder.name.startswith("hog-hoggle-") and "by a baseline, without a descent" in outcome.out
    rows = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    assert len(rows) == 6 and {row["passes"] for row in rows} == {"0"}
    assert all(0.05 < float(row["error"]) < 0.7 and 0 < float(row["ssim"]) < 1 for row in rows)
    again = job("baseline=hoggle", f"data.path={photos}", "restarts=2")
    assert "6 of 6 are finished" in again.out and again.folder == outcome.folder


def test_a_sweep_compares_baselines_and_the_descent(job, photos):
    others = photos.parent / "others"
    (photos / "sub").rename(others)
    given = (f"data.path={photos}", f"baseline.path={others}")
    swept = job("-m", "baseline=null,hoggle,step,plain,average,nearest,linear", f"data.path={photos}", "data.limit=1")
    assert swept.status == 1 and swept.err.count("give baseline.path=photos/") == 2
    folders = {path.name.split("-")[1] for path in swept.output.iterdir() if path.name.startswith("hog-")}
    assert {"hoggle", "step", "plain", "average"} < folders and len(folders) == 5
    for name in ("nearest", "linear"):
        outcome = job(f"baseline={name}", *given)
        assert outcome.status == 0, outcome.err


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
