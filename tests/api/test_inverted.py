"""A result shows, plots, saves and loads itself."""

import base64
import io
import json
import re
import signal
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file
from torch import nn

import invrep
from invrep.api.html import MOST_IMAGES, MOST_RESTARTS
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.results.store import Results
from invrep.tracking.notebook_bar import NotebookBar
from invrep.tracking.progress import Report


@pytest.fixture(scope="module")
def found():
    photo = read(bundled("chelsea"))[:, 100:148, 130:194].contiguous()
    photos = torch.stack([photo, photo.flip(2)])
    return invrep.invert(photos, invrep.representation("hog"), restarts=3, steps=5, ids=["<b>cat</b>", 'a "b"'])


class Pictures(HTMLParser):
    """Every picture of a page, with its alternative text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.open = [], "", []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag in ("div", "figure", "figcaption", "img", "code"), tag  # neither script nor style sheet
        if tag == "img":
            head, _, data = attributes["src"].partition(",")
            assert head == "data:image/webp;base64"
            self.found.append((np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), attributes["alt"]))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


# --- in a notebook ----------------------------------------------------------------------------------------------------


def test_a_notebook_shows_photos_and_preimages_with_errors(found):
    page = Pictures(found._repr_html_())
    assert [what for _, what in page.found[:2]] == ["<b>cat</b>", "pre-image of <b>cat</b>, restart 0"]
    assert len(page.found) == 2 * (1 + 3) and page.found[0][0].shape == (48, 64, 3)
    for value in found.metrics["error"].flatten():
        assert f"{100 * value:.2f} %, still falling" in page.text  # after five passes
    assert repr(found) in page.text and repr(found).startswith("Inverted(2 images × 3 restarts of 3×48×64, mean error ")


def test_photo_and_preimage_have_one_scale(found):
    grey = replace(
        found, photos=torch.full((2, 3, 8, 8), 0.25), reconstructions=torch.full((2, 3, 3, 8, 8), 0.75), display="clip"
    )
    photo, preimage = (picture for picture, _ in Pictures(grey._repr_html_()).found[:2])
    assert (photo == 64).all() and (preimage == 191).all()


def test_hundreds_of_images_stay_a_small_grid(found):
    large = torch.rand(1, 1, 3, 9, 12).repeat_interleave(60, 3).repeat_interleave(30, 4).expand(400, 9, -1, -1, -1)
    many = replace(
        found,
        reconstructions=large,
        photos=large[:, 0],
        names=[f"images[{k}]" for k in range(400)],
        metrics={"activation": torch.zeros(400, 9)},
        converged=torch.zeros(400, 9, dtype=torch.bool),
        passes=torch.full((400, 9), 5),
    )
    html = many._repr_html_()
    page = Pictures(html)
    assert len(page.found) == MOST_IMAGES * (1 + MOST_RESTARTS) and len(html) < 1e6
    assert page.found[0][0].shape == (360, 240, 3) and "394 more images and 4 more restarts" in page.text
    assert "0, not converged" in page.text and "3600 not converged" in page.text
    with pytest.raises(InvrepError, match=r"no images\[400\]; expected an index below 400"):
        many.plot(images=[400])
    assert len(many.plot(images=[-1, 7]).axes) == 2 * 8


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_shown(channels):
    found = invrep.invert(
        (channels, 12, 16), nn.Conv2d(channels, 2, 3), objective=lambda code, **_: _Sum(code), steps=2
    )
    assert len(Pictures(found._repr_html_()).found) == 1 and found.photos is None and found.plot() and found.curve()


class _Sum(invrep.objectives.Objective):
    shows = "activation"
    needs_photo = False

    def value(self, code):
        return code[0].flatten(1).sum(1)


@pytest.mark.parametrize("backend", ["none", "inline"])
def test_a_figure_is_shown_once(found, backend):
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    import matplotlib.pyplot as plt

    if backend == "inline":
        pytest.importorskip("IPython.core.pylabtools").select_figure_formats(shell, {"png"})
    for figure in (found.plot(), found.curve()):
        shown, _ = shell.display_formatter.format(figure)
        assert shown.keys() == {"text/plain", "image/png"}
        assert Image.open(io.BytesIO(figure._repr_png_())).width > 500
    assert not plt.get_fignums()  # pyplot would show them a second time
    assert shell.display_formatter.format(found)[0].keys() == {"text/plain", "text/html"}


def test_the_curve_has_every_restart_on_logarithmic_axes(found):
    (axes,) = found.curve().axes
    assert axes.get_yscale() == "log" and axes.get_xscale() == "symlog" and len(axes.lines) == 2 * 3
    at, values = axes.lines[-1].get_data()
    assert list(at) == [passes for passes, _ in found.history] and at[0] == 0
    np.testing.assert_allclose(values, [terms["error"][1, 2] for _, terms in found.history])


def test_a_caption_says_that_the_error_still_falls(found):
    errors = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    end = torch.tensor([[0.4, 0.49, 0.4], [0.4, 0.4, 0.4]])
    slow = replace(found, history=[(0, {"error": 2 * errors}), (90, {"error": errors}), (100, {"error": end})])
    assert slow.caption(0, 0).endswith(" %, still falling") and slow.caption(0, 1).endswith(" %")


def test_the_bar_names_images_pass_and_error(capsys):
    bar = NotebookBar(4 * 48 * 64, 3)
    with bar:
        bar.report(Report(2 * 48 * 64, 0, 0.031, "error", False, 0, "pass 2/4", (1, 2)))
        drawn = capsys.readouterr().err.rpartition("\r")[2]
    assert re.search(r"images 1–2/3:  50% \|.*\| .*<.*, pass 2/4, error 3\.10 %", drawn)


# --- on disk ----------------------------------------------------------------------------------------------------------


def _same(one, other):
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(theirs, value, rtol=0, atol=0, equal_nan=True)
        elif name in ("codes", "targets"):
            assert len(value) == len(theirs) and all(map(torch.equal, value, theirs))
        elif name not in ("metrics", "history"):
            assert theirs == value
    assert one.metrics.keys() == other.metrics.keys()
    assert all(torch.equal(values, other.metrics[name]) for name, values in one.metrics.items())
    assert all(
        at == there and all(torch.equal(values, terms[name]) for name, values in these.items())
        for (at, these), (there, terms) in zip(one.history, other.history, strict=True)
    )


def test_a_result_comes_back_from_its_folder(found, photo, tmp_path):
    found.save(tmp_path / "deep" / "found")
    _same(found, invrep.load(tmp_path / "deep" / "found"))
    complex_codes = invrep.invert(photo.double(), lambda images: [torch.fft.rfft2(images), images], steps=2)
    complex_codes.save(tmp_path / "deep" / "found")  # in place of the earlier one
    _same(complex_codes, invrep.load(tmp_path / "deep" / "found"))
    assert [path.name for path in (tmp_path / "deep" / "found").iterdir()] == ["inverted.safetensors"]


def test_a_file_that_is_no_result_is_refused_in_a_sentence(found, tmp_path):
    with pytest.raises(InvrepError, match=r"holds no result; expected the folder of found\.save"):
        invrep.load(tmp_path)
    found.save(tmp_path)
    path = tmp_path / "inverted.safetensors"
    whole = path.read_bytes()
    tensors = load(whole)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvrepError, match="cannot be read"):
        invrep.load(tmp_path)
    save_file(tensors, path)
    with pytest.raises(InvrepError, match="cannot be read"):
        invrep.load(tmp_path)
    save_file(tensors, path, metadata={"invrep": json.dumps({"format": "9"})})
    with pytest.raises(InvrepError, match="has format 9, but this version reads format 1"):
        invrep.load(tmp_path)
    with pytest.raises(InvrepError, match=r"cannot be written .*; save it in another folder"):
        found.save(path / "below")


def test_a_job_is_loaded(job, photos):
    outcome = job("rep=hog", f"data.path={photos}", "restarts=2", "data.resize=none")
    found, rows = invrep.load(outcome.folder), Results(outcome.folder).rows()
    assert found.names == ["a.png", "b.png", "sub/a.png"] and found.reconstructions.shape == (3, 2, 1, 48, 64)
    assert found.metrics["error"][2, 1] == rows["sub/a.png", 1]["error"] and found.metrics["psnr"].shape == (3, 2)
    assert found.history[-1][0] == 4 and found.codes == [] and found.display == "rescale"
    assert found.history[-1][1]["error"][2, 1] == pytest.approx(rows["sub/a.png", 1]["error"], rel=1e-5)
    assert len(Pictures(found._repr_html_()).found) == 3 * 3 and found.curve() and found.photos.shape == (3, 1, 48, 64)


# --- stopped ----------------------------------------------------------------------------------------------------------


class Pressed(nn.Module):
    """A convolution during some of whose passes someone presses the stop button."""

    total = 0  # of the class, since a job has a copy of the module

    def __init__(self, *passes, times=1):
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3)
        self.passes, self.times = passes, times

    def forward(self, images):
        if torch.is_grad_enabled():
            Pressed.total += 1
            for _ in range(self.times * (Pressed.total in self.passes)):
                signal.raise_signal(signal.SIGINT)
        return self.inner(images)


@pytest.fixture
def prompt(monkeypatch):
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    Pressed.total = 0
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, handler)


def test_the_stop_button_returns_what_is_there(prompt, photo):
    photos = torch.stack([photo, photo.flip(2), 1 - photo])
    with pytest.warns(UserWarning, match=r"Stopped after pass 7 of 30; the result holds 2 of 3 images\.") as said:
        # a trial's pass, thirty passes of the first image, another trial's, seven of the second
        found = invrep.invert(photos, Pressed(1 + 30 + 1 + 7), steps=30, batch_size=1)
    assert said[0].filename == __file__
    assert found.stopped and found.passes.tolist() == [[30], [7]] and found.converged.tolist() == [[True], [False]]
    assert found.metrics["error"].isfinite().all() and found.targets[0].shape[0] == found.codes[0].shape[0] == 2
    assert found.caption(1, 0).endswith("%, not converged, pass 7") and "stopped, 1 not converged" in repr(found)


def test_restarts_of_an_unfinished_first_image_are_kept(prompt, photo):
    with pytest.warns(UserWarning, match=r"Stopped after pass 3 of 30\."):
        found = invrep.invert(photo, Pressed(4), steps=30, restarts=5, batch_size=2)
    assert found.reconstructions.shape[:2] == (1, 2) and found.passes.tolist() == [[3, 3]]


@pytest.mark.parametrize("module", [Pressed(4, times=2), Pressed(1, 2)], ids=["in a pass", "before a pass"])
def test_a_second_press_raises(prompt, photo, module):
    with pytest.raises(KeyboardInterrupt):
        invrep.invert(photo, module, steps=30)


def test_an_interrupt_ends_a_script(prompt, photo, monkeypatch):
    monkeypatch.delattr(sys, "ps1")
    with pytest.raises(KeyboardInterrupt):
        invrep.invert(photo, Pressed(4), steps=30)
