"""Input that means harm, or looks as if: nothing runs, nothing fills the memory, nothing is written elsewhere."""

import csv
import io
import os
import pickle
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

import invrep
import invrep.data.photo_reading
import invrep.reporting.page.page
from invrep.cli.report import report
from invrep.data.photo_reading import read, size_of
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.reporting.job_grid import marked
from invrep.reporting.layouts.cells import Cell
from invrep.reporting.layouts.pictures import grid, photos
from invrep.reporting.layouts.tables import table
from invrep.results.file_names import file_name
from invrep.results.store import Results

# --- photos ----------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG whose header claims a size, with the pixels of 4×4."""
    pixels = zlib.compress((b"\0" + b"\7" * 12) * 4)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _encoded(kind: str, **options) -> bytearray:
    data = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(data, kind, **options)
    return bytearray(data.getvalue())


def _claiming(kind: str, mark: bytes, skip: int, form: str, *values: int, **options) -> bytes:
    """A file with other numbers ``skip`` bytes after a mark."""
    data = _encoded(kind, **options)
    struct.pack_into(form, data, data.index(mark) + skip, *values)
    return bytes(data)


def _frames(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in range(0, 250, 50)]
    data = io.BytesIO()
    frames[0].save(data, kind, save_all=True, append_images=frames[1:])
    return data.getvalue()


ZEROS = zlib.compress(bytes(100 << 20), 9)  # 100 MB in 100 kB
BOMBS = {
    "gigapixels.png": _png(60_000, 60_000),
    "121-megapixels.png": _png(11_000, 11_000),  # Pillow itself only warns below 179
    "profile.png": _png(4, 4, _chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "text.png": _png(4, 4, _chunk(b"zTXt", b"x\0\0" + ZEROS)),
    "unicode.png": _png(4, 4, _chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
    "texts.png": _png(4, 4, *[_chunk(b"zTXt", b"x%d\0\0" % k + zlib.compress(bytes(1 << 20))) for k in range(70)]),
    "gigapixels.tif": _claiming("TIFF", b"\0\1\4\0\1\0\0\0", 8, "<I", 1 << 26),  # the tag 256, one LONG: the width
    "gigapixels.webp": _claiming("WEBP", b"VP8 ", 14, "<HH", 16383, 16383),
    "gigapixels.gif": _claiming("GIF", b"GIF8", 6, "<HH", 65535, 65535),
    "gigapixels.jpg": _claiming("JPEG", b"\xff\xc0", 5, ">HH", 65500, 65500),
    "gigapixels.bmp": _claiming("BMP", b"BM", 18, "<ii", 100_000, 100_000),
    "gigapixels.jp2": _claiming("JPEG2000", b"ihdr", 4, ">II", 90_000, 90_000),
    "gigapixels.ppm": b"P6 100000 100000 255\n" + bytes(100),
}


def _rise(act: Callable[[], object]) -> int:
    """Return by how many bytes this process's memory rises at most meanwhile."""

    def status(name: str) -> int:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(lines[name].split()[0])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present state
    except OSError:
        pytest.skip("the kernel does not say how much memory was used")
    before = status("VmRSS")
    act()
    return status("VmHWM") - before


@pytest.mark.parametrize("name", BOMBS)
def test_a_photo_that_would_fill_the_memory_is_refused_by_its_header(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name])

    def refused() -> None:
        for act in (lambda: read(tmp_path / name), lambda: size_of(tmp_path / name)):
            with pytest.raises(InvrepError, match=r"has over 89478485 pixels|is damaged \(.*MAX_TEXT"):
                act()

    assert _rise(refused) < 80 << 20


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(_frames(kind))
    with pytest.raises(InvrepError, match="an animation of 5 frames"):
        read(tmp_path / "a.png")


def test_no_parser_runs_that_is_not_for_photos(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: ran.append(args))
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **_: ran.append(args))
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (tmp_path / "a.jpg").write_bytes(head + b"(/tmp/x) (w) file\nshowpage\n%%EOF\n")
    with pytest.raises(InvrepError, match="holds no image of a kind that is read"):
        read(tmp_path / "a.jpg")
    assert not ran and not {".eps", ".ps", ".psd", ".fits"} & invrep.data.photo_reading.suffixes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA"])
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, kind):
    try:
        whole = _encoded(kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow has no {kind}")
    path, refused = tmp_path / "a.png", 0
    generator = torch.Generator().manual_seed(0)

    def draw(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    for k in range(60):
        data = bytearray(whole)
        for _ in range(1 + draw(8)):
            data[draw(min(len(data), 64 if k % 2 else len(data)))] = draw(256)
        path.write_bytes(data[: draw(len(data)) if k % 5 == 0 else None])
        try:
            pixels = read(path)
            assert size_of(path) == tuple(pixels.shape[1:])
        except InvrepError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_the_header_gives_the_size_that_the_photo_has(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 9 is none
    (tmp_path / "a").write_bytes(_encoded(kind, exif=exif))
    assert size_of(tmp_path / "a") == tuple(read(tmp_path / "a").shape[1:])


def test_a_phones_second_frame_is_left_out(tmp_path):
    first, second = Image.new("RGB", (16, 12), "red"), Image.new("L", (4, 3))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert read(tmp_path / "a.jpg").shape == (3, 12, 16)


def test_a_pipe_or_a_device_is_not_opened(tmp_path, job):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(InvrepError, match="No photo"):
        find(str(tmp_path))
    for name in ("pipe.png", "zero.png"):
        (tmp_path / "list.txt").write_text(f"{name}\n")
        assert f"{name} is no file" in job("data.path=list.txt").err
        outcome = job("rep=alexnet", "layer=conv1", f"rep.weights={name}")
        assert outcome.status == 1 and "it is a folder, a pipe or a device" in outcome.err
    assert "There is no weights file" in job("rep=caffenet", "layer=1", "rep.weights=pipe.png").err
    assert "it is a folder, a pipe or a device" in job("rep=vgg16", "layer=conv1_1", f"rep.weights={tmp_path}").err
    assert "There is no code file" in job("objective=code", "objective.path=pipe.png", "data=none").err


# --- weights and codes ------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


def _zipped(place: Path) -> None:
    torch.save({"features.0.weight": Payload()}, place)


def _bare(place: Path) -> None:
    place.write_bytes(pickle.dumps({"features.0.weight": Payload()}))


def _old(place: Path) -> None:
    torch.save({"features.0.weight": Payload()}, place, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("make", [_zipped, _bare, _old])
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "w.mat", "w"])
def test_weights_that_hold_code_do_not_run_it(tmp_path, monkeypatch, make, name):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(InvrepError, match=name):
        if name == "w.mat":
            invrep.representation("caffenet", layer=1, weights=name)
        else:
            invrep.representation("alexnet", layer="conv1", weights=name)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Payload()))  # it does what it says
    assert (tmp_path / "ran").exists()


