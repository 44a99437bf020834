"""Every value of a pass by its name, on torchvision's and timm's models and on modules of one's own."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from invrep.api import representation
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.representations import stem
from invrep.representations.network import Network
from invrep.representations.zoo.torchvision_models import torchvision_network

BUDGET = 900  # seconds for the slow test of all models


def photos(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def code(module: nn.Module, layer: str, images: Tensor) -> Tensor:
    with torch.no_grad():
        (found,) = Network(module, layer)(images)
    return found


# --- all of torchvision's models -----------------------------------------------------------------------------------

SMALL = ["alexnet", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn"]
SAMPLED = ["googlenet", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t"]
ALL = models.list_models(module=models)
# Partitions of a fixed size, and patches of one
SIZES = {"maxvit_t": 224, "inception_v3": 96} | {name: 64 for name in ALL if name.startswith("vit_")}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"image_size": 64} if name.startswith("vit_") else {}
    if name == "vit_h_14":
        options = {"image_size": 70}
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, "transform_input": True}
    return models.get_model(name, weights=None, **options).eval()


def differing(name: str, sampled: int | None) -> list[str]:
    """Return the layers whose code is not what a plain hook on the untouched model copies."""
    module = made(name)
    images = photos(70 if name == "vit_h_14" else SIZES.get(name, 64), count=1)
    codes: dict[str, Tensor] = {}
    handles = []
    for path, child in module.named_modules():
        if path:
            keep = lambda _m, _a, out, p=path: codes.__setitem__(p, out.clone() if isinstance(out, Tensor) else None)  # noqa: E731
            handles.append(child.register_forward_hook(keep))
    with torch.no_grad():
        module(images.clone())
        for handle in handles:
            handle.remove()
        paths = [path for path, value in codes.items() if value is not None]
        assert len(paths) > 10
        if sampled is not None:
            step = max(1, len(paths) // sampled)
            paths = paths[step - 1 :: step][:sampled]
        phi = Network(module, paths[0])
        phi._prefix = 0
        wrong = []
        for path in paths:
            phi.paths = [path]
            phi._calls.clear()
            try:
                same = torch.equal(phi(images)[0], codes[path])
            except InvrepError as error:
                same = len(codes[path]) != 1 and "one part for each image" in str(error)
            if not same:
                wrong.append(path)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    return wrong


@pytest.mark.parametrize("name", SMALL + SAMPLED)
def test_every_layer_of_the_small_models_is_a_plain_hooks(name: str) -> None:
    assert differing(name, None if name in SMALL else 20) == []


@pytest.mark.slow
@pytest.mark.timeout(2 * BUDGET)
def test_twenty_layers_of_every_model_are_a_plain_hooks() -> None:
    began, wrong, left_out = time.monotonic(), {}, {}
    for name in ALL:
        if time.monotonic() - began > BUDGET:
            left_out[name] = "the time budget is spent"
        elif found := differing(name, 20):
            wrong[name] = found
    print(f"left out: {left_out or 'none'}")
    assert not wrong


# --- values between layers -----------------------------------------------------------------------------------------


def test_a_residual_sum_and_both_calls_of_a_relu_that_works_in_place() -> None:
    module = made("resnet18")
    images = photos(64)
    with torch.no_grad():
        before = module.maxpool(module.relu(module.bn1(module.conv1(images))))
        block = module.layer1[0]
        first = block.bn1(block.conv1(before))
        second = block.bn2(block.conv2(first.relu())) + before
    assert torch.equal(code(module, "layer1.0.bn1", images), first)
    assert torch.equal(code(module, "layer1.0.relu_0", images), first.relu())
    assert torch.equal(code(module, "layer1.0.add", images), second)
    for layer in ("layer1.0.relu", "layer1.0.relu_1", "layer1.0"):
        assert torch.equal(code(module, layer, images), second.relu())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    both = Network(module, ["layer1.0.relu_0", "layer1.0.add"])
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(both(images), (first.relu(), second), strict=True))


def test_nothing_past_a_value_runs() -> None:
    phi = Network(made("resnet18"), "layer2.0.add")
    images = photos(64, count=1)
    phi(images)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        phi(images)
    conv1, block1 = 2 * 32 * 32 * 64 * 3 * 49, 4 * 2 * 16 * 16 * 64 * 64 * 9
    block2 = 2 * 8 * 8 * 128 * (64 * 9 + 128 * 9 + 64)
    assert counter.get_total_flops() == conv1 + block1 + block2


class Arithmetic(nn.Module):
    """Two sums, one in place; a helper's convolution, called without its forward; a tensor's attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += 1
        y = 2 * (y + 3) - torch.relu(y)
        z = nn.functional.relu(y, inplace=True)
        return torch.cat([z.mT, self.inner[0](x).mT], 1).softmax(1)


def test_functions_are_named_by_the_module_that_calls_them() -> None:
    torch.manual_seed(0)
    module, images = Arithmetic(), photos(8)
    first = module.inner(images).detach() + 1
    weighed = 2 * (first + 3)
    wanted = {"add": first, "add_1": first + 3, "mul": weighed, "relu": first.relu(), "sub": weighed - first.relu()}
    wanted |= {"relu_1": (weighed - first.relu()).relu(), "inner.0_0": module.inner[0](images).detach()}
    wanted["softmax"] = wanted["output"] = module(images).detach()
    for name, value in wanted.items():
        assert torch.equal(code(module, name, images), value), name
    with pytest.raises(InvrepError, match=r"no layer 'ad'; the nearest are add"):
        Network(module, "ad")
    with pytest.raises(InvrepError, match="no layer 'get'"):
        Network(module, "get")


