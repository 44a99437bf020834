"""invrep compare: two jobs or sweeps, photo by photo, recomputed by hand from errors that are known."""

import csv
import statistics

import pytest
from helpers.pages import IMAGES, error_of, made_job, made_sweep
from helpers.pdflatex import typeset

from invrep.cli.compare import compare
from invrep.results.store import Results


def _certify(results: Results, images: list[str], percentile: float, null: float = 40) -> None:
    row = {
        "restart": 0,
        "null_percentile": percentile,
        "null_photos": null,
        "content": "",
        "settings": "",
        "remark": "",
    }
    results.save_certificates([{**row, "image": image} for image in images])


def _lines(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


@pytest.fixture
def said(capsys, monkeypatch):
    """Return what a comparison prints, without its line breaks; and its exit status."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words) -> tuple[str, int]:
        status = 0
        try:
            compare([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        return " ".join("".join(capsys.readouterr()).split()), status

    return run


def test_two_jobs_are_compared_on_the_photos_of_both_after_restarts_are_averaged(tmp_path, said):
    first = made_job(tmp_path, "relu2", IMAGES, restarts=2)
    second = made_job(tmp_path, "relu2", [*IMAGES[:3], "e.png"], restarts=1, weight=10.0)
    _certify(first, IMAGES, 5.0)
    _certify(second, IMAGES[:3], 5.0, null=99)
    table = tmp_path / "table.csv"
    text, status = said(first.folder, second.folder, "-o", table)
    assert status == 0, text
    lines = {line["measure"]: line for line in _lines(table)}
    a = [statistics.fmean(error_of("relu2", k, restart) for restart in (0, 1)) for k in range(3)]
    b = [2 * error_of("relu2", k, 0) for k in range(3)]
    error = lines["error"]
    for name, value in (("a", a), ("b", b), ("difference", [x - y for x, y in zip(a, b, strict=True)])):
        assert float(error[name]) == pytest.approx(statistics.fmean(value), rel=1e-5)
    assert float(error["low"]) < float(error["difference"]) < float(error["high"]) < 0
    assert (error["a_better"], error["b_better"], error["win_rate"], error["n"]) == ("3", "0", "1", "3")
    assert float(error["p"]) == pytest.approx(2 / 8)  # of all ways to exchange three pairs
    assert (lines["ssim"]["difference"], lines["ssim"]["a_better"], lines["ssim"]["p"]) == ("0", "0", "1")
    assert lines["null_percentile"]["n"] == "3" and "spread_ssim" not in lines  # the second has no restarts
    assert "Code errors are not equal: A 6.3 %, B 12 %; on 0 of 3 photos they agree within 10 %." in text
    assert "Left out: 1 photo of A only and 1 photo of B only." in text
    assert "λ_V 5 against 10" in text and "among 40 other photos in A and 99 in B" in text
    text, status = said(first.folder, second.folder, "--at-equal-error")
    assert status == 1 and text.startswith(
        "error: No photo is left to compare on: Code errors agree within 10 % on no photo:"
    )


def test_at_equal_error_only_photos_whose_errors_agree_count(tmp_path, said):
    first = made_job(tmp_path, "relu2", IMAGES, restarts=1)
    second = made_job(tmp_path, "relu2", IMAGES[::-1], restarts=1, weight=5.2)
    third = made_job(tmp_path, "relu2", IMAGES, restarts=1, weight=5.2, rep="other")
    text, status = said(first.folder, third.folder, "--at-equal-error", "--test", "sign", "-o", tmp_path / "a.tex")
    assert status == 0 and "on 4 of 4 photos, whose errors agree" in text
    assert "A and B match different codes (rep), and their errors are not of one code." in text
    written = (tmp_path / "a.tex").read_text(encoding="ascii")
    assert "sign test" in written and typeset(written, tmp_path) == ""
    text, _ = said(first.folder, third.folder)
    assert "Code errors are equal: A 7.5 %, B 7.8 %" in text
    text, status = said(first.folder, second.folder)  # of the same names, but of other files
    assert status == 1 and "have no photo in common; compare jobs of the same data.path." in text


def test_jobs_of_two_sweeps_are_paired_by_their_swept_values(tmp_path, said):
    first = made_sweep(tmp_path / "one", ["relu1", "relu2", "relu3"], IMAGES)
    second = made_sweep(tmp_path / "two", ["relu3", "relu2"], IMAGES)
    table = tmp_path / "table.csv"
    text, status = said(first, second, "-o", table)
    assert status == 0, text
    lines = [line for line in _lines(table) if line["measure"] == "error"]
    assert [line["layer"] for line in lines] == ["relu2", "relu3"] and {line["difference"] for line in lines} == {"0"}
    assert "layer relu1 is a job of A only" in text and "layer relu2: Code errors are equal" in text
    assert "layer fc9 has no pre-image in one of both" in text


def test_what_cannot_be_compared_is_a_sentence(tmp_path, said):
    single = made_job(tmp_path / "single", "relu2", IMAGES[:1], restarts=1)
    sweep = made_sweep(tmp_path, ["relu1", "relu2"], IMAGES[:1])
    other = made_sweep(tmp_path / "other", ["relu2"], IMAGES[:1], weights=(5.0, 7.0))
    for words, sentence in (
        ((single.folder, single.folder), "is given twice"),
        ((single.folder, tmp_path / "none"), "There is no folder"),
        ((single.folder, sweep), "give two jobs, or two sweeps over equal keys"),
        ((sweep, other), "varies layer, and"),
        ((single.folder, sweep, "-o", "x.html"), "x.html is neither CSV nor LaTeX; give -o FILE.csv or -o FILE.tex."),
    ):
        text, status = said(*words)
        assert status == 1 and text.startswith("error: ") and sentence in text, text
