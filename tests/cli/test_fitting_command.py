"""``invrep vocabulary``: photos in, a file out that a job takes; an interruption, and mistakes in one sentence."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invrep.fitting import gathering
from invrep.jobs.signals import Stop
from invrep.representations.vocabularies.vocabulary import load
from invrep.tracking.steps_bar import StepsBar

WORDS = "words.safetensors"


@pytest.fixture
def fit(job, photos):
    """Fit 16 words to the three photos."""

    def run(*words: str, rep: str = "bovw"):
        return job(
            "vocabulary", f"rep={rep}", "rep.words=16", f"data.path={photos}", f"output={WORDS}", *words, defaults=False
        )

    return run


@pytest.mark.parametrize(
    ("rep", "tensors"),
    [
        (
            "fisher",
            {"means": (16, 9), "variances": (16, 9), "priors": (16,), "pca_mean": (128,), "pca_basis": (9, 128)},
        ),
        ("sparse", {"atoms": (16, 128)}),
    ],
)
def test_a_job_takes_the_file(job, fit, photos, rep, tensors):
    (photos / "bad.jpg").write_text("no photo")
    (photos / "b.gif").write_bytes((photos / "a.png").read_bytes()[:200])
    fitted = fit(*(["rep.projection=9"] if rep == "fisher" else []), rep=rep)
    assert fitted.status == 0 and f"vocabulary: {WORDS}, 16 " in fitted.out, fitted.err
    assert fitted.out.count("left out") == 1 and "bad.jpg" in fitted.out and "b.gif" in fitted.out
    words = load(WORDS)
    assert {name: tuple(tensor.shape) for name, tensor in words.tensors.items()} == tensors
    assert words.settings["photos"] == 3 and words.settings["color"] == "gray" and words.settings["seed"] == 0
    assert not list(Path().glob("*.progress"))
    (line,) = [line for line in fitted.out.splitlines() if line.startswith("use: invrep ")]
    typed = line.removeprefix("use: invrep ").replace("photo.jpg", str(photos / "a.png")).split()
    assert job(*typed, "optim.straight_through=true").value > 0


def test_a_networks_layer_has_words_in_colour(job, fit, photos):
    network = (
        "rep.descriptor=alexnet",
        "rep.descriptor.layer=relu2",
        "rep.descriptor.weights=random",
        "data.resize=none",
    )
    assert fit(*network, "data.limit=2", "-q").out == ""
    words = load(WORDS)
    assert words.tensors["centers"].shape == (16, 192)
    assert words.settings["color"] == "rgb" and words.settings["photos"] == 2
    other = job("rep=bovw", f"rep.vocabulary={WORDS}", f"data.path={photos / 'a.png'}")
    assert other.status == 1 and "Traceback" not in other.err and other.err.count("\n") == 1


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_fit_ends_with_the_same_file(fit, monkeypatch, after):
    fit()
    unbroken = Path(WORDS).read_bytes()
    Path(WORDS).unlink()
    monkeypatch.setattr(gathering, "EVERY", 0.0)
    monkeypatch.setattr(gathering, "SHARE", 1e9)

    def stop(bar, stage, done, total):
        if stage == "steps" or done == after:
            raise Stop(2)

    with monkeypatch.context() as patched:
        patched.setattr(StepsBar, "__call__", stop)
        broken = fit()
    assert broken.status == 130 and "the same command resumes" in broken.err and not Path(WORDS).exists()
    other = fit("seed=1")
    assert other.status == 1 and f"{WORDS}.progress is the progress of a fit with other photos" in other.err
    read, pixels = [], gathering.Source.pixels
    monkeypatch.setattr(gathering.Source, "pixels", lambda *given: read.append(1) or pixels(*given))
    assert fit().status == 0 and Path(WORDS).read_bytes() == unbroken
    assert len(read) <= 3 - max(after - 1, 0)


def test_neither_names_nor_order_of_the_photos_matter(job, fit, photos):
    fit()
    listed = Path("list.csv")
    listed.write_text(f"path,id\n{photos}/sub/a.png,x\n{photos}/b.png,y\n{photos}/a.png,z\n")
    job("vocabulary", "rep=bovw", "rep.words=16", "data.path=list.csv", "output=other.safetensors", defaults=False)
    np.testing.assert_array_equal(load(WORDS).tensors["centers"], load("other.safetensors").tensors["centers"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rep=hog",), "rep=hog has no vocabulary; expected one of rep=bovw"),
        (("rep.words=8",), "rep.words=8 is not valid"),
        (("rep.words=1024",), "rep.words=1024 is more than the"),
        (("data.path=nowhere",), "There is no file or folder data.path=nowhere"),
        (("data=none",), "leave data=none out"),
        (("data.color=green",), "data.color=green"),
        (("seed=-1",), "seed=-1"),
        (("output=here.pt",), "output=here.safetensors"),
        (("output=photos",), "output=photos is a folder"),
        (("output=there.safetensors",), "output=there.safetensors exists already"),
        (("optim.steps=5",), "no setting 'optim.steps=5'"),
        (("rep.word=5",), "the nearest are rep.words"),
        (
            ("rep.descriptor=alexnet", "rep.descriptor.layer=output", "rep.descriptor.weights=random"),
            "has no positions",
        ),
        (("-m",), "no setting '-m'"),
    ],
)
def test_a_mistake_is_one_sentence(fit, words, said):
    Path("there.safetensors").write_text("")
    before = sorted(os.listdir())
    outcome = fit(*words)
    assert outcome.status == 1 and said in outcome.err and outcome.err.count("\n") == 1, outcome.err
    assert sorted(os.listdir()) == before


def test_what_is_missing_is_said(job, fit, monkeypatch, tmp_path):
    assert "output" in job("vocabulary", "rep=bovw", "data.path=photos", defaults=False).err
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    assert "pip install 'invrep[vocabulary]'" in fit().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/flat").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos/flat/a.png")
    assert (
        "needs images of at least"
        in job("vocabulary", "rep=bovw", "data.path=photos/flat", f"output={WORDS}", defaults=False).err
    )


def test_a_full_disk_is_one_sentence(fit, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    outcome = fit()
    assert outcome.status == 1 and "No space is left" in outcome.err and outcome.err.count("\n") == 1
