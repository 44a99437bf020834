"""Photos that lie in tars and in torchvision's datasets, and what is said where they don't."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.errors import InvrepError


def tar(path, **members: bytes):
    """Write an uncompressed tar; two underscores in a name stand for a slash, one for a dot."""
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def png(k: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 16), 10 + 9 * k).save(file, "PNG")
    return file.getvalue()


def test_a_tars_photos_are_those_of_its_folder(job, photos, tmp_path):
    folder = job(f"data.path={photos}").folder
    with tarfile.open(tmp_path / "val.tar", "w") as file:
        file.add(photos, "photos")
    outcome = job("data.path=val.tar", "output=tar", "data.batch_size=2")
    assert outcome.status == 0, outcome.err
    (other,) = (tmp_path / "tar").iterdir()
    found = [load_file(place / "reconstructions.safetensors") for place in (folder, other)]
    assert list(found[1]) == [f"val.tar/photos/{name}" for name in found[0]]
    assert {tensor.shape for tensor in found[1].values()} == {(1, 48, 64)}
    assert (other / "reconstructions" / "val.tar" / "photos" / "sub" / "a.png.0.png").exists()
    assert "3 of 3 are finished" in job("data.path=val.tar", "output=tar").out
    # by its content, as a file is
    with tarfile.open(tmp_path / "val.tar", "w") as file:
        for name, source in (("a.png", "b.png"), ("b.png", "b.png"), ("sub/a.png", "sub/a.png")):
            file.add(photos / source, f"photos/{name}")
    assert "2 of 3 are finished" in job("data.path=val.tar", "output=tar", "dry_run=true").out


def test_bundled_photos_keep_their_order():
    found = find("bundled:rocket+chelsea+coffee", 2)
    assert [photo.id for photo in found] == ["rocket.jpg", "chelsea.png"]
    assert [photo.fetch()[:4] for photo in found] == [b"\xff\xd8\xff\xe0", b"\x89PNG"]


def test_shards_keep_their_order_and_give_each_photo_its_bytes(tmp_path):
    data = [png(k) for k in range(4)]
    tar(tmp_path / "val-1.tar", z_png=data[2], z_cls=b"3", a_jpg=data[3])
    tar(tmp_path / "val-0.tar", deep__b_png=data[0], _hidden_png=b"", a_png=data[1])
    found = find(str(tmp_path / "val-*.tar"))
    ids = ["val-0.tar/deep/b.png", "val-0.tar/a.png", "val-1.tar/z.png", "val-1.tar/a.jpg"]
    assert [photo.id for photo in found] == ids
    assert [photo.fetch() for photo in found] == data
    assert [photo.id for photo in find(str(tmp_path / "val-*.tar"), 3)] == ids[:3]
    assert [photo.id for photo in find(str(tmp_path / "val-1.tar"), 1)] == ["val-1.tar/z.png"]


@pytest.mark.parametrize(
    ("name", "lay", "says"),
    [
        ("a.tar.gz", lambda path: path.write_bytes(b"x"), "is compressed.*unpack it"),
        ("a.tgz", lambda path: path.write_bytes(b"x"), "is compressed"),
        ("a.tar", lambda path: path.write_text("no tar" * 200), "cannot be read as a tar"),
        ("a.tar", lambda path: tar(path, a_txt=b"x"), r"No photo is in .*a\.tar"),
        ("a.tar", lambda path: path.write_bytes(tar(path, a_png=b"x" * 5000).read_bytes()[:3000]), "whole one"),
        ("*.*", lambda path: (tar(path.parent / "a.tar", a_png=b"x"), (path.parent / "b.png").touch()), "one kind"),
        ("", lambda path: tar(path / "a.tar", a_png=b"x"), r"No photo but tars .*/\*\.tar"),
    ],
)
def test_wrong_tars(tmp_path, name, lay, says):
    lay(tmp_path / name if "*" not in name else tmp_path / "x")
    with pytest.raises(InvrepError, match=says):
        find(str(tmp_path / name))


def test_a_name_that_is_there_twice_in_a_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(InvrepError, match=r"a\.tar/a\.png is there twice"):
        find(str(tmp_path / "a.tar"))


def test_a_bad_photo_in_a_tar_is_named_and_the_rest_is_done(job, tmp_path):
    tar(tmp_path / "a.tar", a_png=png(0), b_png=png(1)[:200], c_png=b"x", **{"____up_png": png(2)})
    outcome = job("data.path=a.tar", "optim.steps=1")
    assert (
        outcome.status == 1 and "a.tar/b.png is damaged" in outcome.err and "a.tar/c.png holds no image" in outcome.err
    )
    assert len(load_file(outcome.folder / "reconstructions.safetensors")) == 2
    assert all(path.is_relative_to(outcome.output) for path in tmp_path.rglob("*up.png*"))


def mnist(root) -> np.ndarray:
    """Write MNIST's test files with three digits of noise."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    for kind, count in (("t10k", 3), ("train", 2)):
        sizes = np.array([count, 28, 28], ">i4").tobytes()
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + digits[:count].tobytes())
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + bytes(range(count)))
    return digits


def test_a_dataset_of_arrays(job, tmp_path):
    digits = mnist(tmp_path / "data")
    found = find("torchvision:MNIST", root=str(tmp_path / "data"), split="test")
    assert [photo.id for photo in found] == ["0", "1", "2"]
    pixels = read(io.BytesIO(found[1].fetch()))
    assert torch.equal((pixels[0] * 255).round().byte(), torch.from_numpy(digits[1]))
    options = ("data=torchvision", "data.name=MNIST", "data.root=data", "data.limit=2", "trainer.devices=2")
    outcome = job(*options, "data.split=test", "trainer.accelerator=cpu", "data.batch_size=1")
    assert outcome.status == 0, outcome.err
    assert list(load_file(outcome.folder / "reconstructions.safetensors")) == ["0/0", "1/0"]
    assert "2 of 2 are finished" in job(*options, "data.split=test", "dry_run=true").out
    assert "finished" not in job(*options, "data.split=train", "dry_run=true").out
    wrong = job(*options, "data.split=val")
    assert wrong.status == 1 and "data.split=val is not valid for MNIST: expected train or test" in wrong.err


def test_a_dataset_of_files_keeps_their_names_and_bytes(photos):
    (photos / "cat").mkdir()
    (photos / "a.png").rename(photos / "cat" / "a b.png")
    (photos / "b.png").unlink()
    found = find("torchvision:ImageFolder", root=str(photos))
    assert [photo.id for photo in found] == ["cat/a b.png", "sub/a.png"]
    assert found[1].fetch() == (photos / "sub" / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "split", "says"),
    [
        ("CIFAR1O", None, "torchvision has no dataset 'CIFAR1O'; the nearest .*CIFAR10"),
        ("CIFAR10", None, r"CIFAR10 cannot be opened .*nothing is downloaded"),
        ("ImageNet", "val", r"ImageNet cannot be opened .*nothing is downloaded"),
        ("STL10", "all", r"STL10 cannot be opened .*all"),
        ("FakeData", "val", "which has one part"),
        ("VisionDataset", None, "cannot be opened"),
    ],
)
def test_datasets_that_are_not_there(tmp_path, name, split, says):
    with pytest.raises(InvrepError, match=says):
        find(f"torchvision:{name}", root=str(tmp_path), split=split)
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_its_folder(job):
    outcome = job("data.path=torchvision:CIFAR10")
    assert outcome.status == 1 and "give data=torchvision data.name=CIFAR10 data.root=FOLDER" in outcome.err
    assert "data.root" in job("data=torchvision", "data.name=CIFAR10").err
