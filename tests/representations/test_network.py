"""Any layer of any network: the code is a plain hook's, nothing past the layer runs, nothing is left behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from helpers.paths import SHARED
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.transforms.functional import normalize

from invrep.errors import InvrepError
from invrep.presets import preset
from invrep.representations.network import Network
from invrep.representations.tracing.dry_run import meta_copy
from invrep.representations.zoo.torchvision_models import numbered_layers, torchvision_network

WEIGHTS = SHARED / "weights"
FILES = {"alexnet": "alexnet_features", "vgg16": "vgg16_features", "resnet18": "resnet18"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Operations(TorchDispatchMode):
    """Lists every operation that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def untouched(model: str, weights: str) -> tuple[nn.Module, str]:
    """torchvision's own module, and the part of it that the weights cover (a prefix of its names)."""
    if weights == "random":
        torch.manual_seed(0)
        module = {"alexnet": models.alexnet, "resnet18": models.resnet18}[model]()
        return module.eval(), ""
    file = WEIGHTS / f"{FILES[model]}.safetensors"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    with torch.device("meta"):  # without values, torchvision's VGG is made at once instead of in three seconds
        module = models.get_model(model, weights=None)
    module.load_state_dict(load_file(file), strict=False, assign=True)
    return module.eval(), "" if model == "resnet18" else "features."


def plain_hooks(module: nn.Module, part: str, images: Tensor) -> tuple[dict[str, Tensor], dict[str, int], list[str]]:
    """What hooks that copy see at every layer, how many operations had run by then, and all operations."""
    codes: dict[str, Tensor] = {}
    so_far: dict[str, int] = {}
    operations = Operations()

    def keep(path):
        def hook(_module, _args, output):
            so_far[path] = len(operations.names)
            codes[path] = output.clone()
            operations.names.pop()  # the copy

        return hook

    handles = [m.register_forward_hook(keep(p)) for p, m in module.named_modules() if p.startswith(part) and p]
    with torch.no_grad(), operations:
        (module.features if part else module)(images)
    for handle in handles:
        handle.remove()
    return codes, so_far, operations.names


def photos(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


CASES = [
    *[pytest.param(model, "random", id=f"{model}-random") for model in ("alexnet", "resnet18")],
    *[pytest.param(model, "real", id=f"{model}-real") for model in FILES],
]


@pytest.mark.parametrize(("model", "weights"), CASES)
def test_every_layer_is_a_plain_hooks_and_nothing_past_it_runs(model: str, weights: str) -> None:
    module, part = untouched(model, weights)
    images = photos(64)
    codes, so_far, everything = plain_hooks(module, part, normalize(images, MEAN, STD))
    assert len(codes) >= (13 if part else 20)
    skeleton = meta_copy(module)
    for path, code in codes.items():
        phi = Network(module, path, mean=MEAN, std=STD, skeleton=skeleton).private()
        with torch.no_grad():
            (answer,) = phi(images)
        assert torch.equal(answer, code), path
        with torch.no_grad(), Operations() as operations:
            phi(images)  # of a shape that is known: no dry run
        assert operations.names[2:] == everything[: so_far[path]], path  # the first two normalise the images
        assert not any(child._forward_hooks for child in module.modules())


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        *[("alexnet", layer) for layer in ("conv1", "relu2", "conv5", "pool5")],
        *[("vgg16", layer) for layer in ("conv1_1", "relu3", "conv5_3", "relu5")],
        *[("resnet18", layer) for layer in ("bn1", "layer1.0.relu", "layer2.0.bn2", "layer4", "avgpool", "fc")],
    ],
)
def test_the_builders_code_is_a_plain_hooks_on_torchvisions_model(model: str, layer: str) -> None:
    module, part = untouched(model, "real")
    phi = torchvision_network(model, layer=layer, weights=WEIGHTS / f"{FILES[model]}.safetensors")
    images = photos(64)
    codes, _, _ = plain_hooks(module, part, normalize(images, MEAN, STD))
    with torch.no_grad():
        assert torch.equal(phi(images)[0], codes[phi.paths[0]])
    assert not any(parameter.requires_grad for parameter in phi.parameters())
    double = normalize(images[:1].double(), MEAN, STD)
    codes, _, _ = plain_hooks(module.double(), part, double) if model == "resnet18" else (None, None, None)
    if codes:
        with torch.no_grad():
            assert torch.equal(phi.double()(images[:1].double())[0], codes[phi.paths[0]])


