import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tifffile import imwrite

from invrep.data.batching import batches
from invrep.data.display import shown, to_pil
from invrep.data.photo_reading import bundled, read, size_of
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.representations.geometry import InputSize
from invrep.results.file_names import file_name


@pytest.fixture
def ramp() -> np.ndarray:
    """An 8-bit RGB picture, 20×30, of which every corner differs."""
    y, x = np.mgrid[:20, :30]
    return np.stack([x * 8, y * 12, 255 - x * 4], 2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path, ramp):
    found = read(save(tmp_path / "a.png", Image.fromarray(ramp)))
    assert torch.equal((found * 255).round().byte(), torch.from_numpy(ramp).permute(2, 0, 1))


def test_gray_has_the_authors_weights(tmp_path, ramp):
    found = read(save(tmp_path / "a.png", Image.fromarray(ramp)), color="gray")
    np.testing.assert_allclose(found[0], ramp @ [0.2989, 0.5870, 0.1140] / 255, atol=1e-6)


def test_palette_alpha_cmyk_and_one_bit(tmp_path, ramp):
    image = Image.fromarray(ramp)
    flat = torch.from_numpy(ramp).permute(2, 0, 1) / 255
    assert (read(save(tmp_path / "p.png", image.quantize(256))) - flat).abs().mean() < 0.05
    assert (read(save(tmp_path / "c.tif", image.convert("CMYK"))) - flat).abs().mean() < 0.05
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.full((20, 30), 51, np.uint8)))
    torch.testing.assert_close(read(save(tmp_path / "a.png", clear)), flat * 0.2 + 0.8, atol=4e-3, rtol=0)
    assert set(read(save(tmp_path / "1.png", image.convert("1"))).unique().tolist()) == {0.0, 1.0}


def test_sixteen_bits_are_kept(tmp_path):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    found = read(save(tmp_path / "a.png", Image.fromarray(values)))
    np.testing.assert_allclose(found[1], values / 65535, atol=1e-6)


RAMP = np.linspace(0, 1, 600).reshape(20, 30)
DEEP = {
    "uint16": (RAMP * 65535).astype("uint16"),
    "big-endian uint16": (RAMP * 65535).astype(">u2"),
    "float32 in [0, 1]": RAMP.astype("float32"),
    "big-endian float32 in [0, 1]": RAMP.astype(">f4"),
}
UNCLEAR = {  # values, and black and white
    "float32 up to 255": ((RAMP * 255).astype("float32"), (0, 255)),
    "float32 from -1": ((RAMP * 2 - 1).astype("float32"), (-1, 1)),
    "int8": ((RAMP * 255 - 128).astype("int8"), (-128, 127)),
    "int16": ((RAMP * 4000 - 1000).astype("int16"), (-1000, 3000)),
    "big-endian int16": ((RAMP * 4000 - 1000).astype(">i2"), (-1000, 3000)),
    "int32": ((RAMP * 2e9 - 1e9).astype("int32"), (-1e9, 1e9)),
    "uint32": ((RAMP * 4e9).astype("uint32"), (0, 4e9)),
    "counts": ((RAMP * 3000).astype("uint32"), (0, 3000)),
}


def tiff(path: Path, values: np.ndarray, **options) -> Path:
    imwrite(path, values, byteorder=">" if values.dtype.byteorder == ">" else "<", **options)
    return path


@pytest.mark.parametrize("values", DEEP.values(), ids=DEEP)
def test_a_type_that_says_what_white_is(tmp_path, values):
    found = read(tiff(tmp_path / "a.tif", values))
    assert found.shape == (3, 20, 30)
    np.testing.assert_allclose(found[1], RAMP, atol=2e-5)
    if values.dtype.str != ">u2":  # which Pillow does not read inverted
        inverted = read(tiff(tmp_path / "b.tif", values, photometric="miniswhite"))
        np.testing.assert_allclose(inverted[0], 1 - RAMP, atol=2e-5)


