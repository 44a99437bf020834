"""What lies in people's folders beside photos: hidden, broken, shut, of another kind; and lists as they write them."""

import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import invrep.data.folders
from invrep.data.photo_reading import formats, read, suffixes
from invrep.data.photo_sources import find
from invrep.errors import InvrepError


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((24, 16), 40).save(path, "PNG")
    return path


@pytest.fixture(autouse=True)
def plugin(monkeypatch) -> Callable[[Any], None]:
    """Let there be no plugin for HEIC, or the given one."""

    def put(module: Any) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", module)
        formats.cache_clear()
        suffixes.cache_clear()

    for registry in ("OPEN", "EXTENSION"):
        monkeypatch.setattr(Image, registry, {**getattr(Image, registry)})
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    put(None)
    yield put
    formats.cache_clear()
    suffixes.cache_clear()


def ids(path: Path | str) -> list[str]:
    return list(find(str(path)).ids)


HIDDEN = (".ipynb_checkpoints/a.png", ".thumbnails/b.png", "sub/.cache/deep/c.png", ".d.png", "._a.png", "sub/._e.png")
HIDDEN += ("__MACOSX/a.png", "sub/@eaDir/a.png/thumb.png")


def test_heic_is_read_with_its_plugin(tmp_path, plugin):
    class Heif(PngImageFile):
        format = "HEIF"

    def register() -> None:
        Image.register_open("HEIF", Heif, lambda start: start.startswith(b"\x89PNG"))
        Image.register_extension("HEIF", ".heic")

    photo(tmp_path / "phone" / "A.HEIC")
    with pytest.raises(InvrepError, match="pip install pillow-heif"):
        find(str(tmp_path / "phone"))
    plugin(SimpleNamespace(register_heif_opener=register))
    assert ids(tmp_path / "phone") == ["A.HEIC"] and not find(str(tmp_path / "phone")).left_out
    assert read(tmp_path / "phone" / "A.HEIC").shape == (3, 16, 24)


def test_hidden_folders_are_left_out_as_hidden_files_are(tmp_path):
    for name in ("photos/a.png", "photos/sub/a.png", *(f"photos/{name}" for name in HIDDEN)):
        photo(tmp_path / name)
    shown = ["a.png", "sub/a.png"]
    assert ids(tmp_path / "photos") == ids(tmp_path / "photos" / "**" / "*.png") == shown
    assert not find(str(tmp_path / "photos")).left_out
    # what is asked for by its name is no longer hidden
    assert ids(tmp_path / "photos" / ".thumbnails") == ids(tmp_path / "photos" / ".thumbnails" / "*.png") == ["b.png"]
    assert ids(tmp_path / "photos" / ".*" / "*.png") == [".ipynb_checkpoints/a.png", ".thumbnails/b.png"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "photos", ".")
    assert sorted(ids(tmp_path / "a.tar")) == ["a.tar/./a.png", "a.tar/./sub/a.png"]


@pytest.fixture
def mixed(tmp_path, monkeypatch) -> Path:
    """A folder with one photo, of much that is none, and what is no concern of ours."""
    place = photo(tmp_path / "photos" / "a.png").parent
    for name in ("phone.HEIC", "drawing.svg", "raw.CR2", "README.txt", "labels.csv", "notes.pdf", "scores.npy"):
        (place / name).write_bytes(b"x")
    (place / "gone.jpg").symlink_to("nowhere.jpg")
    (place / "round.jpg").symlink_to("round.jpg")
    photo(tmp_path / "elsewhere" / "b.png")
    (place / "more").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(place / "pipe.png")
    photo(place / "shut.png").chmod(0)
    photo(place / "closed" / "c.png")
    (place / "album.jpg").mkdir()

    # a superuser may look anywhere
    access, scandir = os.access, os.scandir

    def no_scandir(path):
        if not isinstance(path, int) and Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut.png" and access(path, mode))
    monkeypatch.setattr(os, "scandir", no_scandir)
    return place


def test_what_is_left_out_is_named_and_counted(job, tmp_path, mixed):
    outcome = job("data.path=photos", "optim.steps=1")
    assert outcome.status == 0, outcome.err
    assert "9 files are left out: closed (permission denied), drawing.svg (SVG is not read; convert" in outcome.out
    assert f"and 6 more; all are in {Path('out') / outcome.folder.name / 'left_out.txt'}" in outcome.out
    lines = (outcome.folder / "left_out.txt").read_text().splitlines()
    assert dict(line.split("\t") for line in lines) == {
        "closed": "permission denied",
        "drawing.svg": "SVG is not read; convert it to PNG or JPEG",
        "gone.jpg": "a link to nothing",
        "more": "a link to a folder, which is not entered",
        "phone.HEIC": "HEIC is not read; convert it to PNG or JPEG, or pip install pillow-heif",
        "pipe.png": "no regular file",
        "raw.CR2": "CR2 is not read; convert it to PNG or JPEG",
        "round.jpg": "too many levels of symbolic links",
        "shut.png": "permission denied",
    }
    for path in mixed.iterdir():
        if path.name not in ("a.png", "closed", "album.jpg"):
            path.unlink()
    (mixed / "closed").rename(tmp_path / "closed")
    assert "left out" not in job("data.path=photos", "optim.steps=1").out
    assert not (outcome.folder / "left_out.txt").exists()


