"""Receptive fields, strides and boxes of every layer, against where the gradient of one position is not zero."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from invrep.objectives.match import data_weight
from invrep.priors.terms import TotalVariation
from invrep.representations.network import Network
from invrep.representations.tracing.dry_run import dry_run, meta_copy
from invrep.representations.tracing.value_names import tensors_of, watching
from invrep.representations.zoo.matconvnet_layers import layer_module
from invrep.representations.zoo.matfile import Layer

SIZE = (90, 104)
most = F.max_pool2d


def total(x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_) -> Tensor:
    """Return the sum over a pooling's windows: unlike a maximum's its gradient reaches all of them."""
    shape = most(x, kernel_size, stride, padding, dilation, ceil_mode).shape[-2:]
    window = torch.ones(x.shape[1], 1, *([kernel_size] * 2 if isinstance(kernel_size, int) else kernel_size)).to(x)
    top, left = (padding, padding) if isinstance(padding, int) else padding
    x = F.pad(x.clamp(min=0), (left, left + 8, top, top + 8))
    sums = F.conv2d(x, window, stride=stride or kernel_size, dilation=dilation, groups=x.shape[1])
    return sums[..., : shape[0], : shape[1]]


def wrong_boxes(module: nn.Module, monkeypatch: pytest.MonkeyPatch, wanted: Callable[[str], bool]) -> list[str]:
    """Return the layers whose box is not where the gradient of a position in the middle is."""
    monkeypatch.setattr(F, "max_pool2d", total)
    module = module.eval().double().requires_grad_(False)
    trace = dry_run(meta_copy(module), torch.empty(1, 3, *SIZE, dtype=torch.float64, device="meta"))
    assert trace.error is None
    for name, tensor in module.state_dict().items():  # positive: nothing is cut off by a ReLU, nothing cancels
        if tensor.is_floating_point() and not name.endswith("window"):
            tensor.uniform_(0.5, 1)
            tensor /= tensor[:1].numel() if tensor.ndim > 1 else 1
    image = torch.rand(1, 3, *SIZE, dtype=torch.float64).add(0.5).requires_grad_()
    values, mix = {}, torch.rand(2000, dtype=torch.float64)
    modules = dict(module.named_modules())
    names = {name: None for name in trace.layers if wanted(name) and (name in modules or name.endswith("add"))}
    with watching(module, lambda name, output: values.setdefault(name, tensors_of(output)), names.keys()):
        module(image)
    wrong = []
    for name, (value,) in values.items():
        height, width = value.shape[2:]
        gradient = torch.autograd.grad(
            value[0, :, height // 2, width // 2] @ mix[: value.shape[1]], image, retain_graph=True
        )[0]
        rows, columns = (gradient[0].abs().sum((0, axis)).nonzero().flatten().tolist() for axis in (2, 1))
        seen = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        box = trace.layers[name].geometry.box(*(slice(at, at + 1) for at in (height // 2, width // 2)))
        # of what is outside the image nothing is seen, nor of its last pixels where a stride leaves them over
        inside = box and (max(box[0], 0), max(box[1], 0), min(box[2], SIZE[0]), min(box[3], SIZE[1]))
        slack = [8 * (box is not None and box[k] != inside[k]) for k in range(4)]
        if inside is None or any(abs(a - b) > more for a, b, more in zip(inside, seen, slack, strict=True)):
            wrong.append(f"{name} sees {seen}, not {inside}")
    assert len(values) == len(names) > 2
    return wrong


def chain(*layers: Layer) -> nn.Sequential:
    """Return MatConvNet's modules with weights."""
    modules = OrderedDict((layer.name, layer_module(layer)) for layer in layers)
    for module in modules.values():
        if isinstance(module, nn.Conv2d):
            module.to_empty(device="cpu")
    return nn.Sequential(modules)


def pooling(kind: str, size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int]) -> nn.Sequential:
    """Return a chain of MatConvNet's layers with two such poolings in it."""
    return chain(
        Layer("convolution", "conv1", (5, 4), (2, 1), (1, 2, 0, 3), channels=(3, 4)),
        Layer("relu", "relu1", param=(0.1,)),
        Layer(f"{kind} pooling", "pool1", size, stride, pad),
        Layer("normalisation", "norm1", channels=(4, 4), param=(3, 1.0, 0.5, 0.75)),
        Layer("convolution", "conv2", (3, 2), (1, 1), (1, 1, 2, 0), (2, 1), channels=(4, 6), groups=2),
        Layer("relu", "relu2", param=(0.0,)),
        Layer(f"{kind} pooling", "pool2", size, stride, pad),
        Layer("convolution", "conv3", (2, 2), channels=(6, 2)),
    )


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "stride", "pad"),
    [
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 2), (0, 1, 0, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 2), (1, 3), (2, 0, 1, 1)),
        ((4, 5), (3, 2), (3, 2, 0, 4)),
    ],
)
def test_every_layer_of_a_matconvnet_chain(monkeypatch, kind, size, stride, pad):
    assert wrong_boxes(pooling(kind, size, stride, pad), monkeypatch, lambda name: name != "") == []


def test_a_chain_with_average_pooling_has_the_weights_of_its_depth():
    phi = Network(pooling("average", (2, 2), (2, 2), (0, 0, 0, 0)), "conv2")
    assert (phi.receptive_field, phi.stride) == (23, 4)
    assert TotalVariation().automatic(phi, per_pixel=False) == 0.5
    assert data_weight(phi.receptive_field, phi.stride) == 300


class Fire(nn.Module):
    """Branches, halves of the channels, a shuffle of them, and a normalisation over them by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        x = torch.stack([self.narrow(one), self.wide(other)], 1).transpose(1, 2).flatten(1, 2)
        x = x / x.norm(dim=1, keepdim=True) + x.mean(1, keepdim=True) + x[:, :1].unsqueeze(2).squeeze(2)
        return x * torch.ones_like(x[:1, :1])


CHAINS = {
    "averages": [
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.LPPool2d(2, 3),
    ],
    "maxima": [nn.MaxPool2d(3, 2, 1, dilation=2), nn.MaxPool2d((2, 3), (2, 1), ceil_mode=True)],
    "adaptive": [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d((11, 5)), nn.Conv2d(8, 8, 2), nn.AdaptiveAvgPool2d((5, 2))],
    "pads": [
        nn.ZeroPad2d((1, 2, 3, 0)),
        nn.ReflectionPad2d((2, 0, 1, 1)),
        nn.Conv2d(8, 8, 3, 2),
        nn.ReplicationPad2d(1),
    ],
    "normalisations": [nn.LocalResponseNorm(3, alpha=1), nn.BatchNorm2d(8), nn.Softmax(1), nn.Conv2d(8, 8, 2)],
    "fire": [Fire(), nn.MaxPool2d(2), Fire()],
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_layer_of_a_chain_of_torchs(monkeypatch, name):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), *CHAINS[name], nn.Conv2d(8, 8, 3, padding=1))
    assert wrong_boxes(module, monkeypatch, lambda name: name.isdecimal()) == []


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("squeezenet1_1", "features.5 features.7 features.9"),
        ("resnet18", "maxpool layer1 layer2.0.add layer2 layer3.0.conv1"),
        ("shufflenet_v2_x0_5", "maxpool stage2.0 stage2.2 stage2 stage3.1"),
    ],
)
def test_torchvisions_models(monkeypatch, model, layers):
    module, wanted = torchvision.models.get_model(model, weights=None), layers.split()
    assert wrong_boxes(module, monkeypatch, lambda name: name in wanted) == []
