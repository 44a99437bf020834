"""Certificates of jobs: beside the inversion, of a finished job, and of pictures of any tool."""

import csv
import re
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.wandb_file import OfflineRun
from PIL import Image
from safetensors.torch import load_file, save_file

import invrep
from invrep.cli.certify import certify
from invrep.data.photo_reading import read
from invrep.results.store import Results

HOG = ("rep=hogb", "data.limit=2", "restarts=2")


def rows_of(folder):
    return list(csv.DictReader((folder / "certificate.csv").open()))


def said(capfd, *words, status=0):
    """Run ``invrep certify`` and return what it printed."""
    capfd.readouterr()
    if status:
        with pytest.raises(SystemExit) as ended:
            certify(list(map(str, words)))
        assert ended.value.code == status
        return capfd.readouterr().err
    certify(list(map(str, words)))
    return capfd.readouterr().out


def test_a_job_has_certificates_and_a_finished_one_gets_the_same(job, photos, seven, capfd):
    path = f"data.path={photos}"
    outcome = job(*HOG, path, "certificate=true", f"certificate.null={seven}")
    assert "7 other photos to compare with, and a percentile of fewer than 20 means little" in outcome.out
    assert outcome.out.count("certificates leave out alexnet, resnet18, vgg16, whose weights are not in torch hub") == 1
    rows = rows_of(outcome.folder)
    assert [(row["image"], row["restart"]) for row in rows] == [(i, r) for i in ("a.png", "b.png") for r in ("0", "1")]
    assert {row["null_photos"] for row in rows} == {"7.0"} and float(rows[0]["error"]) > 0
    metrics = list(csv.DictReader((outcome.folder / "metrics.csv").open()))
    assert [float(row["error"]) for row in rows] == pytest.approx([float(row["error"]) for row in metrics], rel=1e-4)
    assert r"JPEG quality &" in (outcome.folder / "certificate.tex").read_text()
    assert "certificates: as a JPEG of quality" in outcome.out and "of other photos nearer" in outcome.out
    # with other null photos, of a finished job: nothing is inverted again
    before = {path: path.stat().st_mtime_ns for path in outcome.folder.glob("parts/*")}
    again = job(*HOG, path, "certificate=true")
    assert again.folder == outcome.folder and {row["null_photos"] for row in rows_of(again.folder)} == {"2.0"}
    assert before == {path: path.stat().st_mtime_ns for path in outcome.folder.glob("parts/*")}
    table = Results(again.folder).certificate_table.files()
    job(*HOG, path, "certificate=true")
    assert Results(again.folder).certificate_table.files() == table  # certified already
    wanted = rows_of(again.folder)
    for place in ("certificate", "certificate.csv", "certificate.tex"):
        target = again.folder / place
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    out = said(capfd, again.folder)
    assert "4 certificates of 2 photos" in out and "JPEG quality" in out and rows_of(again.folder) == wanted
    out = said(capfd, again.folder, f"certificate.null={seven}")
    assert {row["null_photos"] for row in rows_of(again.folder)} == {"7.0"}


def test_pictures_of_any_tool_are_scored(job, photos, capfd, tmp_path, monkeypatch):
    outcome = job(*HOG, f"data.path={photos}", "certificate=true")
    before = outcome.folder
    pictures = tmp_path / "theirs"
    (pictures / "sub").mkdir(parents=True)
    Image.open(photos / "a.png").save(pictures / "a.png")  # the photo itself
    save_file(
        {"reconstruction": load_file(Results(outcome.folder).part("b.png", 1))["reconstruction"]},
        pictures / "b.1.safetensors",
    )
    Image.open(photos / "a.png").save(pictures / "sub" / "a.png.png")  # of another photo, sub/a.png
    words = ("rep=hogb", f"data.path={photos}", "output=out")
    out = said(capfd, "--pictures", pictures, *words)
    assert "3 certificates of 3 photos" in out
    (folder,) = (tmp_path / "out").glob("theirs-hogb-*")
    itself, ours, another = rows_of(folder)
    assert (itself["image"], float(itself["error"]), itself["jpeg_equivalent"]) == ("a.png", 0.0, "100.0")
    (wanted,) = (row for row in rows_of(before) if (row["image"], row["restart"]) == ("b.png", "1"))
    assert {name: ours[name] for name in wanted} == wanted
    assert float(another["error"]) > float(ours["error"])
    (row,) = (row for key, row in Results(folder).rows().items() if key == ("b.png", 1))
    assert row["error"] == pytest.approx(float(wanted["error"]), rel=1e-5)
    # a picture that has changed is scored anew
    Image.open(photos / "b.png").save(pictures / "a.png")
    said(capfd, "--pictures", pictures, *words)
    assert float(rows_of(folder)[0]["error"]) > 0.1
    monkeypatch.chdir(tmp_path)
    from invrep.cli.report import report

    report([str(folder), str(before)])
    assert (folder / "report.html").is_file()