def test_twelve_bits_have_their_own_white(tmp_path):
    values = np.round(RAMP * 4095).astype(int)
    packed = np.array([[a >> 4, (a & 15) << 4 | b >> 8, b & 255] for a, b in values.reshape(-1, 2)], "uint8").tobytes()
    tags = {256: 30, 257: 20, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    (tmp_path / "a.tif").write_bytes(head + packed + struct.pack("<H", len(tags)) + entries + bytes(4))
    np.testing.assert_allclose(read(tmp_path / "a.tif")[0], RAMP, atol=2e-4)


@pytest.mark.parametrize(("values", "ends"), UNCLEAR.values(), ids=UNCLEAR)
def test_a_type_that_does_not_say_it_is_asked_for(tmp_path, values, ends):
    path = tiff(tmp_path / "a.tif", values)
    with pytest.raises(
        InvrepError, match=r"a\.tif holds .* from .* to .*; give data.range=\[LOW,HIGH\], such as"
    ) as said:
        read(path)
    assert ("signed" in str(said.value)) == (values.dtype.kind == "i")
    np.testing.assert_allclose(read(path, values=ends)[2], RAMP, atol=8e-3 if values.itemsize == 1 else 5e-4)
    middle = sum(ends) / 2
    cut = read(path, values=(ends[0], middle))[0]  # a window, as for a CT scan
    np.testing.assert_allclose(cut, np.minimum(RAMP * 2, 1), atol=2e-2 if values.itemsize == 1 else 1e-3)
    with pytest.raises(InvrepError, match=r"none of them within data\.range"):
        read(path, values=(ends[1] + 1, ends[1] + 2))


@pytest.mark.parametrize(("most", "such"), [(250, "[0,255]"), (60000, "[0,65535]"), (7, "[0,7]"), (3000, "[0,3000]")])
def test_a_range_that_the_message_proposes_fits_the_values(tmp_path, most, such):
    values = np.linspace(0, most, 600).reshape(20, 30).astype("float32")
    with pytest.raises(InvrepError, match=re.escape(f"such as data.range={such}.")):
        read(tiff(tmp_path / "a.tif", values))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number(tmp_path, bad):
    values = RAMP.astype("float32")
    values[2:4, 5] = bad
    with pytest.raises(InvrepError, match=r"a\.tif holds 2 pixels that are NaN or infinite; fill them in"):
        read(tiff(tmp_path / "a.tif", values), values=(0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_colours_that_pillow_cannot_read(tmp_path, dtype):
    imwrite(tmp_path / "a.tif", np.ones((20, 30, 3), dtype), photometric="rgb")
    with pytest.raises(InvrepError, match=r"holds no image of a kind that is read, .*convert it"):
        read(tmp_path / "a.tif")


def test_a_jobs_range(job, tmp_path):
    tiff(tmp_path / "a.tif", UNCLEAR["int16"][0])
    assert "such as data.range=[-1000,3000]" in job("data.path=a.tif").err
    assert job("data.path=a.tif", "data.range=[-1000,3000]", "display=clip").status == 0
    assert job("data.path=a.tif", "data.range=[0,1000]", "display=clip").status == 0  # another job
    shown = [np.asarray(Image.open(path)) for path in tmp_path.glob("out/*/photos/a.tif.png")]
    assert len(shown) == 2 and not np.array_equal(*shown)
    for wrong in ("[1,1]", "[3,2]", "5", "[0]", "[0,a]"):
        outcome = job("data.path=a.tif", f"data.range={wrong}")
        assert outcome.status == 1 and "data.range=" in outcome.err and "is not valid" in outcome.err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, ramp, orientation):
    upright = Image.fromarray(ramp)
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", stored, exif=exif)
    assert torch.equal((read(path) * 255).round().byte(), torch.from_numpy(ramp).permute(2, 0, 1))
    assert size_of(path) == (20, 30)


def test_one_pixel(tmp_path):
    assert read(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (255, 0, 51)))).flatten().tolist() == pytest.approx(
        [1, 0, 0.2]
    )


def test_model_resize_is_torchvisions_published_transform():
    from torchvision.models import AlexNet_Weights

    preset = AlexNet_Weights.DEFAULT.transforms()
    path = bundled("coffee")
    size = InputSize(crop=(224, 224), resize=256, interpolation="bilinear")
    wanted = preset(Image.open(path).convert("RGB"))
    found = (read(path, resize="model", input_size=size) - torch.tensor(preset.mean)[:, None, None]) / torch.tensor(
        preset.std
    )[:, None, None]
    torch.testing.assert_close(found, wanted)
    assert read(path, resize="squash", input_size=size).shape == (3, 224, 224)
    assert read(path, resize="none", input_size=size).shape == (3, 400, 600)
    assert size_of(path) == (400, 600)


