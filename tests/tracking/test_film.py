"""Films of descents, read back from their files."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence


def test_a_gif_ends_with_the_reconstruction(job, photos):
    outcome = job(f"data.path={photos}", "data.limit=2", "data.batch_size=2", "restarts=2", "video=gif")
    assert outcome.status == 0, outcome.err
    films = sorted((outcome.folder / "videos").iterdir())
    assert [film.name for film in films] == ["a.png.0.gif", "a.png.1.gif", "b.png.0.gif", "b.png.1.gif"]
    last = []
    for film in films:
        with Image.open(film) as opened:
            frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(opened)]
        assert len(frames) == 3 and np.abs(frames[0] - frames[1]).mean() > 2  # at passes 0, 2 and 4
        picture = outcome.folder / "reconstructions" / film.name.replace(".gif", ".png")
        end = np.asarray(Image.open(picture).convert("RGB"), float)
        assert np.abs(frames[-1] - end).mean() < 4 < np.abs(frames[0] - end).mean()
        last.append(frames[-1])
    assert np.abs(last[0] - last[1]).mean() > 5  # of another restart
    again = job(f"data.path={photos}", "data.limit=2", "restarts=3", "video=gif")
    assert "of what is finished none is made" in again.out
    assert len(list((outcome.folder / "videos").iterdir())) == 6


def test_an_mp4_of_odd_sides_and_ranks(job, photos, tmp_path):
    av = pytest.importorskip("av")
    for path in photos.rglob("*.png"):
        Image.open(path).resize((63, 47)).save(path)
    outcome = job(f"data.path={photos}", "data.limit=2", "video=true", "data.color=rgb", "trainer.devices=2")
    assert outcome.status == 0, outcome.err
    assert sorted(p.name for p in (outcome.folder / "videos").iterdir()) == ["a.png.0.mp4", "b.png.0.mp4"]
    with av.open(str(outcome.folder / "videos" / "a.png.0.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in film.decode(video=0)]
    assert len(frames) == 3 + 12 and frames[0].shape == (48, 64, 3)
    end = np.asarray(Image.open(outcome.folder / "reconstructions" / "a.png.0.png"), float)
    assert np.abs(frames[-1][:47, :63] - end).mean() < 12 and np.abs(frames[0] - frames[2]).mean() > 5


def test_what_cannot_be_filmed_is_said(job, monkeypatch):
    assert "expected one of mp4, gif" in job("video=avi").err
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("invrep.tracking.film.find_spec", lambda name: None)
    outcome = job("video=mp4")
    assert outcome.status == 1 and "invrep[video]" in outcome.err and not outcome.output.exists()
