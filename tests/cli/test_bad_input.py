"""What a tired person types: one clear sentence, a non-zero exit, no traceback, and nothing finished lost."""

import errno
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

import invrep.results.store

HOG_CHANNEL = ("objective=maximise", "objective.channels=1", "data=none")
ALEXNET = ("rep=alexnet", "layer=conv1", "rep.weights=random", "data.resize=none")


def _text(place: Path) -> None:
    (place / "bad.jpg").write_text("not a photo")


def _truncated(place: Path) -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "JPEG")
    (place / "bad.jpg").write_bytes(data.getvalue()[:600])


def _gif(place: Path) -> None:
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "blue")]
    frames[0].save(place / "bad.gif", save_all=True, append_images=frames[1:])


def _pixel(place: Path) -> None:
    Image.new("RGB", (1, 1)).save(place / "one.png")


def _folder(place: Path) -> None:
    (place / "empty").mkdir()


def _pickle(place: Path) -> None:
    (place / "w.pth").write_bytes(pickle.dumps({"features.0.weight": print}))


def _no_weights(place: Path) -> None:
    (place / "w.safetensors").write_text("not weights")


def _misfit(place: Path) -> None:
    save_file({"features.0.weight": torch.zeros(3, 3), "features.0.bias": torch.zeros(64)}, place / "w.safetensors")


def _partial(place: Path) -> None:
    save_file({"features.0.bias": torch.zeros(64)}, place / "w.safetensors")


def _file(place: Path) -> None:
    (place / "taken").write_text("a file")


# what is typed, what lies there, and words of the sentence
CASES: list[tuple[tuple[str, ...], Callable[[Path], None] | None, tuple[str, ...]]] = [
    (("data.path=nowhere.jpg",), None, ("nowhere.jpg", "no file or folder")),
    (("data.path=bad.jpg",), _text, ("bad.jpg", "no image of a kind that is read", "PNG or JPEG")),
    (("data.path=bad.jpg",), _truncated, ("bad.jpg", "damaged")),
    (("data.path=bad.gif",), _gif, ("bad.gif", "2 frames", "still photo")),
    (("data.path=empty",), _folder, ("No photo", "empty")),
    (("data.path=one.png",), _pixel, ("one.png", "at least 4×4", "1×1")),
    (("data.path=bundled:astronout",), None, ("astronout", "the nearest", "astronaut")),
    (("data.path=bundled:coffee+coffee",), None, ("coffee.png twice", "each photo once")),
    (("data.path=5",), None, ("data.path=5", "no file or folder")),
    (("data.path=[5]",), None, ("data.path=[5]", "expected text", "\"data.path='NAME'\"")),
    (("data.limit=0",), None, ("data.limit=0", "at least 1")),
    (("data.batch_size=many",), None, ("data.batch_size=many", "whole number")),
    (("data.color=blue",), None, ("data.color=blue", "rgb, gray")),
    (("data.resize=crop",), None, ("data.resize=crop", "model, squash, none")),
    ((*ALEXNET, "data.color=gray"), None, ("data.color=gray", "rep=alexnet", "rgb")),
    (("restarts=five",), None, ("restarts=five", "whole number", "at least 1")),
    (("restarts=0",), None, ("restarts=0", "at least 1")),
    (("restarts=1.5",), None, ("restarts=1.5", "whole number")),
    (("restarts=true",), None, ("restarts=True", "whole number")),
    (("seed=-1",), None, ("seed=-1", "at least 0")),
    (("dtype=float16",), None, ("dtype=float16", "float32, float64")),
    (("display=clipped",), None, ("display=clipped", "the nearest is clip")),
    (("dry_run=maybe",), None, ("dry_run=maybe", "true or false")),
    (("log_every=0",), None, ("log_every=0", "at least 1")),
    (("rep=hogs",), None, ("rep=hogs", "the nearest are hog, hogb")),
    (("logger=wand",), None, ("logger=wand", "wandb")),
    (("reps=hog",), None, ("'reps'", "rep")),
    (("data=none", "data.path=photos"), None, ("chosen data", "'data.path'", "data=photos")),
    (("experiment=cvpr15/fig66",), None, ("no experiment=cvpr15/fig66", "the nearest are cvpr15/fig6,")),
    (("prior.chroma.weight=5",), None, ("chosen prior", "'prior.chroma", "prior=chroma")),
    (("rep.modle=resnet18",), None, ("no config key 'rep.modle'", "rep.model")),
    (("launcher.n_jobs=2",), None, ("no config key 'launcher.n_jobs'",)),
    (("optim.stepz=3",), None, ("'optim.stepz'", "optim.steps")),
    (("optim.steps=0",), None, ("optim.steps=0", "at least 1")),
    (("optim.steps=[1",), None, ("optim.steps=[1", "cannot be read")),
    (("optim.lr=fast",), None, ("optim.lr=fast", "above 0")),
    (("optim=torch", "optim.name=Adamm", "optim.lr=1"), None, ("Adamm", "Adam")),
    (("optim=torch",), None, ("optim.name", "missing")),
    (("optim.options={momentum:.9}",), None, ("optim.options.momentum", "no key")),
    (("+optim.options.momentum=.9",), None, ("momentum", "Adam")),
    (("optim=torch", "optim.name=LBFGS", "optim.lr=1", "restarts=2"), None, ("LBFGS", "restarts=1")),
    (("prior.tv.weight=heavy",), None, ("prior.tv.weight=heavy", "'auto'")),
    (("prior.tv.beta=.5",), None, ("prior.tv.beta=0.5", "at least 1")),
    (("rep.cell=0",), None, ("cell", "0")),
    (("rep.binning=soft",), None, ("binning", "soft", "bilinear")),
    (("trainer.accelerator=tpuu",), None, ("trainer.accelerator=tpuu",)),
    (("trainer.devices=two",), None, ("trainer.devices=two", "a number, a list of indices or auto")),
    ((*ALEXNET, "layer=relu9"), None, ("relu9", "the nearest are relu")),
    ((*ALEXNET, "layer=null"), None, ("alexnet needs a layer",)),
    ((*ALEXNET, "layer=1.10"), None, ("1.1", "quote")),
    ((*ALEXNET, "layer=fc6", "data.path=one.png"), _pixel, ("one.png", "1×1", "smallest")),
    ((*ALEXNET, "rep.weights=w.pth"), None, ("w.pth", "no")),
    ((*ALEXNET, "rep.weights=w.pth"), _pickle, ("w.pth",)),
    ((*ALEXNET, "rep.weights=w.safetensors"), _no_weights, ("w.safetensors",)),
    ((*ALEXNET, "rep.weights=w.safetensors"), _misfit, ("w.safetensors", "features.0.weight", "(3, 3)")),
    ((*ALEXNET, "rep.weights=w.safetensors"), _partial, ("w.safetensors", "features.0.weight")),
    (("output=taken",), _file, ("taken", "output=FOLDER")),
    (("objective=maximize",), None, ("objective=maximize", "the nearest", "maximise")),
    (("objective=maximise", "data=none"), None, ("objective.channels is missing",)),
    (("objective=maximise", "objective.channels=1"), None, ("no use for a photo", "data=none")),
    (("objective=maximise", "objective.channels=1", "data=none"), None, ("data.size is missing", "[HEIGHT,WIDTH]")),
    ((*HOG_CHANNEL, "data.size=48"), None, ("data.size=48", "[HEIGHT,WIDTH]")),
    ((*HOG_CHANNEL, "data.size=[48,0]"), None, ("data.size=0", "at least 1")),
    ((*HOG_CHANNEL, "data.size=[48,64]", "objective.weight=0"), None, ("objective.weight=0", "above 0", "'auto'")),
    (("data=none",), None, ("needs a photo", "data=none")),
    (("objective=caricature", "data=none"), None, ("needs a photo", "data=none")),
    (("objective=code", "data=none"), None, ("objective.path is missing",)),
    (("objective=code", "objective.path=x.safetensors"), None, ("objective.path=x.safetensors", "save_codes=true")),
    (("save_codes=maybe",), None, ("save_codes=maybe", "true or false")),
]


