"""Networks by their makers' names: timm's, torchvision's and one's own; what they publish, which weights they take."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import SHARED
from safetensors.torch import save_file
from torch import Tensor, nn

import invrep
from invrep.errors import InvrepError
from invrep.presets import FOLDER
from invrep.reporting.layer_table import layers_table
from invrep.representations.module import module_network
from invrep.representations.zoo.timm_models import timm_network
from invrep.representations.zoo.torchvision_models import torchvision_network

timm = pytest.importorskip("timm")
WEIGHTS = SHARED / "weights"


def photos(size: int = 64) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))


# --- every ready config --------------------------------------------------------------------------------------------

LAYERS = {"alexnet": "relu1", "vgg16": "relu1_1", "vgg19": "relu1_1", "resnet18": "layer1.0.add", "resnet50": "relu"}
LAYERS |= {"convnext_tiny": "features.1", "efficientnet_b0": "features.1", "vit_b_16": "encoder.layers.encoder_layer_0"}
LAYERS |= {"swin_t": "features.1.0", "dinov2": "blocks.0.cls", "clip": "blocks.0.patches", "siglip": "blocks.0.attn.q"}
LAYERS |= {"caffenet": "pool1", "caffe_alexnet": 3, "vgg_m": "norm1", "vgg_vd_16": "relu1_1"}
PUBLISHED = {
    "dinov2": (0.485, 518, 518, "bicubic"),
    "clip": (0.48145466, 224, 248, "bicubic"),
    "siglip": (0.5, 224, 248, "bicubic"),
    "convnext_tiny": (0.485, 224, 236, "bilinear"),
    "efficientnet_b0": (0.485, 224, 256, "bicubic"),
    "swin_t": (0.485, 224, 232, "bicubic"),
    "vit_b_16": (0.485, 224, 256, "bilinear"),
}


def test_every_network_config_is_tried_here() -> None:
    names = {path.stem for path in (FOLDER / "rep").glob("*.yaml")}
    handcrafted = {"hog", "hogb", "dsift", "mr8", "gist", "lbp", "brief"}
    vocabularies = {"bovw", "fisher", "llc", "sparse", "textons", "vlad"}
    assert names - vocabularies == set(LAYERS) | handcrafted | {"torchvision", "timm", "module", "matconvnet"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_ready_config(name: str) -> None:
    phi = invrep.representation(name, layer=LAYERS[name], weights="random")
    height, width = phi.input_size.crop
    with torch.no_grad():
        (code,) = phi(torch.rand(1, 3, height, width))
    assert code.shape == phi.published_trace.layers[phi.paths[0]].shapes[0] and code.isfinite().all()
    if name in PUBLISHED:
        size = phi.input_size
        assert (pytest.approx(float(phi.mean[0])), size.crop[0], size.resize, size.interpolation) == PUBLISHED[name]


# --- timm ----------------------------------------------------------------------------------------------------------


def test_timms_code_is_a_plain_hooks_with_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("resnet18.a1_in1k", pretrained=False).eval()
    save_file(module.state_dict(), tmp_path / "whole.safetensors")
    phi = timm_network("resnet18.a1_in1k", layer="layer2.0.bn2", weights=tmp_path / "whole.safetensors")
    kept = []
    module.layer2[0].bn2.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    with torch.no_grad():
        module((photos() - phi.mean) / phi.std)
        assert torch.equal(phi(photos())[0], kept[0])
    assert phi.weights_id and len(phi.classes) == 1000 and phi.module.fc.weight is None
    assert phi.classifier().paths == [""]
    part = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(("conv1", "bn1"))}
    torch.save({"state_dict": part}, tmp_path / "part.pth")
    assert timm_network("resnet18", layer="act1", weights=tmp_path / "part.pth")(photos())[0].shape[1] == 64
    with pytest.raises(InvrepError, match=r"lack layer1\.0\.conv1\.weight, .* and \d+ more, which the layers up to"):
        timm_network("resnet18", layer="layer1", weights=tmp_path / "part.pth")


def test_names_of_an_original_publication_are_timms_to_translate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("convnext_atto", pretrained=False)
    original = {  # as facebookresearch/ConvNeXt saved them
        name.replace("stem.", "downsample_layers.0.")
        .replace("stages.0.blocks", "stages.0")
        .replace("conv_dw", "dwconv")
        .replace("mlp.fc1", "pwconv1")
        .replace("mlp.fc2", "pwconv2"): tensor
        for name, tensor in module.state_dict().items()
        if name.startswith(("stem", "stages.0.blocks.0"))
    }
    torch.save({"model": original}, tmp_path / "original.pth")
    phi = timm_network("convnext_atto", layer="stages.0.blocks.0", weights=tmp_path / "original.pth")
    module.eval()
    with torch.no_grad():
        wanted = module.stages[0].blocks[0](module.stem((photos() - phi.mean) / phi.std))
        torch.testing.assert_close(phi(photos())[0], wanted)


def test_mistakes_with_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InvrepError, match=r"timm has no model 'resnet81'; the nearest are resnet"):
        timm_network("resnet81", layer="conv1", weights="random")
    with pytest.raises(InvrepError, match=r"timm has no weights 'resnet18.a1_in2k'; the nearest are resnet18.a1_in1k"):
        timm_network("resnet18.a1_in2k", layer="conv1", weights="random")
    with pytest.raises(InvrepError, match="needs a layer, for instance"):
        timm_network("resnet18", layer=None, weights="random")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvrepError, match=r"not in the Hugging Face cache .*rep.weights=random"):
        timm_network("resnet18", layer="conv1")


# --- a module of one's own -----------------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn


def small(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Linear(6, 2))


grey = nn.Conv2d(1, 2, 3)


def text():
    return "no module"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of models."""
    name = f"models_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the working folder is added to it
    return Path(name)


