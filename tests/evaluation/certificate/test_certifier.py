"""Certificates by hand, and of pictures whose verdict is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.paths import SHARED
from scipy.stats import spearmanr
from torch import nn
from torchvision.models import resnet18, squeezenet1_1
from torchvision.transforms.functional import gaussian_blur

import invrep
from invrep.data.photo_reading import bundled, read
from invrep.evaluation.certificate import null
from invrep.evaluation.certificate.certifier import Certifier
from invrep.evaluation.certificate.held_out import HeldOut
from invrep.evaluation.certificate.null import NullPhotos, fitted
from invrep.evaluation.certificate.other_networks import OtherNetwork, at_hand
from invrep.evaluation.certificate.sentences import sentences
from invrep.objectives.match import Match
from invrep.representations.network import Network

WEIGHTS = SHARED / "weights"


def crops(count: int, size: int = 48) -> list[torch.Tensor]:
    """Return parts of a bundled photo, (3, size, size), each of another place."""
    whole = read(bundled("astronaut"))
    generator = torch.Generator().manual_seed(1)
    corners = (torch.rand(count, 2, generator=generator) * (512 - size)).long().tolist()
    return [whole[:, top : top + size, left : left + size].contiguous() for top, left in corners]


def small() -> Network:
    """A network of two layers, at the first."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(726, 7))
    return Network(module, "1", mean=0.4, std=0.3)


def certifier_of(phi, others, **parts) -> Certifier:
    photos = NullPhotos([lambda one=one: one for one in others])
    return Certifier(phi.private(), lambda code, shape: Match(code, phi=phi, shape=shape), photos, **parts)


def test_a_certificate_by_hand_with_numpy(monkeypatch):
    photo, *others = crops(24)
    phi, images = small(), torch.stack([crops(30)[27], (photo + 0.05 * torch.randn(3, 48, 48))])
    found = certifier_of(phi, [photo, *others])(images, photo)

    weight, bias = (tensor.detach().double().numpy() for tensor in (phi.module[0].weight, phi.module[0].bias))

    def code(image):
        x = (image.double().numpy() - 0.4) / 0.3
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))[:, ::2, ::2]
        return np.maximum(np.einsum("crsij,ocij->ors", windows, weight) + bias[:, None, None], 0)

    target = code(photo)
    norm = (target**2).sum()
    errors = [((code(image) - target) ** 2).sum() / norm for image in images]
    null_errors = np.array([((code(other) - target) ** 2).sum() / norm for other in others])
    assert found["error"].tolist() == pytest.approx(errors, rel=1e-5)
    assert found["null_photos"].tolist() == [23, 23]  # the photo itself, one of the 24, is no null photo
    assert found["null_percentile"].tolist() == pytest.approx([100 * (null_errors < e).mean() for e in errors])
    for k, image in enumerate(images):
        flat = code(image).ravel()
        assert float(found["rho"][k]) == pytest.approx(spearmanr(flat, target.ravel()).statistic, abs=1e-4)
        assert float(found["r2"][k]) == pytest.approx(np.corrcoef(flat, target.ravel())[0, 1] ** 2, rel=1e-4)
        assert float(found["snr_db"][k]) == pytest.approx(10 * math.log10(1 / errors[k]), rel=1e-4)
    ranks = [spearmanr(code(other).ravel(), target.ravel()).statistic for other in others]
    assert float(found["null_rho"][0]) == pytest.approx(max(ranks), abs=1e-4)
    assert float(found["null_snr_db"][0]) == pytest.approx(-10 * math.log10(null_errors.min()), rel=1e-4)

    def pooled(image):
        return code(image).reshape(6, 11, 2, 11, 2).mean((2, 4)).ravel()

    def score(image):
        return phi.module[4].weight.detach().double().numpy() @ pooled(image) + phi.module[4].bias.detach().numpy()

    for k, image in enumerate(images):
        for column, layer in (("held_out/2", pooled), ("held_out/output", score)):
            own = layer(photo)
            wanted = ((layer(image) - own) ** 2).sum() / (own**2).sum()
            assert float(found[column][k]) == pytest.approx(wanted, rel=1e-4)
    assert found["held_out"].tolist() == pytest.approx(((found["held_out/2"] + found["held_out/output"]) / 2).tolist())

    def histogram(image):
        grey = np.tensordot([0.2989, 0.587, 0.114], image.clamp(0, 1).numpy(), 1) * 255
        steps = np.hypot(np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1])
        counts = np.histogram(np.log2(1 + steps), 32, (0, 8.5))[0]
        return counts / counts.sum()

    usual = np.mean([histogram(other) for other in [photo, *others]], axis=0)
    distances = [np.abs(histogram(image) - usual).sum() / 2 for image in images]
    assert found["gradient_distance"].tolist() == pytest.approx(distances, abs=2e-3)
    # where the codes do not fit into memory, they are computed again, and give the same
    monkeypatch.setattr(null, "MOST_BYTES", 1000)
    again = certifier_of(phi, [photo, *others])
    for _ in range(2):
        assert torch.equal(again(images, photo)["null_percentile"], found["null_percentile"])