# --- transformers --------------------------------------------------------------------------------------------------


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    module = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    ).eval()
    nn.init.normal_(module.class_token)
    return module


def test_class_token_patch_tokens_queries_keys_and_values_of_torchvisions() -> None:
    module, images = torchvision_vit(), photos(32)
    block = "encoder.layers.encoder_layer_1"
    tokens = code(module, block, images)
    assert tokens.shape == (2, 17, 16)
    assert torch.equal(code(module, f"{block}.cls", images), tokens[:, 0])
    assert torch.equal(code(module, f"{block}.patches", images), tokens[:, 1:])
    attention = module.encoder.layers[1].self_attention
    given = code(module, f"{block}.ln_1", images)
    for name, weight, bias in zip(
        "qkv", attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
    ):
        projected = (given @ weight.T + bias).detach()
        torch.testing.assert_close(code(module, f"{block}.self_attention.{name}", images), projected)
        torch.testing.assert_close(code(module, f"{block}.self_attention.{name}.cls", images), projected[:, 0])
    sum_ = code(module, f"{block}.add", images)
    torch.testing.assert_close(
        sum_, code(module, f"{block}.dropout", images) + code(module, "encoder.layers.encoder_layer_0", images)
    )
    with pytest.raises(InvrepError, match=r"has no layer 'conv_proj\.cls'"):
        code(module, "conv_proj.cls", images)


@pytest.mark.parametrize(("name", "prefix"), [("vit_tiny_patch16_224", 1), ("vit_small_patch14_reg4_dinov2", 5)])
def test_tokens_of_timms(name: str, prefix: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    patch = 16 if prefix == 1 else 14
    module = timm.create_model(name, pretrained=False, img_size=3 * patch, depth=2).eval()
    images = photos(3 * patch)
    tokens = code(module, "blocks.1", images)
    assert tokens.shape[1] == prefix + 9
    assert torch.equal(code(module, "blocks.1.cls", images), tokens[:, 0])
    assert torch.equal(code(module, "blocks.1.patches", images), tokens[:, prefix:])
    projected = code(module, "blocks.0.attn.qkv", images)
    for name, part in zip("qkv", projected.chunk(3, -1), strict=True):
        assert torch.equal(code(module, f"blocks.0.attn.{name}", images), part)
    inner = code(module, "blocks.0.attn.scaled_dot_product_attention", images)
    torch.testing.assert_close(
        inner.transpose(1, 2).flatten(2) @ module.blocks[0].attn.proj.weight.T + module.blocks[0].attn.proj.bias,
        code(module, "blocks.0.attn", images),
    )


# --- cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "layers", "size"),
    [
        ("alexnet", ["features.3", "output"], 64),
        ("resnet18", ["layer2.0.downsample.0", "layer2.0.add", "output"], 64),
        ("vit", ["encoder.layers.encoder_layer_0.self_attention.k", "encoder.layers.encoder_layer_1"], 32),
    ],
)
def test_the_cost_is_what_torch_counts(
    model: str, layers: list[str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stem, "FEW", 0)  # the first convolution has torch's own gradient
    module = torchvision_vit() if model == "vit" else made(model)
    for layer in layers:
        phi = Network(module, layer)
        images = photos(size, count=1).requires_grad_()
        phi(images)
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            phi(images)[0].sum().backward()
        assert phi.trace(size, size).flops(phi.paths[0]) == counter.get_total_flops(), layer


# --- where the receptive field is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rep", "options", "place"),
    [
        ("hog", {}, (4, 9)),
        ("hogb", {"cell": 6, "variant": "cvpr15"}, (6, 7)),
        ("dsift", {"step": 4, "bin": 4}, (9, 3)),
        ("dsift", {"variant": "cvpr15"}, (5, 6)),
        ("alexnet", {"layer": "relu2"}, (4, 6)),
        ("vgg16", {"layer": "pool3"}, (6, 7)),
        ("resnet18", {"layer": "layer2.0.add"}, (6, 8)),
    ],
)
def test_the_box_of_a_position_is_where_its_gradient_is(
    rep: str, options: dict[str, object], place: tuple[int, int]
) -> None:

    if "layer" in options:
        options = {**options, "weights": "random"}
    phi = representation(rep, **options).double()
    image = read(bundled("chelsea"), color=phi.color)[None, :, 40:170, 100:260].double().requires_grad_()
    row, column = place
    (part,) = phi(image)
    part[0, :, row, column].square().sum().backward()
    (geometry,) = phi.geometry(*image.shape[2:])
    top, left, bottom, right = geometry.box(slice(row, row + 1), slice(column, column + 1))
    rows, columns = (image.grad.abs().sum(axes).nonzero() for axes in ((0, 1, 3), (0, 1, 2)))
    found = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
    # a maximum or an empty bin lets a few of the outermost pixels without a gradient
    slack = phi.stride + 1
    for box, edge, inward in zip((top, left, bottom, right), found, (1, 1, -1, -1), strict=True):
        assert 0 <= (edge - box) * inward <= slack, ((top, left, bottom, right), found)


def test_the_builders_networks_are_copies() -> None:
    phi = torchvision_network("resnet18", layer="layer1.0.add", weights="random")
    twin = copy.deepcopy(phi)
    assert torch.equal(phi(photos(64))[0], twin(photos(64))[0])