def test_a_folder_of_other_kinds_alone_says_which(tmp_path):
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "a.heic").touch()
    with pytest.raises(InvrepError, match=r"No photo is in the folder .*; left out: a\.heic \(HEIC is not read"):
        find(str(tmp_path / "phone"))
    with pytest.raises(InvrepError, match=r"No photo matches data\.path=.*left out: a\.heic"):
        find(str(tmp_path / "phone" / "*"))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "phone" / "a.heic", "a.heic")
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "c.png"
        tar.addfile(link, io.BytesIO())
    with pytest.raises(InvrepError, match=r"left out: a\.tar/a\.heic \(HEIC .*\), a\.tar/b\.png \(a link or"):
        find(str(tmp_path / "a.tar"))


def test_a_place_where_the_user_may_not_look(tmp_path, monkeypatch):
    photo(tmp_path / "shut" / "a.png")

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch, pytest.raises(InvrepError, match=r"cannot be read \(Permission denied\)"):
        patch.setattr(Path, "stat", refuse)
        find(str(tmp_path / "shut" / "a.png"))
    with pytest.raises(InvrepError, match=r"data\.path=x+ cannot be read \(File name too long\)"):
        find("x" * 300)
    monkeypatch.setattr(invrep.data.folders.os, "scandir", lambda path: refuse(path))
    with pytest.raises(InvrepError, match=r"The folder data\.path=.*shut cannot be read \(Permission denied\)"):
        find(str(tmp_path / "shut"))


def test_brackets_in_a_folders_name_before_a_pattern(tmp_path):
    photo(tmp_path / "shots [raw]" / "a [1].png")
    photo(tmp_path / "shots [raw]" / "b.png")
    assert ids(tmp_path / "shots [raw]" / "*.png") == ids(tmp_path / "shots [[]raw]" / "*.png") == [
        "a [1].png",
        "b.png",
    ] or (ids(tmp_path / "shots [[]raw]" / "*.png") == ["shots [raw]/a [1].png", "shots [raw]/b.png"])
    assert ids(tmp_path / "shots [raw]" / "[ab].png") == ["b.png"]
    assert ids(tmp_path / "shots [raw]" / "a [1].png") == ["a [1].png"]
    with pytest.raises(InvrepError, match=r"No photo matches .*; a \[ that stands for itself is typed \[\[\]"):
        find(str(tmp_path / "*" / "a [1].png"))


def test_a_list_with_comments_and_a_table_with_semicolons(tmp_path):
    photo(tmp_path / "a.png")
    photo(tmp_path / "#1.png")
    (tmp_path / "list.txt").write_text("# my photos\na.png\n#1.png\n#2.png\n")
    assert ids(tmp_path / "list.txt") == ["a.png", "#1.png"]
    for mark in ";\t":
        (tmp_path / "list.csv").write_text(f'id{mark}"path"\ncat{mark}a.png\n')
        (found,) = find(str(tmp_path / "list.csv"))
        assert found.id == "cat" and found.fetch() == (tmp_path / "a.png").read_bytes()


def test_forty_of_forty_one_photos_that_fail_are_all_named(job, tmp_path):
    photo(tmp_path / "photos" / "good.png")
    bad = [tmp_path / "photos" / f"bad{k:02}.png" for k in range(40)]
    for path in bad:
        path.write_text("no photo")
    outcome = job("data.path=photos", "optim.steps=1")
    assert outcome.status == 1 and "40 photos could not be inverted, all others are done" in outcome.err
    assert "… and 30 more, see" in outcome.err
    lines = [line.split("\t") for line in (outcome.folder / "failed.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == [path.name for path in bad]
    assert all("holds no image of a kind that is read" in why for _, why in lines)
    for path in bad[1:]:
        path.unlink()
    photo(bad[0])
    assert job("data.path=photos", "optim.steps=1").status == 0 and not (outcome.folder / "failed.txt").exists()


def test_a_changed_working_folder_is_said(job, tmp_path):
    photo(tmp_path / "a.png")
    outcome = job("-m", "hydra.job.chdir=true", "data.path=a.png", "optim.steps=1", f"hydra.sweep.dir={tmp_path}/swept")
    assert outcome.status == 1
    assert f"hydra.job.chdir=true: relative paths begin in {tmp_path}/swept, not in {tmp_path}" in outcome.out
    assert "There is no file or folder data.path=a.png" in outcome.err
