"""How far pre-images of one photo are from each other."""

import csv
import shutil

import pytest
import torch
from helpers.paths import SHARED
from safetensors.torch import load_file
from torchvision.models import AlexNet_Weights, alexnet

import invrep
from invrep.api import representation
from invrep.data.photo_reading import read
from invrep.evaluation.metrics import ssim
from invrep.evaluation.restart_spread import code_spread, lpips_at_hand, pixel_spread
from invrep.objectives.match import Match
from invrep.results.store import Results


def spread(folder) -> list[dict[str, str]]:
    """Return the rows of a job's spread.csv."""
    return list(csv.DictReader((folder / "spread.csv").open()))


def test_equal_pre_images_have_none():
    images = torch.rand(1, 3, 20, 24).expand(3, -1, -1, -1)
    assert pixel_spread(images, None)["spread_ssim"] == pytest.approx(0, abs=1e-6)
    code = torch.randn(1, 4, 5, 5)
    assert code_spread([code.expand(3, -1, -1, -1)], Match([torch.randn(1, 4, 5, 5)])) == 0


def test_is_the_mean_over_pairs():
    images = torch.rand(3, 1, 20, 24) * 1.5 - 0.2
    pairs = [1 - float(ssim(images[[i]], images[[j]])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert pixel_spread(images, None)["spread_ssim"] == pytest.approx(sum(pairs) / 3, rel=1e-5)
    target, code = torch.randn(1, 4, 5, 5), torch.randn(3, 4, 5, 5)
    wanted = sum((code[i, 1] - code[j, 1]).square().sum() for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    wanted = wanted / target[0, 1].square().sum()
    assert code_spread([code], Match([target], channels=1)) == pytest.approx(float(wanted), rel=1e-5)


def test_a_job_has_a_row_for_each_photo_and_more_restarts_extend_it(job, photos):
    base = ("rep=hogb", f"data.path={photos}", "data.limit=2")
    assert not (job(*base).folder / "spread.csv").exists()
    outcome = job(*base, "restarts=2")
    assert "spread between restarts: 1−SSIM" in outcome.out
    two = spread(outcome.folder)
    assert [(row["image"], row["restarts"], row["spread_lpips"]) for row in two] == [
        ("a.png", "2", ""),
        ("b.png", "2", ""),
    ]
    tables = Results(outcome.folder).spread_table.files()
    assert "spread between restarts" in job(*base, "restarts=2").out
    assert Results(outcome.folder).spread_table.files() == tables
    three = spread(job(*base, "restarts=3").folder)
    assert [row["restarts"] for row in three] == ["3", "3"]
    # by its definition, from the files on disk
    pixels = load_file(outcome.folder / "reconstructions.safetensors")
    phi = representation("hogb")
    codes = [phi(pixels[f"a.png/{r}"][None])[0] for r in range(3)]
    target = phi(read(photos / "a.png", color="gray")[None])[0]
    pairs = [float((codes[i] - codes[j]).square().sum() / target.square().sum()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(three[0]["spread_code"]) == pytest.approx(sum(pairs) / 3, rel=1e-4)


def test_an_edited_photo_has_only_its_new_restarts(job, photos):
    base = ("rep=hogb", f"data.path={photos / 'a.png'}")
    before = spread(job(*base, "restarts=3").folder)
    shutil.copy(photos / "b.png", photos / "a.png")
    after = spread(job(*base, "restarts=2").folder)
    assert [row["restarts"] for row in after] == ["2"] and after[0]["content"] != before[0]["content"]


def test_lpips_where_its_weights_are_at_hand_and_never_from_afar(tmp_path, monkeypatch, job, photos):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    assert lpips_at_hand() is None
    cached = tmp_path / "checkpoints" / AlexNet_Weights.DEFAULT.url.rpartition("/")[2]
    cached.parent.mkdir()
    cached.write_text("damaged")
    assert lpips_at_hand() is None
    torch.save(alexnet().state_dict(), cached)
    images = torch.rand(3, 1, 64, 64)
    lpips = lpips_at_hand()
    found = pixel_spread(images, lpips)["spread_lpips"]
    colour = images.expand(-1, 3, -1, -1)
    pairs = [float(lpips(colour[[i]], colour[[j]])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found == pytest.approx(sum(pairs) / 3, rel=1e-5) and found > 0
    assert torch.tensor(pixel_spread(images[..., :30, :], lpips)["spread_lpips"]).isnan()
    assert pixel_spread(images[[0, 0]], lpips)["spread_lpips"] == pytest.approx(0, abs=1e-6)
    outcome = job("rep=hogb", f"data.path={photos}", "data.limit=1", "restarts=2")
    assert float(spread(outcome.folder)[0]["spread_lpips"]) > 0 and "LPIPS" in outcome.out


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "weights/alexnet_features.safetensors").exists(), reason="no real weights")
def test_a_deeper_layer_leaves_more_open(photo):
    found = []
    for layer in ("relu1", "relu5"):
        phi = representation("alexnet", layer=layer, weights=SHARED / "weights/alexnet_features.safetensors")
        images = torch.nn.functional.interpolate(photo[None], (96, 128), mode="bilinear")
        images = invrep.invert(images, phi, restarts=2, steps=100).reconstructions[0]
        found.append(pixel_spread(images, None)["spread_ssim"])
    assert found[0] + 0.2 < found[1], found