def test_work_ends_at_the_layer_by_flops() -> None:
    phi = torchvision_network("alexnet", layer="conv2", weights="random")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        phi(photos(64, count=1))
    conv1, conv2 = 2 * 15 * 15 * 64 * 3 * 11 * 11, 2 * 7 * 7 * 192 * 64 * 5 * 5
    assert counter.get_total_flops() == conv1 + conv2


def test_the_gradient_reaches_the_images_and_no_weight() -> None:
    torch.manual_seed(0)
    module = models.resnet18()  # as a user has it: in training mode, learning
    images = photos(64).requires_grad_()
    phi = Network(module, "layer2.0.bn2", mean=MEAN, std=STD)
    statistics = {name: value.clone() for name, value in module.named_buffers()}
    (code,) = phi(images)
    code.square().sum().backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert all(child.training for child in module.modules())
    assert all(torch.equal(value, statistics[name]) for name, value in module.named_buffers())

    reference = copy.deepcopy(module).eval()
    again = images.detach().clone().requires_grad_()
    kept = []
    reference.layer2[0].bn2.register_forward_hook(lambda _module, _args, output: kept.append(output.clone()))
    reference((again - phi.mean) / phi.std)
    kept[0].square().sum().backward()
    torch.testing.assert_close(images.grad, again.grad, rtol=1e-5, atol=1e-5 * float(again.grad.abs().max()))


def test_flags_are_restored_one_by_one() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    module[1].eval()
    module[0].bias.requires_grad_(False)
    flags = [child.training for child in module.modules()], [p.requires_grad for p in module.parameters()]
    phi = Network(module)
    first, second = phi(photos(8)), phi(photos(8))
    assert torch.equal(first[0], second[0]) and not first[0].requires_grad  # no dropout, no weight gradient
    phi.train()
    phi.eval()
    assert flags == ([c.training for c in module.modules()], [p.requires_grad for p in module.parameters()])


def test_several_layers_come_in_the_order_of_their_names() -> None:
    module, _ = untouched("alexnet", "random")
    codes, _, _ = plain_hooks(module, "features.", normalize(photos(64), MEAN, STD))
    layers = ["conv2", "conv1", "relu1", "features.4", "conv1", "pool2"]
    phi = Network(module, layers, mean=MEAN, std=STD, aliases=numbered_layers(module, blocks=False))
    images = photos(64).requires_grad_()
    found = phi(images)
    for path, code in zip([3, 0, 1, 4, 0, 5], found, strict=True):
        assert torch.equal(code, codes[f"features.{path}"])
    sum(code.sum() for code in found).backward()
    assert images.grad.abs().sum() > 0


class Twice(nn.Module):
    """Calls one layer twice, works in place on what it gets, and swallows exceptions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.ReLU(inplace=True), nn.ReLU()

    def forward(self, x: Tensor) -> dict[str, object]:
        try:
            once = self.layer(x.sub_(0.5))
            again = self.layer(once.sub_(0.2))
            again.mul_(0)
        except Exception:
            raise AssertionError("the module saw how its run was cut") from None
        return {"a": again, "b": (once, None, [x[:, :1]]), "c": "no tensor", "d": torch.tensor(3)}


def test_a_layer_called_twice_is_its_last_call() -> None:
    images = photos(6)
    before = images.clone()
    (code,) = Network(Twice(), "layer")(images)
    assert torch.equal(code, ((before - 0.5).relu() - 0.2).relu())
    assert torch.equal(images, before)
    assert [tuple(code.shape) for code in Network(Twice())(images)] == [(2, 3, 6, 6), (2, 3, 6, 6), (2, 1, 6, 6)]


def test_the_users_module_sees_images_in_0_1() -> None:
    images = photos(5)
    phi = Network(nn.Identity())
    assert torch.equal(phi(images)[0], images)
    assert phi.mean.flatten().tolist() == pytest.approx([128 / 255])
    assert torch.equal(Network(nn.Identity(), mean=0.5, std=[1, 2, 4])(images)[0], (images - 0.5) / phi_std())
    grey = Network(nn.Conv2d(1, 2, 3), channels=(1,))
    assert grey(images[:, :1])[0].shape == (2, 2, 3, 3)
    with pytest.raises(InvrepError, match=r"\(batch, 1, height, width\)"):
        grey(images)


def phi_std() -> Tensor:
    return torch.tensor([1.0, 2, 4]).reshape(3, 1, 1)


class Stubborn(nn.Module):
    """Cannot be run on the meta device: a tensor that is no buffer, a value read back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.scale = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), torch.ones(1)
        self.passes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > -1e9:
            x = self.second(self.first(x * self.scale))
        self.passes.append(x.shape)
        return self.second(x - 1)


