"""Certificates in what is seen of finished jobs: the page's sheet, its table of means, layouts and LaTeX."""

import json
import math
import re

import pytest
from helpers.pages import error_of, made_job

from invrep.cli.report import report
from invrep.evaluation.certificate.sentences import sentences
from invrep.reporting.certificate_table import certificate_means, write_latex
from invrep.reporting.comparison import find_runs
from invrep.reporting.layouts import Cell, table

IMAGES = ["a.png", "sub/a.png"]


@pytest.fixture
def certified(tmp_path):
    """A job of two photos and two restarts, of which the last has no certificate."""
    results = made_job(tmp_path, "relu2", IMAGES)
    rows = []
    for k, (image, restart) in enumerate([("a.png", 0), ("a.png", 1), ("sub/a.png", 0)]):
        row = {"image": image, "restart": restart, "content": f"{IMAGES.index(image):016x}", "remark": ""}
        row |= {"settings": "s", "error": error_of("relu2", IMAGES.index(image), restart), "null_percentile": 3.0 * k}
        row |= {"null_photos": 99.0, "jpeg_equivalent": 60.0 + 10 * k, "shift_equivalent": 0.5}
        row |= {"noise_equivalent": 4.0, "other_class_kept/vgg16": float(k == 0), "other_class_kept/resnet18": 1.0}
        rows.append(row | {"naturalness": math.nan, "snr_db": math.inf if k == 2 else 20.0})
    results.save_certificates(rows)
    return results


def test_the_page_has_a_sheet_for_each_certified_pre_image_and_their_means(certified, tmp_path):
    report([str(certified.folder), "-o", str(tmp_path / "page.html")])
    html = (tmp_path / "page.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])
    (first, second), (third, last) = (data["jobs"][0]["cells"][str(k)]["restarts"] for k in (0, 1))
    assert first["certificate"]["sentences"][:4] == [
        "Φ confuses it with the photo as it would a JPEG of quality 60.",
        "The photo is as far from itself after a shift by 0.50 px or noise of 4.0 grey levels.",
        "No other of 99 photos comes as near.",
        "Two of two other networks keep its class.",
    ]
    assert "One of two other networks keeps its class." in second["certificate"]["sentences"]
    columns = dict(third["certificate"]["columns"])
    assert columns["JPEG quality"] == "80" and columns["null percentile"] == "6 %" and "SNR, dB" not in columns
    assert "denoiser's residual over the photo's" not in columns and "certificate" not in last
    assert "JPEG quality</button>" in html and ">70 ± 10</td>" in html.replace(".0", "")


def test_a_mean_is_over_photos_and_goes_into_latex_and_tables(certified, tmp_path):
    means = {mean.name: mean for mean in certificate_means(certified.certificates().values())}
    assert means["jpeg_equivalent"].mean == pytest.approx((65 + 80) / 2) and means["jpeg_equivalent"].n == 2
    assert means["jpeg_equivalent"].interval == (65, 80) and means["snr_db"].n == 1 and "naturalness" not in means
    write_latex(certified)
    text = (certified.folder / "certificate.tex").read_text()
    assert r"JPEG quality & 72.5 {[}65, 80] & 2 \\" in text and text.isascii()
    cell = Cell({"layer": "relu2", "restarts": 2}, certified, "done", IMAGES, 2)
    assert cell.numbers("jpeg_equivalent") == [60, 70, 80] and cell.numbers("other_class_kept/vgg16") == [1, 0, 0]
    values = {"jpeg_equivalent": "JPEG", "null_percentile": "percentile"}
    table([cell], tmp_path / "t", rows="value", columns="layer", values=values, scale=1.0)
    assert "| JPEG | 70.0 ± 10.0 |" in (tmp_path / "t.md").read_text()
    (run,) = find_runs([certified.folder])
    assert run.means["null_percentile"] == (3, 3)


def test_sentences_at_the_bounds():
    row = {"jpeg_equivalent": 1.0, "shift_equivalent": 32.0, "noise_equivalent": 256.0, "null_photos": 7.0}
    assert sentences({**row, "null_percentile": 100.0}) == [
        "Φ finds it farther from the photo than a JPEG of quality 1.",
        "7 of 7 other photos come nearer; so few photos say little (expected 20 or more).",
    ]
    row = {"jpeg_equivalent": 100.0, "shift_equivalent": 0.0, "noise_equivalent": 0.0, "null_photos": 1.0}
    assert sentences({**row, "null_percentile": 0.0, "other_percentile/vgg16": 0.0}) == [
        "Φ takes it for the photo more surely than a JPEG of quality 100.",
        "None of 1 other photo comes as near; so few photos say little (expected 20 or more).",
        "To vgg16 no other photo comes as near either.",
    ]
    assert sentences({"jpeg_equivalent": math.nan, "null_photos": 0.0, "null_percentile": math.nan}) == []
