"""Checkpoints as people save them: the same weights under other keys and names, and files that are no weights."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from invrep.errors import InvrepError
from invrep.representations.module import module_network
from invrep.representations.zoo.checkpoint_layouts import weights_for
from invrep.representations.zoo.torchvision_models import torchvision_network


def small() -> nn.Module:
    """The module that every checkpoint here is of."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2))


def behind(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(module: nn.Module) -> dict[str, Tensor]:
    return AveragedModel(module).state_dict()


MADE = {
    "tutorial": lambda state, _: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {0: {}}}},
    "cifar": lambda state, _: {"net": state, "acc": 93.1},
    "timm": lambda state, _: {"arch": "x", "state_dict": state},
    "compiled": lambda state, _: behind("_orig_mod.", state),
    "compiled ddp": lambda state, _: {"model": behind("module._orig_mod.", state)},
    "lightning": lambda state, _: {"state_dict": behind("net.", state) | {"loss.weight": torch.ones(4)}},
    "lightning, compiled": lambda state, _: {"state_dict": behind("model._orig_mod.", state)},
    "deep": lambda state, _: {"checkpoint": {"model": {"params": state}}},
    "a part": lambda state, _: {"encoder": state, "decoder": {"weight": torch.ones(2)}},
    "swa": lambda _, module: averaged(module),
    "ema alone": lambda state, _: {"state_dict_ema": state},
    "without counters": lambda state, _: {"net": {n: t for n, t in state.items() if "num_batches" not in n}},
    "twice": lambda state, _: {"state_dict": behind("net.", state) | behind("teacher.", state)},
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_same_weights_by_another_name(tmp_path, monkeypatch, caplog, make):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "invrep")
    module = small()
    torch.save(make(module.state_dict(), module), "w.pth")
    phi = module_network(f"{__name__}.small", layer="1", weights="w.pth", seed=1)
    assert torch.equal(phi.module[0].weight, module[0].weight) and torch.equal(phi.module[1].weight, module[1].weight)
    assert torch.equal(phi.module[2].weight, module[2].weight)  # past the layer, too
    (line,) = caplog.messages
    assert "The weights in 'w.pth' are those under " in line and "left out of their names" in line


def test_torchvisions_loader_finds_them_as_well(tmp_path, caplog):
    caplog.set_level(logging.INFO, "invrep")
    state = {"features.0.weight": torch.rand(64, 3, 11, 11), "features.0.bias": torch.rand(64)}
    save_file(behind("backbone.module.", state), tmp_path / "w.safetensors")
    phi = torchvision_network("alexnet", layer="conv1", weights=tmp_path / "w.safetensors")
    assert torch.equal(phi.module.features[0].weight, state["features.0.weight"])
    assert "under backbone.module, which" in caplog.text
    caplog.clear()
    torch.save(state | behind("backbone.", state), tmp_path / "w.pth")  # as they are goes first, without a word
    assert torchvision_network("alexnet", layer="conv1", weights=tmp_path / "w.pth") and not caplog.messages


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("state_dict_ema", "state_dict"), "state_dict"),
        (("model_ema", "model"), "model"),
        (("ema_model", "online_model"), "online_model"),
        (("best", "model"), "model"),
        (("model", "state_dict"), "state_dict"),
    ],
)
def test_of_two_that_differ_one_is_taken_and_said(caplog, keys, taken):
    wanted = {"weight": torch.empty(2, 3)}
    found = {key: {"weight": torch.full((2, 3), float(k))} for k, key in enumerate(keys)}
    weights = weights_for(found, wanted, "The weights in 'w.pth'")
    assert torch.equal(weights["weight"], found[taken]["weight"])
    (other,) = {*keys} - {taken}
    assert caplog.messages == [f"The weights in 'w.pth' are those under {taken}; there are also {other}."]


def test_of_two_that_differ_and_say_no_more_the_user_decides():
    found = {key: {"weight": torch.rand(2, 3)} for key in ("student", "teacher")}
    with pytest.raises(
        InvrepError, match=r"fit under student and under teacher, which differ; save the one that you mean"
    ):
        weights_for(found, {"weight": torch.empty(2, 3)}, "The weights")
    # shapes tell them apart
    found["student"] = {"weight": torch.rand(4, 4)}
    assert weights_for(found, {"weight": torch.empty(2, 3)}, "The weights")["weight"] is found["teacher"]["weight"]


def test_names_that_do_not_fit_stand_beside_those_that_are_wanted(tmp_path):
    torch.save({"net": {"body.weight": torch.ones(4, 3), "body.bias": torch.ones(4)}}, tmp_path / "w.pth")
    with pytest.raises(InvrepError, match=r"lack 0\.bias, 0\.weight.*; there are net\.body\.weight, net\.body\.bias"):
        module_network(f"{__name__}.small", layer="0", weights=tmp_path / "w.pth")
    with pytest.raises(InvrepError, match=r"lack features\.0\.weight.*; there are net\.body\.weight"):
        torchvision_network("alexnet", layer="conv1", weights=tmp_path / "w.pth")


def _scripted(file: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(file)


KINDS = {
    "Git LFS pointer": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
    "web page": lambda file: file.write_text("\n<!DOCTYPE html><html>Sign in</html>"),
    "index of weights": lambda file: file.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "b"}})),
    "ONNX graph": lambda file: file.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.0.1" + bytes(40)),
    "TorchScript archive": _scripted,
    "HDF5 file": lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40)),
    "NumPy archive": lambda file: np.savez(file.open("wb"), a=np.ones(2)),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("says", "make"), KINDS.items(), ids=KINDS)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_people_take_for_a_weights_file_is_named(tmp_path, says, make, suffix):
    make(tmp_path / f"w{suffix}")
    with pytest.raises(InvrepError, match=rf"w{suffix}' is no weights file: it is an? .*{says}|the {says}"):
        torchvision_network("alexnet", layer="conv1", weights=tmp_path / f"w{suffix}")


@pytest.mark.parametrize(
    ("held", "says"),
    [({"epoch": 3, "loss": 0.1}, "a dict without named tensors: its keys are epoch, loss"), ([1], "a list without")],
)
def test_a_file_without_tensors_says_what_it_holds(tmp_path, held, says):
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(InvrepError, match=says):
        torchvision_network("alexnet", layer="conv1", weights=tmp_path / "w.pth")