def test_a_module_that_the_meta_device_cannot_run_is_cut_all_the_same() -> None:
    torch.manual_seed(0)
    module = Stubborn()
    phi = Network(module, "first")
    with torch.no_grad():
        assert torch.equal(phi(photos(8))[0], module.first(photos(8)))
    assert len(module.passes) == 1  # the one dry run of this shape; the call itself was cut
    phi(photos(8))
    assert len(module.passes) == 1
    phi = Network(module, "second")
    with torch.no_grad():
        assert torch.equal(phi(photos(8))[0], (module.first(photos(8)).relu() - 1).relu())
    with pytest.raises(InvrepError, match=r"failed on images of 2×2 pixels before its layer 'second'"):
        phi(photos(2))


def test_no_hook_is_left_after_a_failure() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(5, 5))
    phi = Network(module, ["0", "1"])
    phi(photos(8))
    calls = dict(phi._calls)
    module[1].forward = lambda x: 1 / 0
    with pytest.raises(InvrepError, match="ZeroDivisionError: division by zero"):
        phi(photos(8))
    assert not any(child._forward_hooks for child in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert calls == phi._calls
    with pytest.raises(InvrepError):
        Network(Twice(), "unused")(photos(8))


class Local(nn.Module):
    """Holds a tensor of its own when it calls its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ReLU()
        self.held: list[weakref.ref[Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        own = 2 * images
        self.held.append(weakref.ref(own))
        return self.layer(own + 1)


def test_a_pass_that_ends_at_its_layer_holds_no_tensor() -> None:
    module = Local()
    network = Network(module, "layer")
    gc.disable()
    try:
        with torch.no_grad():
            network(torch.rand(1, 3, 8, 8))
    finally:
        gc.enable()
    assert module.held and not any(ref() is not None for ref in module.held)


def test_an_error_past_the_layer_is_none() -> None:
    phi = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 7)), "0")
    assert phi(photos(8))[0].shape == (2, 4, 6, 6)


class Within(nn.Module):
    """Uses a cut network; both cuts may be at the same module."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = Network(nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Tanh()), "1")

    def forward(self, x: Tensor) -> Tensor:
        return self.phi(x)[0] + 1


def test_a_cut_network_within_a_cut_network() -> None:
    images = photos(4)
    assert torch.equal(Network(Within(), "phi.module.0")(images)[0], images)
    assert torch.equal(Network(Within(), "phi")(images)[0], images.tanh())
    assert torch.equal(Network(Within())(images)[0], images.tanh() + 1)


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


def test_a_layer_without_floats_is_refused() -> None:
    with pytest.raises(InvrepError, match=r"'0' of Sequential returned a tensor of int64"):
        Network(nn.Sequential(Tokens()), "0")(photos(8))


# --- names ---------------------------------------------------------------------------------------------------------


def on_meta(model: str) -> nn.Module:
    with torch.device("meta"):
        return models.get_model(model, weights=None)


def test_alexnets_names() -> None:
    names = numbered_layers(on_meta("alexnet"), blocks=False)
    convolutional = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3", "conv4", "relu4"]
    convolutional += ["conv5", "relu5", "pool5"]
    assert list(names) == [*convolutional, "fc6", "relu6", "fc7", "relu7", "fc8"]
    assert [names[name] for name in convolutional] == [f"features.{index}" for index in range(13)]
    assert [names[name] for name in ("fc6", "relu6", "fc7", "relu7", "fc8")] == [
        f"classifier.{index}" for index in (1, 2, 4, 5, 6)
    ]


def test_vggs_names() -> None:
    names = numbered_layers(on_meta("vgg16"), blocks=True)
    assert names["conv1_1"] == "features.0" and names["relu2_2"] == "features.8" and names["pool5"] == "features.30"
    assert names["relu5"] == names["relu5_3"] == "features.29" and names["conv5"] == names["conv5_3"] == "features.28"
    assert names["relu1"] == names["relu1_2"] and names["fc6"] == "classifier.0" and names["fc8"] == "classifier.6"
    assert "relu6_1" not in names and "pool6" not in names
    names = numbered_layers(on_meta("vgg19_bn"), blocks=True)
    assert names["relu5"] == names["relu5_4"] == "features.51" and names["bn5_4"] == "features.50"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (3, r"layer numbers exist only for the paper's networks"),
        (12, r"""layer="'1_2'"\."""),
        (1.1, r"""layer="'1\.10'"\."""),
        (True, "not a name"),
        ("relu9", r"has no layer 'relu9'; the nearest are relu"),
        ("features.99", r"the nearest are features\."),
        (["relu1", 4], "number 4"),
        ([], "is empty"),
        (None, r"alexnet needs a layer, for instance layer=conv1, "),
        ("???", r"alexnet needs a layer"),
    ],
)
def test_a_wrong_layer(layer: object, message: str) -> None:
    with pytest.raises(InvrepError, match=message):
        torchvision_network("alexnet", layer=layer, weights="random")