def test_a_region_counts_alone_and_a_zero_code_has_no_error():
    photo, *others = crops(5)
    phi = small()
    part = Certifier(
        phi.private(),
        lambda code, shape: Match(code, phi=phi, shape=shape, region="3x3", channels="0:2"),
        NullPhotos([lambda one=one: one for one in others]),
    )
    image = others[0].clone()
    image[:, 18:29, 18:29] = photo[:, 18:29, 18:29]  # what the 3×3 positions in the middle see
    found = part(torch.stack([image, others[1]]), photo)
    assert float(found["error"][0]) < 1e-9 < float(found["error"][1]) and float(found["rho"][0]) == pytest.approx(1)
    dark = Network(nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.ReLU()), "1")
    nothing = certifier_of(dark, others)(photo[None], torch.zeros(3, 48, 48))
    blank = ["error", "null_percentile", "jpeg_equivalent", "rho", "snr_db"]
    assert all(math.isnan(float(nothing[name])) for name in blank) and math.isfinite(float(nothing["ssim"]))
    assert sentences({name: float(value) for name, value in nothing.items()})[0].startswith("A denoiser")


def test_null_photos_of_any_size_fill_the_photos():
    tall = torch.rand(3, 90, 40)
    assert torch.equal(fitted(tall, (90, 40)), tall)
    wide = fitted(tall, (30, 80))
    assert wide.shape == (3, 30, 80) and fitted(tall, (200, 20)).shape == (3, 200, 20)
    line = torch.linspace(0, 1, 90)[:, None].expand(1, 90, 40)
    assert float(fitted(line, (30, 80)).mean()) == pytest.approx(0.5, abs=0.01)  # the middle of it


def test_layers_that_were_not_matched_are_spread_over_the_depth_and_have_weights(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "whole.pth")
    phi = invrep.representation("resnet18", layer="layer2", weights=tmp_path / "whole.pth")
    assert HeldOut(phi).names == ["relu", "layer1", "layer3", "layer4", "avgpool", "output"]
    random = invrep.representation("resnet18", layer="layer2", weights="random")
    assert HeldOut(random).names == ["relu", "layer1"]  # past layer2, random weights are not made


def test_other_networks_without_weights_are_named_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.save(squeezenet1_1().state_dict(), tmp_path / "squeeze.pth")
    phi = invrep.representation("alexnet", layer="relu1", weights="random")
    found, absent = at_hand({"squeezenet1_1": tmp_path / "squeeze.pth", "vgg16": None, "alexnet": None}, phi)
    assert [other.name for other in found] == ["squeezenet1_1"] and list(absent) == ["vgg16", "alexnet"]
    phi.weights_id = "of a file"
    assert "the inverted network itself" in at_hand(["alexnet"], phi)[1]["alexnet"]
    photo, *others = crops(4)
    columns = found[0](torch.stack([photo, others[0]]), photo, NullPhotos([lambda one=one: one for one in others]))
    assert columns["other_percentile/squeezenet1_1"].tolist()[0] == 0
    assert columns["other_class_kept/squeezenet1_1"].tolist()[0] == 1
    with pytest.raises(invrep.InvrepError, match=r"names resnet81, which torchvision lacks; the nearest .*resnet18"):
        at_hand(["resnet81"], phi)
    with pytest.raises(invrep.InvrepError, match="no weights file"):
        at_hand({"resnet18": tmp_path / "gone.pth"}, phi)