def test_codes_and_the_cached_networks_hold_no_code_either(tmp_path, job, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    cache = tmp_path / "hub" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    name = "alexnet-owt-7be5be79.pth"
    _zipped(cache / name)
    _bare(tmp_path / "code.safetensors")
    outcome = job("objective=code", "objective.path=code.safetensors", "data=none", "data.size=[24,32]")
    assert outcome.status == 1 and "code.safetensors" in outcome.err
    assert name in job("rep=alexnet", "layer=conv1").err
    Image.effect_noise((48, 40), 50).save(tmp_path / "a.png")
    outcome = job("data.path=a.png", "restarts=2", "optim.steps=1")  # the spread looks for LPIPS's trunk
    assert outcome.status == 0 and "LPIPS is left out" in outcome.out + outcome.err
    assert not (tmp_path / "ran").exists()


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = [
    "a b.png",
    "Ångström.png",
    "猫 🐈.png",
    "new\nline.png",
    "100%.png",
    "%2E%2E.png",
    "a%20b.png",
    "hidden./a.png",
    "sub/a.png",
    "sub2/a.png",
    "Case.png",
    "case.png",
    "CASE.PNG",
    "שלום.png",
    "\u202egnp.exe.png",
    "\x1b[31mred.png",
    "[bold]x[/].png",
    "'quote\".png",
    "a,b;c.png",
    "$(touch ran).png",
    "-m.png",
    "é.png",  # one character
    "e\u0301.png",  # two, that look the same
    "l" * 251 + ".png",
    "m" * 250 + "x.png",
    "猫" * 83 + ".png",
    "\x01" * 200 + ".png",
    "d" * 255 + "/" + "e" * 251 + ".png",
    "a.png.png/b.png",
    "a.png",
    os.fsdecode(b"\xff\xfe.png"),
]


def test_every_name_has_results_of_its_own_and_none_elsewhere(tmp_path, job):
    place = tmp_path / "photos"
    for k, name in enumerate(NAMES):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        photo = Image.effect_noise((24, 16), 50)
        photo.putpixel((0, 0), 5 * k)
        photo.save(place / name, "PNG")
    outcome = job("data.path=photos", "optim.steps=1", "data.batch_size=32", "prior=none", "display=clip")
    assert outcome.status == 0, outcome.err
    results = Results(outcome.folder)
    rows = results.rows()
    assert {image for image, _ in rows} == set(NAMES) == {image for image, _ in results.pixels()}
    for paths in ([results.picture(name, 0) for name in NAMES], [results.photo(name) for name in NAMES]):
        assert len({path.resolve() for path in paths}) == len(NAMES)
        assert all(path.is_file() and outcome.folder.resolve() in path.resolve().parents for path in paths)
    for k, name in enumerate(NAMES):
        assert Image.open(results.photo(name)).getpixel((0, 0)) == 5 * k
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}
    assert "31 of 31 are finished" in job("data.path=photos", "optim.steps=1", "data.batch_size=32", "prior=none").out


