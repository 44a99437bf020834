"""Every experiment in miniature, and what becomes of jobs that fail."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from invrep.config import FOLDER
from invrep.sweep import swept

EXPERIMENTS = sorted(
    path.relative_to(FOLDER / "experiment").with_suffix("").as_posix()
    for path in (FOLDER / "experiment").rglob("*.yaml")
    if path.parent.name != "base"
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_in_miniature_and_is_laid_out(job, photos, name):
    where = () if name in ("ijcv16/classes", "ijcv16/filters") else (f"data.path={photos}",)
    outcome = job(f"experiment={name}", "quick=true", *where, "logger=none", "output=out", defaults=False)
    assert outcome.status == 0, outcome.err
    folder = outcome.output / "experiments" / name
    jobs = swept(folder)
    assert jobs and {one.status for one in jobs} == {"done"}
    laid_out = [Path(line.removeprefix("laid out: ")) for line in outcome.out.splitlines() if "laid out" in line]
    assert laid_out
    for path in laid_out:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 5
        elif path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        elif path.suffix == ".csv":
            lines = list(csv.DictReader(path.open(encoding="utf-8")))
            assert lines and all(line["status"] == "done" for line in lines)