def test_a_wrong_model_and_a_layer_that_never_runs() -> None:
    with pytest.raises(InvrepError, match=r"no model 'vgg61'; the nearest are vgg1"):
        torchvision_network("vgg61", layer="relu5", weights="random")
    with pytest.raises(InvrepError, match=r"'aux1' of googlenet is never called"):
        torchvision_network("googlenet", layer="aux1", weights="random")


# --- what a layer sees ---------------------------------------------------------------------------------------------

ALEXNET = {"conv1": (11, 4), "relu1": (11, 4), "pool1": (19, 8), "conv2": (51, 8), "pool2": (67, 16)}
ALEXNET |= {"conv3": (99, 16), "conv4": (131, 16), "relu5": (163, 16), "pool5": (195, 32), "fc6": (None, None)}
VGG16 = {
    f"conv{block}_{index}": (field, 2 ** (block - 1))
    for block, index, field in [
        (1, 1, 3),
        (1, 2, 5),
        (2, 1, 10),
        (2, 2, 14),
        (3, 1, 24),
        (3, 2, 32),
        (3, 3, 40),
        (4, 1, 60),
        (4, 2, 76),
        (4, 3, 92),
        (5, 1, 132),
        (5, 2, 164),
        (5, 3, 196),
    ]
}
VGG16 |= {f"pool{block}": (field, 2**block) for block, field in zip(range(1, 6), (6, 16, 44, 100, 212), strict=True)}
RESNET18 = {"layer1.0.relu": (27, 4), "layer2.0.downsample": (43, 8), "layer4": (435, 32), "avgpool": (None, None)}


@pytest.mark.parametrize(("model", "table"), [("alexnet", ALEXNET), ("vgg16", VGG16), ("resnet18", RESNET18)])
def test_receptive_field_and_stride(model: str, table: dict[str, tuple[int | None, int | None]]) -> None:
    module = on_meta(model)
    aliases = {} if model == "resnet18" else numbered_layers(module, blocks=model == "vgg16")
    for layer, (field, stride) in table.items():
        phi = Network(module, layer, aliases=aliases, skeleton=module)
        assert (phi.receptive_field, phi.stride) == (field, stride), layer


@pytest.mark.parametrize(
    ("layers", "field", "stride"),
    [
        ([nn.Conv2d(3, 2, (1, 7)), nn.Conv2d(2, 2, (7, 1))], 7, 1),
        ([nn.Conv2d(3, 2, 3, stride=2, dilation=3), nn.AvgPool2d(2), nn.MaxPool2d(3, dilation=2)], 7 + 2 + 4 * 4, 12),
        ([nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(2, 2, 3)], None, None),
        ([nn.Conv2d(3, 2, 3), nn.Upsample(scale_factor=2)], None, None),
    ],
)
def test_receptive_fields_of_other_windows(layers: list[nn.Module], field: int | None, stride: int | None) -> None:
    phi = Network(nn.Sequential(*layers), str(len(layers) - 1))
    assert (phi.receptive_field, phi.stride) == (field, stride)