IDS = ["../../x", "/etc/x", "..", ".", "a/../../../x", "~/x", "C:\\x", "x" * 9000, "y/" * 3000 + "z", "a//b"]
IDS += ["<script>", "a\nb", "\u2028", " ", "CON", "a.png.0.png/x", "a.png", "=1+1"]


def test_ids_of_a_table_lead_nowhere_else(tmp_path, job):
    Image.effect_noise((24, 16), 50).save(tmp_path / "p.png")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "path"), *((name, "p.png") for name in IDS)])
    outcome = job("data.path=list.csv", "optim.steps=1", "data.batch_size=32", "save_codes=true")
    assert outcome.status == 0, outcome.err
    results = Results(outcome.folder)
    ids = [name.lstrip("/") for name in IDS]
    assert {image for image, _ in results.rows()} == set(ids) == {image for image, _ in results.pixels()}
    for where in (lambda name: results.picture(name, 0), results.photo, results.code):
        paths = {where(name).resolve() for name in ids}
        assert len(paths) == len(ids)
        assert all(path.is_file() and outcome.folder.resolve() in path.parents for path in paths)
    assert {path.name for path in tmp_path.iterdir()} == {"p.png", "list.csv", "out"}


def test_ids_that_differ_by_a_slash_in_front_are_one(tmp_path):
    (tmp_path / "list.csv").write_text("id,path\n/a,p.png\na,q.png\n")
    with pytest.raises(InvrepError, match="names a twice"):
        find(str(tmp_path / "list.csv"))


@pytest.mark.parametrize("image", ["x" * 9000, "é" * 500, "猫" * 999, "/" * 5000, "\0" * 99, "a/" * 501 + "b"])
def test_a_long_name_ends_with_a_hash(image):
    name = file_name(image)
    assert len(name.encode()) <= 1000 and all(len(part.encode()) <= 200 for part in name.split("/"))
    assert name != file_name(image + "x") and name != file_name("x" + image) and file_name(name) != name


def test_links_are_followed_once(tmp_path):
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "outside.png")
    (place / "link.png").symlink_to("../outside.png")
    (place / "gone.png").symlink_to("nowhere.png")
    (place / "self.png").symlink_to("self.png")
    (place / "sub" / "up").symlink_to("..")
    (place / "sub" / "round").symlink_to("../sub")
    (tmp_path / "other").symlink_to("photos")
    assert [photo.id for photo in find(str(place))] == ["link.png"]
    assert [photo.id for photo in find(str(tmp_path / "other"))] == ["link.png"]
    (tmp_path / "list.txt").write_text("photos/gone.png\n")
    with pytest.raises(InvrepError, match="There is no file"):
        find(str(tmp_path / "list.txt"))[0].fetch()


def test_a_message_stays_on_its_line(tmp_path, job):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "\x1b[2Ja\nb.png").write_text("x")
    (tmp_path / "photos" / os.fsdecode(b"\xff.png")).write_text("x")
    err = job("data.path=photos").err
    assert "\\x1b[2Ja\\nb.png" in err and "\\udcff.png" in err and "\x1b" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


# --- folders ---------------------------------------------------------------------------------------------------------

TINY = ("data.path=a.png", "optim.steps=1")


@pytest.fixture
def tiny(tmp_path) -> None:
    Image.effect_noise((24, 16), 50).save(tmp_path / "a.png")


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")])
@pytest.mark.parametrize("output", ["/proc/none", "file/x", "x" * 300])
def test_an_output_that_cannot_be_written(tmp_path, job, tiny, output, sweep):
    (tmp_path / "file").write_text("")
    outcome = job(*TINY, *sweep, f"output={output}")
    assert outcome.status == 1 and "Traceback" not in outcome.err
    assert "written (" in outcome.err and output in outcome.err


def test_brackets_in_names_are_no_markup(job, tiny):
    outcome = job(*TINY, "output='out[/x]'", "name='[red]'")
    assert outcome.status == 0 and "[red]: 1 image" in outcome.out and "out[/x]/_red_" in outcome.out