def test_wrong_pictures_are_a_sentence(photos, capfd, tmp_path):
    words = ("rep=hogb", f"data.path={photos}", f"output={tmp_path / 'out'}")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "No picture is in" in said(capfd, "--pictures", empty, *words, status=1)
    assert "There is no folder" in said(capfd, "--pictures", tmp_path / "none", *words, status=1)
    Image.new("RGB", (64, 48)).save(empty / "z.png")
    assert re.search(
        r"z\.png has no photo: expected the name of one of data\.path, such as a\.png",
        said(capfd, "--pictures", empty, *words, status=1),
    )
    (empty / "z.png").rename(empty / "a.png")
    Image.new("RGB", (32, 48)).save(empty / "b.png")
    assert "b.png has 32×48 px" in said(capfd, "--pictures", empty, *words, status=1)
    Image.new("RGB", (64, 48)).save(empty / "a.0.png")
    assert "are both restart 0 of a.png" in said(capfd, "--pictures", empty, *words, status=1)
    save_file({"x": torch.zeros(1)}, empty / "a.0.safetensors")
    (empty / "a.0.png").unlink()
    (empty / "a.png").unlink()
    assert "holds no tensor named reconstruction" in said(capfd, "--pictures", empty, *words, status=1)


def test_wrong_settings_are_a_sentence_before_anything_is_inverted(job, photos, tmp_path, capfd):
    def wrong(*words):
        outcome = job("rep=hogb", f"data.path={photos}", "certificate=true", *words)
        assert outcome.status == 1 and not (tmp_path / "out").exists()
        return outcome.err

    (tmp_path / "bare").mkdir()
    assert "No photo is in the folder certificate.null=" in wrong(f"certificate.null={tmp_path / 'bare'}")
    assert "There is no file or folder certificate.null=gone" in wrong("certificate.null=gone")
    assert "which torchvision lacks; the nearest" in wrong("certificate.networks=[resnet81]")
    assert "expected names as" in wrong("certificate.networks=resnet18")
    assert "no weights file" in wrong("certificate.networks={resnet18:gone.pth}")
    assert "the objective Caricature does not match" in wrong("objective=caricature")
    assert "is one of certificate=true" in job("certificate.null=x").err
    assert "expected one of outputs/" in said(capfd, photos, status=1)
    assert "give the folder of a finished job" in said(capfd, status=2)
    folder = job("rep=hogb", f"data.path={photos}").folder
    assert "takes certificate.null" in said(capfd, folder, "optim.steps=3", status=1)
    assert "as they were inverted" in said(capfd, folder, f"data.path={photos / 'sub'}", status=1)
    assert "None of the photos of" in said(capfd, folder, "data.path=bundled:chelsea", status=1)


def test_a_record_runs_no_code(job, photos, capfd):
    folder = job("rep=hogb", f"data.path={photos}").folder
    record = folder / "config.yaml"
    plain = record.read_text()
    for old, new, words in (
        ("part: hog", "_target_: os.system", "names code"),
        ("cell: 8", "cell: ${oc.env:HOME}", "names code"),
        ("part: hog", "part: module", "runs code of yours"),
    ):
        record.write_text(plain.replace(old, new))
        assert words in said(capfd, folder, status=1)


def test_from_python_they_are_the_same(job, photos):
    phi = invrep.representation("hogb")
    images = torch.stack([read(photos / name, color="gray") for name in ("a.png", "b.png", "sub/a.png")])
    found = invrep.invert(images, phi, restarts=2, steps=4, log_every=2, ids=["a.png", "b.png", "sub/a.png"])
    with pytest.warns(UserWarning, match="fewer than 20 other photos"):
        certificates = invrep.certify(found, phi, denoised=False)
    folder = job("rep=hogb", f"data.path={photos}", "restarts=2", "certificate=true", "logger=wandb").folder
    rows = rows_of(folder)
    for name in ("error", "null_percentile", "jpeg_equivalent", "rho", "naturalness", "gradient_distance"):
        assert certificates.columns[name].flatten().tolist() == pytest.approx(
            [float(row[name]) for row in rows], rel=1e-3
        )
    assert "of 2 other photos" in " ".join(certificates.sentences(1, 1)) and "JPEG quality" in repr(certificates)
    told = OfflineRun(folder)
    assert [row["jpeg_equivalent"] for row in told.table()] == pytest.approx(
        [float(r["jpeg_equivalent"]) for r in rows]
    )
    means = [sum(float(row["rho"]) for row in rows) / len(rows), told.summary["certificate/rho"]]
    assert means[0] == pytest.approx(means[1]) and "certificate.csv" in told.artifacts["results"]
    mean, (low, high) = certificates.interval("error")
    assert low <= mean <= high
    with pytest.warns(UserWarning), pytest.raises(invrep.InvrepError, match="null=gone"):
        invrep.certify(found, phi, null="gone", networks=["vgg16"])
    with pytest.raises(invrep.InvrepError, match="found has no photos"):
        invrep.certify(replace(found, photos=None), phi)