def test_a_module_from_the_working_folder(here: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    phi = module_network(
        f"{here}.small", layer="2", args={"width": 5}, mean=0.5, std=[1, 2, 4], size=9, resize=[10, 12]
    )
    assert torch.equal(before, torch.get_rng_state())
    with torch.no_grad():
        inner = phi.module[:3]((photos(8) - 0.5) / torch.tensor([1.0, 2, 4]).reshape(3, 1, 1))
    assert not torch.equal(inner, phi(photos(8))[0])  # batch norm in training mode; the code is in evaluation mode
    phi.module.eval()
    with torch.no_grad():
        assert torch.equal(
            phi(photos(8))[0], phi.module[:3]((photos(8) - 0.5) / torch.tensor([1.0, 2, 4])[:, None, None])
        )
    assert phi.input_size.crop == (9, 9) and phi.input_size.resize == (10, 12)
    again = module_network(f"{here}.small", layer="2", args={"width": 5})
    assert again.weights_id == phi.weights_id
    assert module_network(f"{here}.small", layer="2", args={"width": 5}, seed=1).weights_id != phi.weights_id
    part = {name: tensor + 1 for name, tensor in phi.module.state_dict().items() if name[0] != "3"}
    save_file(part, tmp_path / "part.safetensors")
    given = module_network(f"{here}.small", layer="2", args={"width": 5}, weights=tmp_path / "part.safetensors", size=8)
    assert torch.equal(given.module[0].weight, phi.module[0].weight + 1)
    with pytest.raises(InvrepError, match=r"lack 3\.bias, 3\.weight"):
        module_network(f"{here}.small", args={"width": 5}, weights=tmp_path / "part.safetensors", size=8)
    assert module_network(f"{here}.grey", channels=1)(photos(8)[:, :1])[0].shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("nowhere.small", {}, "cannot be imported"),
        ("{here}.smal", {}, "cannot be imported"),
        ("small", {}, "expected package.module.factory"),
        ("{here}.text", {}, "made a str, expected an nn.Module"),
        ("{here}.small", {"args": {"depth": 3}}, r"does not take rep.args=.*depth"),
        ("{here}.small", {"layer": "conv"}, "small has no layer 'conv'"),
    ],
)
def test_mistakes_with_a_module(here: Path, target: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvrepError, match=message):
        phi = module_network(target.format(here=here), **options)
        phi(photos(8))


# --- layer=list ----------------------------------------------------------------------------------------------------