def _gif(path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _truncated(path: Path) -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "JPEG")
    path.write_bytes(data.getvalue()[:600])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("a.jpg", lambda path: path.write_text("hello"), "holds no image of a kind that is read"),
        ("a.jpg", _truncated, "is damaged"),
        ("a.gif", _gif, "an animation of 2 frames"),
        ("a.png", lambda path: None, "There is no file"),
        ("a.png", lambda path: path.write_bytes(b""), "holds no image of a kind that is read"),
        ("a.jpg", lambda path: path.mkdir(), "is damaged"),
    ],
)
def test_what_is_no_photo_is_said_in_a_sentence(tmp_path, name, make, says):
    path = tmp_path / name
    make(path)
    with pytest.raises(InvrepError, match=says) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_photo_that_decompresses_to_gigabytes_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.new("1", (2000, 2000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(InvrepError, match="over 1000000 pixels"):
        read(path)


def test_shown_and_to_pil():
    image = torch.tensor([[[-1.0, 0.5], [1.0, 3.0]]])
    assert shown(image, "rescale").flatten().tolist() == [0, 0.375, 0.5, 1]
    assert shown(image, "clip").flatten().tolist() == [0, 0.5, 1, 1]
    assert np.asarray(to_pil(shown(image, "clip"))).tolist() == [[0, 128], [255, 255]]
    assert shown(torch.full((1, 2, 2), 0.3), "rescale").isfinite().all()


def test_a_folder_is_searched_in_order_and_limited(photos):
    (photos / "notes.txt").write_text("x")
    (photos / ".hidden.png").write_text("x")
    assert [photo.id for photo in find(str(photos))] == ["a.png", "b.png", "sub/a.png"]
    assert [photo.id for photo in find(str(photos), 2)] == ["a.png", "b.png"]
    assert find(str(photos / "b.png"))[0].id == "b.png"


def test_patterns_and_lists(photos, tmp_path):
    assert [photo.id for photo in find(str(photos / "**" / "a.*"))] == ["a.png", "sub/a.png"]
    assert [photo.id for photo in find(str(photos / "[ab].png"), 1)] == ["a.png"]
    (tmp_path / "list.txt").write_text("photos/sub/a.png\n\nphotos/b.png\r\n", newline="")
    assert [photo.id for photo in find(str(tmp_path / "list.txt"))] == ["photos/sub/a.png", "photos/b.png"]
    assert all(photo.fetch() for photo in find(str(tmp_path / "list.txt")))
    (tmp_path / "list.csv").write_text("id,path\ncat,photos/a.png\n,photos/b.png\n")
    assert [(photo.id, Path(photo.name).name) for photo in find(str(tmp_path / "list.csv"))] == [
        ("cat", "a.png"),
        ("photos/b.png", "b.png"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "\n", "names no photo"),
        ("a.txt", "b.png\nb.png\n", "names b.png twice"),
        ("a.csv", "id,file\n1,b.png\n", "no column path"),
        ("a.csv", "id,path\n1,b.png\n1,c.png\n", "names 1 twice"),
    ],
)
def test_wrong_lists(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvrepError, match=says):
        find(str(tmp_path / name))


@pytest.mark.parametrize("image", ["../../a.png", "/a.png", "..", "a/./b", "a//b", ""])
def test_no_id_leads_out_of_the_folder(image):
    parts = Path(file_name(image)).parts
    assert ".." not in parts and parts[0] != "/" and len(parts) == image.count("/") + 1


def test_batches_are_of_one_size_and_given_as_soon_as_they_are_full():
    sizes = [(4, 4), (5, 4), (4, 4), (4, 4)]
    assert [batch.places for batch in batches(enumerate(sizes), lambda _: 1)] == [[0], [1], [2], [3]]
    asked, taken = [], []

    def sized():
        for item in enumerate(sizes):
            taken.append(item)
            yield item

    found = batches(sized(), lambda size: asked.append(size) or 8 // size[0], restarts=2)
    first = next(found)
    assert (first.size, first.places, list(first.rows), len(taken)) == ((5, 4), [1], [2, 3], 2)
    assert [batch.places for batch in found] == [[0, 2], [3]] and asked == [(4, 4), (5, 4)]
