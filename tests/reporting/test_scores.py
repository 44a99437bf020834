"""A benchmark's table, recomputed by hand from jobs whose errors are known."""

import csv
import statistics

import pytest
from helpers.pages import IMAGES, error_of, made_job

from invrep.evaluation.intervals import bootstrap_interval
from invrep.reporting.layouts import Cell, scores


def test_means_are_over_photos_with_intervals_and_what_failed_is_counted(tmp_path):
    results = made_job(tmp_path, "relu2", IMAGES[:3], restarts=2)
    row = {
        "restart": 0,
        "null_percentile": 5.0,
        "naturalness": float("nan"),
        "content": "",
        "settings": "",
        "remark": "",
    }
    results.save_certificates([{**row, "image": image} for image in IMAGES[:2]])
    cells = [
        Cell({"rep": "net", "method": "ours"}, results, "done", IMAGES, 2),  # the fourth photo failed
        Cell({"rep": "net", "method": "theirs"}, None, "failed", IMAGES, 2),
    ]
    values = {"error": "error", "null_percentile": "null", "naturalness": "residual", "spread_ssim": "spread"}
    labels = {"method": {"ours": "ours, the best"}}
    paths = scores(cells, tmp_path / "scores", rows="rep", columns="method", values=values, labels=labels)
    assert [path.suffix for path in paths] == [".csv", ".md", ".tex"]
    lines = {(line["method"], line["value"]): line for line in csv.DictReader(paths[0].open(encoding="utf-8"))}
    photos = [statistics.fmean(error_of("relu2", k, restart) for restart in (0, 1)) for k in range(3)]
    error = lines["ours", "error"]
    found = [float(error[name]) for name in ("mean", "low", "high")]
    assert found == pytest.approx([statistics.fmean(photos), *bootstrap_interval(photos)], rel=1e-5)
    assert (error["n"], lines["ours", "null_percentile"]["n"], lines["ours", "spread_ssim"]["n"]) == ("3", "2", "3")
    assert float(lines["ours", "failure_rate"]["mean"]) == 0.25 and lines["theirs", "failure_rate"]["mean"] == "1"
    assert lines["theirs", "error"]["status"] == "failed"
    head, _, *body = paths[1].read_text(encoding="utf-8").splitlines()
    assert head == "|  | ours, the best | theirs |"
    names = [line.split(" | ")[0].removeprefix("| net: ") for line in body if line.startswith("|")]
    assert names == ["error", "null", "spread", "failed", "n"]  # no residual
    assert (
        body[0].startswith("| net: error | 6.3 % [") and body[0].endswith("] |  |") and body[4] == "| net: n | 3 | 0 |"
    )
    assert body[3].endswith("| 100 % [100 %, 100 %] |")
