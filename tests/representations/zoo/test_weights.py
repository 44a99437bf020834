"""Weights: every kind of file, torchvision's cache, random ones; each mistake is one sentence."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from invrep.errors import InvrepError
from invrep.representations.zoo.torchvision_models import torchvision_network
from invrep.representations.zoo.weights import assign_weights, download_weights, file_id, read_weights


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The first two convolutions of an AlexNet."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5)}
    weights = {f"{name}.weight": torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0], generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub, and no network."""

    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def holds(phi: nn.Module, tensors: dict[str, Tensor]) -> bool:
    state = phi.module.state_dict()
    return bool(state) and all(torch.equal(value, tensors[name].float()) for name, value in state.items())


def test_every_kind_of_file_which_holds_no_more_than_the_layers_used(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    half = {name: value.half() for name, value in tensors.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "b")
    torch.save({"model": tensors | {"elsewhere.weight": torch.ones(2)}, "optimizer": {}}, tmp_path / "c.pt")
    save_file(half, tmp_path / "half.safetensors")
    for file in ("a.safetensors", "a.pth", "old.pt", "b", "c.pt"):
        phi = torchvision_network("alexnet", layer="relu2", weights=str(tmp_path / file))
        assert holds(phi, tensors), file
        assert not any(parameter.requires_grad for parameter in phi.parameters())
    phi = torchvision_network("alexnet", layer="relu2", weights=tmp_path / "half.safetensors")
    assert holds(phi, half) and phi.module.features[0].weight.dtype == torch.float32


def test_the_network_keeps_its_weights_when_the_file_changes(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    for file, save in ((tmp_path / "a.safetensors", save_file), (tmp_path / "a.pth", torch.save)):
        save(tensors, file)
        phi = torchvision_network("alexnet", layer="conv2", weights=file)
        file.write_bytes(b"\0" * file.stat().st_size)
        assert holds(phi, tensors)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the file was executed')",)


def wrong(name: str, tensors: dict[str, Tensor], file: Path) -> None:
    first = "features.0.weight"
    if name == "missing":
        save_file({first: tensors[first]}, file)
    elif name == "shape":
        save_file(tensors | {first: torch.ones(64, 3, 3, 3)}, file)
    elif name == "foreign":
        torch.save(models.squeezenet1_1().state_dict(), file)
    elif name == "code":
        torch.save({first: tensors[first], "x": Harmful()}, file)
    elif name == "module":
        torch.save(nn.Linear(2, 2), file)
    elif name == "truncated":
        torch.save(tensors, file)
        file.write_bytes(file.read_bytes()[:1000])
    elif name == "no tensors":
        torch.save({"epoch": 3}, file)
    elif name == "list":
        torch.save([1, 2], file)
    elif name == "folder":
        file.mkdir()
    elif name != "absent":
        file.write_bytes({"text": b"hello world\n", "empty": b"", "header": b"MATLAB 5.0 MAT-file" + b"\0" * 200}[name])


@pytest.mark.parametrize(
    ("name", "suffix", "message"),
    [
        ("missing", ".safetensors", r"lack features\.0\.bias, features\.3\.weight, features\.3\.bias, which"),
        ("shape", ".safetensors", r"features\.0\.weight has the shape \(64, 3, 3, 3\), not \(64, 3, 11, 11\)\."),
        ("foreign", ".pth", r"do not fit|lack features"),
        ("code", ".pth", "holds Python objects, which could run any code"),
        ("module", ".pt", "holds Python objects"),
        ("truncated", ".pth", "no weights file: it is damaged"),
        ("no tensors", ".pth", "no weights file"),
        ("list", ".pth", "no weights file"),
        ("text", ".pth", "no weights file"),
        ("text", ".safetensors", "no weights file"),
        ("empty", ".pth", "no weights file"),
        ("empty", ".safetensors", "no weights file"),
        ("header", ".mat", "no weights file"),
        ("folder", ".pth", "cannot be read"),
        ("folder", ".safetensors", "cannot be read"),
        ("absent", ".pth", r"There is no weights file '.*'; weights is default, random or the path"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    name: str, suffix: str, message: str, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    file = tmp_path / f"weights{suffix}"
    wrong(name, tensors, file)
    with pytest.raises(InvrepError, match=message) as caught:
        torchvision_network("alexnet", layer="conv2", weights=str(file))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert str(file) in str(caught.value)


def test_a_wrong_name_is_known_before_the_file_is_read() -> None:
    with pytest.raises(InvrepError, match="no layer 'conv9'"):
        torchvision_network("alexnet", layer="conv9", weights="/nowhere.pth")


def test_without_network_and_cache_one_sentence_names_the_other_choices(hub: Path) -> None:
    with pytest.raises(InvrepError) as caught:
        torchvision_network("vgg16", layer="relu5")
    message = str(caught.value)
    assert "VGG16_Weights.IMAGENET1K_V1" in message and "no route to host" in message and str(hub) in message
    assert "rep.weights=random" in message and "local file" in message and "\n" not in message


def test_torch_hubs_cache(hub: Path, tensors: dict[str, Tensor]) -> None:
    cached = hub / Path(models.AlexNet_Weights.DEFAULT.url).name
    torch.save(tensors, cached)
    assert holds(torchvision_network("alexnet", layer="conv2"), tensors)
    assert holds(torchvision_network("alexnet", layer="conv2", weights="IMAGENET1K_V1"), tensors)
    cached.write_bytes(b"half a download")
    with pytest.raises(InvrepError, match=r"cached weights '.*alexnet-owt.*' cannot be read .* delete that file"):
        download_weights(models.AlexNet_Weights.DEFAULT)


def test_names_of_old_densenets_are_read(tmp_path: Path) -> None:
    torch.save({"features.denseblock1.denselayer2.norm.1.weight": torch.ones(2)}, tmp_path / "old.pth")
    assert list(read_weights(tmp_path / "old.pth")) == ["features.denseblock1.denselayer2.norm1.weight"]


def test_weights_are_copies_in_the_modules_own_type() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double().state_dict()
    assign_weights(module, state, source="They")
    assert module[0].weight.dtype == torch.float32 and not module[0].weight.requires_grad
    kept = module[0].weight.clone()
    state["0.weight"].zero_()
    assert torch.equal(module[0].weight, kept)


def test_random_weights_depend_on_the_seed_and_not_on_the_cut() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    short = torchvision_network("resnet18", layer="conv1", weights="random").module.state_dict()
    assert torch.equal(torch.rand(3), expected)  # torch's own random state is untouched
    torch.manual_seed(6)
    long = torchvision_network("resnet18", layer="fc", weights="random").module.state_dict()
    other = torchvision_network("resnet18", layer="conv1", weights="random", seed=1).module.state_dict()
    assert list(short) == ["conv1.weight"] and torch.equal(short["conv1.weight"], long["conv1.weight"])
    assert not torch.equal(short["conv1.weight"], other["conv1.weight"])
    # torchvision's initialisation: He's, by fan out
    assert float(short["conv1.weight"].std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.03)
    kernels = [value.flatten()[:8].tolist() for name, value in long.items() if name.endswith("conv1.weight")]
    assert len({tuple(kernel) for kernel in kernels}) == len(kernels)


def test_what_lies_past_the_layer_is_not_made() -> None:
    drawn = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if torch.Tag.nondeterministic_seeded in func.tags and not args[0].is_meta:
                drawn.append(args[0].numel())
            return func(*args, **(kwargs or {}))

    with Watch():
        torchvision_network("vgg16", layer="conv1_2", weights="random")
    assert drawn and max(drawn) == 64 * 64 * 9


def test_the_id_changes_with_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(b"one")
    assert file_id(file) == hashlib.sha256(b"one").hexdigest()[:12]
    with pytest.raises(InvrepError, match="no weights file"):
        file_id("defualt")
    with pytest.raises(InvrepError, match="cannot be read"):
        file_id(tmp_path)
    phi = torchvision_network("alexnet", layer="conv1", weights="random")
    assert phi.weights_id == "random" and phi.classifier is None
    torch.save(phi.module.state_dict(), file)
    phi = torchvision_network("alexnet", layer="conv1", weights=file)
    assert phi.weights_id == file_id(file)