def _filled(pattern: str, data: bytes | None) -> Callable[[Path], None]:
    """Fill the first file of a pattern with bytes; None leaves its first half."""

    def act(folder: Path) -> None:
        path = min(folder.glob(pattern))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if data is None else data)

    return act


EDITS = {
    "a table cut": _filled("table/*.parquet", None),
    "a table empty": _filled("table/*.parquet", b""),
    "a table's bytes": _filled("table/*.parquet", bytes(range(256))),
    "a table lost": lambda folder: min(folder.glob("table/*.parquet")).unlink(),
    "a table more": lambda folder: (folder / "table" / "x.parquet").write_bytes(b"x"),
    "pixels cut": _filled("parts/*.safetensors", None),
    "pixels empty": _filled("parts/*.safetensors", b""),
    "pixels lost": lambda folder: min(folder.glob("parts/*.safetensors")).unlink(),
    "other pixels": lambda folder: save_file({"b": torch.zeros(1)}, min(folder.glob("parts/*.safetensors"))),
    "spread": _filled("spread/*.parquet", None),
    "spread lost": lambda folder: min(folder.glob("spread/*.parquet")).unlink(),
    "exports": lambda folder: [_filled(name, b"x")(folder) for name in ("*.csv", "curves.csv", "*.safetensors")],
    "a picture": _filled("grid.png", None),
    "config": _filled("config.yaml", b"{[: !!python/object/apply:os.system ['touch ran']"),
}


def test_what_a_results_folder_names_is_never_run(tmp_path, job, tiny, monkeypatch):
    """A job, its page and its figures read data: a planted ``_target_`` or interpolation stays the text that it is."""
    command = ("-m", *TINY, "seed=0,1", "hydra.sweep.dir=out/sweeps/now", "objective.region=1x1")
    assert job(*command).status == 0
    monkeypatch.setenv("SECRET", "hunter2")
    planted = {"_target_": "builtins.open", "_args_": [str(tmp_path / "ran"), "w"]}
    folders = [path for path in (tmp_path / "out").iterdir() if path.name != "sweeps"]
    for folder in folders:
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        config |= dict.fromkeys(("rep", "objective", "prior", "optim", "logger", "trainer", "compute"), planted)
        config["used"]["layer"] = "${oc.env:SECRET}"
        OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    for path in (tmp_path / "out/sweeps/now/jobs").glob("*.yaml"):
        note = OmegaConf.to_container(OmegaConf.load(path)) | {"message": "${oc.env:SECRET}", "more": planted}
        OmegaConf.save(OmegaConf.create(note), path)
    for place in (tmp_path / "out", tmp_path / "out/sweeps/now"):
        report([str(place), "-o", str(tmp_path / "page.html")])
        page = (tmp_path / "page.html").read_text()
        assert "hunter2" not in page and "oc.env:SECRET" in page
    cells = [Cell({"seed": k}, Results(folder), "done", ["a.png"], 1) for k, folder in enumerate(folders)]
    grid(cells, tmp_path / "figure", columns="seed")
    photos(cells, tmp_path / "photos")
    table(cells, tmp_path / "table", rows="value", columns="seed", values={"error": "error"})
    assert "1 of 1 are finished" in job(*command).out
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> list[Path]:
    """What becomes the folder of a finished job, once there is one."""
    return [tmp_path_factory.mktemp("finished")]


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_results_that_somebody_edited(tmp_path, job, tiny, finished, edit):
    command = (*TINY, "restarts=3")
    if not any(finished[0].iterdir()):
        job(*TINY, "restarts=2")
        shutil.copytree(tmp_path / "out", finished[0], dirs_exist_ok=True)
    shutil.copytree(finished[0], tmp_path / "out", dirs_exist_ok=True)
    (folder,) = (tmp_path / "out").iterdir()
    edit(folder)
    outcome = job(*command)
    assert "Traceback" not in outcome.err and not (tmp_path / "ran").exists()
    if outcome.status:
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
        assert "is not as it was written" in line
        (named,) = [path for path in folder.rglob("*") if f"{path.relative_to(tmp_path)} is not" in line]
        named.unlink()  # as the sentence says
        outcome = job(*command)
    assert outcome.status == 0, outcome.err
    results = Results(folder)
    assert len(results.rows()) == 3 == len(results.pixels()) == len(load_file(results.reconstructions))
    assert results.spreads()["a.png"]["restarts"] == 3 and marked(results.grid)
    lines = [len(path.read_text().splitlines()) for path in (results.metrics, results.curves, results.spread)]
    assert lines == [4, 7, 2]