@pytest.mark.parametrize("layer", ["layer1.0.bn2", "layer2.0.conv1"])
def test_the_receptive_field_is_where_the_gradient_is(layer: str) -> None:
    torch.manual_seed(0)
    phi = Network(models.resnet18(), layer)
    images = photos(128, count=1).double().requires_grad_()
    (code,) = phi.double()(images)
    code[..., code.shape[2] // 2, code.shape[3] // 2].sum().backward()
    rows = images.grad.abs().sum((0, 1, 3)).nonzero()
    # A maximum passes its gradient to one pixel of its window, so that the reach of one image is a little less.
    assert phi.receptive_field - 8 <= int(rows.max() - rows.min()) + 1 <= phi.receptive_field


@pytest.mark.parametrize(
    ("model", "layer", "size", "smallest"),
    [("alexnet", "conv1", (5, 90), 7), ("alexnet", "pool5", (40, 40), 63), ("resnet18", "maxpool", (0, 9), 1)],
)
def test_an_image_too_small_for_the_layer(model: str, layer: str, size: tuple[int, int], smallest: int) -> None:
    phi = torchvision_network(model, layer=layer, weights="random")
    with pytest.raises(InvrepError, match=rf"{size[0]}×{size[1]} pixels are too small .* {smallest}×{smallest}\.$"):
        phi(torch.rand(1, 3, *size))
    with torch.no_grad():
        phi(torch.rand(1, 3, smallest, smallest))
        if smallest > 1:
            phi(torch.rand(1, 3, 20 if layer == "conv1" else 70, 90))  # too small for the whole network, not for this


def test_a_size_that_a_transformer_does_not_take() -> None:
    phi = torchvision_network("vit_b_16", layer="conv_proj", weights="random")
    with pytest.raises(InvrepError, match=r"'conv_proj' of vit_b_16 does not take images of 250×250"):
        phi(photos(250, count=1))


# --- as a module ---------------------------------------------------------------------------------------------------


def test_a_truncated_network_is_an_ordinary_module() -> None:
    phi = torchvision_network("vgg11", layer="relu2", weights="random")
    assert sum(value.numel() for value in phi.state_dict().values()) == 3 * 9 * 64 + 64 + 64 * 9 * 128 + 128
    assert not any(tensor.is_meta for tensor in [*phi.parameters(), *phi.buffers()])
    images = photos(32)
    (code,) = phi(images)
    for twin in (copy.deepcopy(phi), pickle.loads(pickle.dumps(phi)), phi.to("cpu")):
        assert torch.equal(twin(images)[0], code)
    double = copy.deepcopy(phi).train().double()
    assert double.mean.dtype == torch.float64 and double.mean.flatten().tolist() == list(MEAN)
    assert double.std.flatten().tolist() == list(STD)
    torch.testing.assert_close(double(images.double())[0].float(), code, rtol=1e-4, atol=1e-5)
    assert double.float().double().mean.flatten().tolist() == list(MEAN)
    assert phi.input_size.crop == (224, 224) and phi.input_size.resize == 256
    assert phi.input_size.interpolation == "bilinear" and phi.channels == (3,)


def test_batch_norm_stays_as_it_is_when_lightning_calls_train() -> None:
    phi = torchvision_network("resnet18", layer="bn1", weights="random")
    images = photos(32)
    before = phi(images)[0]
    nn.ModuleDict({"phi": phi}).train()
    assert torch.equal(phi(images)[0], before)
    assert not phi.module.bn1.training


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18"])
def test_the_configuration(name: str) -> None:
    config = preset("rep", name)
    assert config.weights == "default" and config.model == name
    layer = "conv1" if name == "resnet18" else "relu1"
    root = OmegaConf.create({"layer": layer, "seed": 0, "rep": config})
    root.rep.weights = "random"
    phi = instantiate(root.rep)
    assert phi(photos(32))[0].shape[:2] == (2, 64)
    root.layer = ["conv1", "bn1"] if name == "resnet18" else ["conv1", "pool1"]
    assert len(instantiate(root.rep)(photos(32))) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_the_gpu() -> None:
    phi = torchvision_network("resnet18", layer="layer2.0.bn2", weights="random")
    (code,) = phi(photos(64))
    with torch.backends.cudnn.flags(allow_tf32=False):
        (there,) = phi.cuda()(photos(64).cuda())
    torch.testing.assert_close(there.cpu(), code, rtol=1e-3, atol=1e-4)