def test_the_table_of_layers(job) -> None:
    outcome = job("rep=alexnet", "layer=list", "trainer.accelerator=cpu")
    assert outcome.status == 0 and not outcome.output.exists()
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["features.0", "conv1", "64×55×55", "11", "4", "0.28"] in rows  # 2 · 2 · 55² · 64 · 3 · 11²
    assert ["classifier.6", "fc8", "1000", "2.9"] in rows
    outcome = job("rep=torchvision", "rep.model=resnet18", "layer=?")
    assert any(line.split()[:2] == ["layer1.0.add", "64×56×56"] for line in outcome.out.splitlines()), outcome.out
    outcome = job("rep=hog", "layer=list")
    assert outcome.status == 1 and "rep=hog is one code and has no layers" in outcome.err


def test_the_table_lists_no_module_twice_and_nothing_that_cannot_be_named() -> None:
    network = torchvision_network("mobilenet_v3_small", layer="list")
    table = layers_table(network)
    names = list(table.columns[0].cells)
    assert len(names) == len(set(names)) > 100
    for name in names[::9]:
        torchvision_network("mobilenet_v3_small", layer=name, weights="random")


# --- what a job says of the network --------------------------------------------------------------------------------


def test_the_class_kept(job, tmp_path: Path) -> None:
    weights = WEIGHTS / "resnet18.safetensors"
    if not weights.exists():
        pytest.skip(f"{weights} is not here")
    outcome = job("rep=resnet18", f"rep.weights={weights}", "layer=bn1", "optim.steps=30", "optim.lr=.1")
    assert outcome.status == 0, outcome.err
    import csv

    (row,) = csv.DictReader((outcome.folder / "metrics.csv").open())
    assert row["class"] == "Egyptian cat" and 0 < float(row["class_probability"]) < 1
    assert float(row["photo_probability"]) == pytest.approx(0.391, abs=0.01)
    assert f"top-1 class kept: {row['class_kept']} of 1" in outcome.out


def test_no_class_where_the_weights_end_before_it(job, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(
        {"features.0.weight": torch.randn(64, 3, 11, 11), "features.0.bias": torch.zeros(64)},
        tmp_path / "w.safetensors",
    )
    outcome = job("rep=alexnet", "rep.weights=w.safetensors", "layer=relu1", "optim.steps=2")
    assert outcome.status == 0 and "class" not in (outcome.folder / "metrics.csv").read_text()


@pytest.mark.parametrize("layer", ["[relu1,relu2]", "{relu1:1,relu2:.5}", "features.4"])
def test_several_layers_with_weights_regions_and_channels(job, layer: str) -> None:
    outcome = job(
        "rep=alexnet", "rep.weights=random", f"layer={layer}", "objective.region=3x3", "objective.channels=0:48"
    )
    assert outcome.status == 0, outcome.err
    assert 0 < outcome.value < 2 and (outcome.folder / "grid.png").exists()
    (row,) = csv.DictReader((outcome.folder / "metrics.csv").open())
    each = {name: float(value) for name, value in row.items() if name.startswith("error/")}
    assert list(each) == ([] if layer == "features.4" else ["error/relu1", "error/relu2"])
    assert ("of each layer: relu1 " in outcome.out) == bool(each)
    named = "features.4" if layer == "features.4" else "relu1 + relu2"
    assert f"alexnet {named}: " in outcome.out and outcome.folder.name.startswith(f"alexnet-{named.replace(' ', '')}-")


def test_weights_of_layers_reach_the_objective() -> None:
    phi = invrep.representation("alexnet", layer={"relu1": 1, "relu2": 0.5}, weights="random")
    image = torch.rand(1, 3, 64, 64)
    found = invrep.invert(image, phi, steps=3)
    errors = [
        float((code[0, 0] - target[0]).square().sum() / target[0].square().sum())
        for code, target in zip(found.codes, found.targets, strict=True)
    ]
    assert float(found.metrics["error"]) == pytest.approx((errors[0] + 0.5 * errors[1]) / 1.5, rel=1e-4)
    assert [float(found.metrics[f"error/{name}"]) for name in ("relu1", "relu2")] == pytest.approx(errors, rel=1e-4)
    with pytest.raises(InvrepError, match=r"layer\.relu2=-1 is not valid"):
        invrep.representation("alexnet", layer={"relu1": 1, "relu2": -1}, weights="random")


class Half(nn.Module):
    """Its first dimension is not the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)


def test_a_value_that_is_not_one_for_each_image_is_refused() -> None:
    with pytest.raises(InvrepError, match=r"does not return one part for each image: its shape is \(3, 8, 8\) for 1"):
        invrep.invert(photos(8), Half())