def test_controls_of_hog_are_ranked_as_they_should_be():
    """Of a photo itself, a cut descent, another photo, noise: each column says so."""
    photo, other, *others = crops(26, 64)
    phi = invrep.representation("hogb")
    grey = [one.mean(0, keepdim=True) for one in (photo, other, *others)]
    ends = [invrep.invert(grey[0], phi, steps=steps, ids=["x"]).reconstructions[0, 0] for steps in (60, 4)]
    blurred = gaussian_blur(grey[0], 5, 0.8)
    pictures = [grey[0], blurred, *ends, grey[1], torch.rand(1, 64, 64)]
    found = certifier_of(phi, grey[2:])(torch.stack(pictures), grey[0])
    itself, blur, done, cut, another, noise = range(6)
    assert found["null_percentile"][[itself, blur, done]].tolist() == [0, 0, 0]
    assert (found["jpeg_equivalent"][itself], found["shift_equivalent"][itself], found["noise_equivalent"][itself]) == (
        100,
        0,
        0,
    )
    for rising in ("error", "shift_equivalent", "noise_equivalent"):
        values = found[rising][[itself, done, cut, another]]
        assert (values.diff() >= 0).all() and values[1] < values[2], rising
    for falling in ("jpeg_equivalent", "rho", "r2", "snr_db"):
        values = found[falling][[itself, done, cut, another]]
        assert (values.diff() <= 0).all() and values[1] > values[2], falling
    assert found["ssim"].argmax() == itself and found["ssim"][noise] < found["ssim"][blur]
    natural = found["naturalness"]
    assert natural[itself] == 1 and natural[blur] < 1 < natural[noise] == natural.max()
    assert found["gradient_distance"][noise] == found["gradient_distance"].max()
    # over all photos, another photo's percentile is about 50
    shares = [
        float(certifier_of(phi, grey[2:])(grey[k][None], grey[0])["null_percentile"]) for k in range(2, len(grey), 3)
    ]
    assert 30 < np.mean(shares) < 70


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no real weights")
def test_controls_of_a_trained_network_are_ranked_as_they_should_be():
    """The photo, pre-images of two priors, a cut one, one of random weights, a blurred photo, another one, noise."""
    names = ["chelsea", "astronaut", "coffee", "rocket"]
    trained = WEIGHTS / "alexnet_features.safetensors"
    phi, random = (invrep.representation("alexnet", layer="relu4", weights=w) for w in (trained, "random"))
    photo, *others = (read(bundled(name), resize="squash", input_size=phi.input_size) for name in names)
    null_photos = [fitted(one, (224, 224)) for one in crops(24, 160)]

    def inverted(of, **options):
        return invrep.invert(photo, of, ids=["x"], **options).reconstructions[0, 0]

    made = invrep.invert(photo, phi, steps=60, ids=["x"])
    pictures = {
        "photo": photo,
        "natural": made.reconstructions[0, 0],
        "none": inverted(phi, steps=60, prior="none"),
        "cut": inverted(phi, steps=6),
        "blurred": gaussian_blur(photo, 13, 3.0),
        "random": inverted(random, steps=60),
        "other": others[0],
        "noise": torch.rand(3, 224, 224),
    }
    found = invrep.certify(
        replace(made, reconstructions=torch.stack([*pictures.values()])[None]),
        phi,
        null=torch.stack(null_photos),
        networks={"resnet18": WEIGHTS / "resnet18.safetensors"},
        lpips=trained,
        denoised=False,
    )
    of = {name: dict(zip(pictures, values[0].tolist(), strict=True)) for name, values in found.columns.items()}

    def rise(column, *names):
        values = [of[column][name] for name in names]
        assert values == sorted(values) and values[0] < values[-1], (column, of[column])

    assert (
        of["jpeg_equivalent"]["photo"] == 100
        and of["shift_equivalent"]["photo"] == of["noise_equivalent"]["photo"] == 0
    )
    assert of["null_percentile"]["photo"] == of["null_percentile"]["natural"] == of["null_percentile"]["none"] == 0
    for column in ("error", "shift_equivalent", "noise_equivalent"):
        rise(column, "photo", "natural", "cut", "random", "other")
        rise(column, "photo", "none", "cut", "random")
    for column in ("jpeg_equivalent", "rho", "r2", "snr_db"):
        rise(column, "other", "random", "cut", "natural", "photo")
    # a metamer without a prior: Φ takes it for the photo as surely, yet it is no natural picture, nor held so elsewhere
    assert of["error"]["none"] < 1.5 * of["error"]["natural"]
    rise("held_out", "photo", "natural", "none", "random", "noise")
    rise("naturalness", "blurred", "photo", "none", "noise")
    assert of["gradient_distance"]["none"] > of["gradient_distance"]["natural"]
    rise("lpips", "photo", "natural", "none", "cut", "noise")
    rise("ssim", "noise", "none", "natural", "blurred", "photo")
    rise("other_percentile/resnet18", "photo", "natural", "random")
    assert of["other_class_kept/resnet18"]["photo"] == 1 and of["other_class_kept/resnet18"]["noise"] == 0
    assert found.sentences(0, 0)[0] == "Φ takes it for the photo more surely than a JPEG of quality 100."


def test_of_many_null_photos_a_network_has_columns(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    other = OtherNetwork("resnet18", str(tmp_path / "resnet18.pth"))
    assert other.layer == "avgpool"