@pytest.mark.parametrize(
    ("overrides", "lay", "words"), CASES, ids=[" ".join(o) + (f" {f.__name__}" if f else "") for o, f, _ in CASES]
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(job, photos, tmp_path, overrides, lay, words):
    if lay is not None:
        lay(tmp_path)
    path = () if "data=none" in overrides else ("data.path=photos",)
    last = {o.partition("=")[0]: o for o in (*path, *overrides)}
    outcome = job(*last.values())
    assert outcome.status == 1, outcome.out
    sentences = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "Traceback" not in outcome.err + outcome.out, outcome.err
    assert outcome.err.rstrip().endswith(sentences[0])
    for word in words:
        assert word in sentences[0], sentences[0]
    written = [p for p in outcome.output.rglob("*.*") if p.suffix in (".png", ".csv", ".safetensors")]
    assert written == []


def test_a_full_disk_keeps_what_is_finished(job, photos, monkeypatch):
    save, calls = invrep.results.store.save_file, []

    def full(tensors, path, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, **kwargs)

    monkeypatch.setattr(invrep.results.store, "save_file", full)
    outcome = job(f"data.path={photos}")
    assert outcome.status == 1 and "No space is left" in outcome.err and "goes on from what is finished" in outcome.err
    assert len(list((outcome.folder / "parts").iterdir())) == 1
    assert "1 of 3 are finished" in job(f"data.path={photos}").out


def test_a_mistake_leaves_an_earlier_job_as_it_was(job, photos):
    folder = job(f"data.path={photos}").folder
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with FileLock(folder / ".lock"):
        assert "Another process" in job(f"data.path={photos}", "restarts=2").err
    assert job(f"data.path={photos}", "restarts=two").status == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_one_bad_photo_among_a_hundred(job, tmp_path):
    place = tmp_path / "hundred"
    place.mkdir()
    for k in range(99):
        Image.effect_noise((24, 16), 10 + k).save(place / f"{k:02}.png")
    _text(place)
    outcome = job("data.path=hundred", "optim.steps=1", "data.batch_size=50")
    assert outcome.status == 1
    assert "1 photo could not be inverted, all others are done" in outcome.err and "bad.jpg" in outcome.err
    assert len(load_file(outcome.folder / "reconstructions.safetensors")) == 99
    assert len((outcome.folder / "metrics.csv").read_text().splitlines()) == 100
