"""The paper's networks, with MatConvNet's layers: files of its pretrained models, or random weights."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invrep.errors import InvrepError, nearest
from invrep.representations.base import InputSize
from invrep.representations.matfile import Layer, read_matfile
from invrep.representations.network import LISTING, LayerNames, Network
from invrep.representations.skeleton import drop_weights
from invrep.representations.trace import meta_copy
from invrep.representations.weights import assign_weights, file_id, read_weights

_MEAN = (122.68, 116.67, 104.01)  # of ILSVRC12's training images, RGB, 0 … 255; as Caffe distributes it
_PAGE = "www.vlfeat.org/matconvnet/pretrained"


def matconvnet_network(
    model: str | None, *, layer: LayerNames, weights: str | os.PathLike[str] = "default", seed: int = 0
) -> Network:
    """Return one of the paper's networks up to a layer, as a representation (paper.md §4).

    It takes images (B, 3, H, W) in [0, 1] and sees them in 0 … 255 with the file's mean image subtracted. Layers have
    the paper's names, ``conv1`` … ``fc8``, then ``prob``, and its numbers from 1 on, ``layer=15`` for CaffeNet's
    ``pool5``. Windows, pads and normalisation are those of MatConvNet's vl_nnconv, vl_nnpool and vl_nnnormalize.

    Args:
        model: ``caffenet`` (the paper's CNN-A), ``caffe_alexnet``, ``vgg_m`` or ``vgg_vd_16``; None for whatever chain
            of convolutions, poolings, normalisations and ReLUs is in the file.
        layer: a name or number, or several.
        weights: the path of a MatConvNet file in either layout, which may end after the layers used; ``random``; or,
            for a model with a name, the path of a .safetensors, .pth or .pt file with ``conv1.weight`` and so on.
        seed: of random weights (He et al. 2015, biases 0). Those of a layer depend on nothing but the seed and its
            name, and torch's random state stays as it is.

    Raises:
        InvrepError: there is no such model, layer or file; the file is damaged, or another network's.
    """
    if model is not None and model not in _PUBLISHED:
        raise InvrepError(f"There is no MatConvNet network {model!r}; {nearest(str(model), _PUBLISHED)}.")
    published, name, path = _PUBLISHED.get(model), model or "matconvnet", str(weights)
    if published is not None:
        # Before the file is read, so that a wrong layer is known at once.
        network = _network(published.layers, layer, mean=_MEAN, size=published.size, name=name)
        if layer in LISTING:
            return network
    if path == "default" or (path == "random" and published is None):
        choice = f"{published.file} of {_PAGE}, or rep.weights=random" if published else f"a .mat file, as of {_PAGE}"
        raise InvrepError(f"rep={name} cannot have weights={path}; give rep.weights=PATH, the path of {choice}.")
    if published is not None:
        if path == "random":
            _fill(network, _random(published.layers, _needed(network), seed), source=f"{name}'s random weights")
            network.weights_id = "random"
            return network
        if Path(path).suffix in (".safetensors", ".pth", ".pt"):
            state, needed = network.module.state_dict(), _needed(network)
            tensors = read_weights(weights, {name: tensor for name, tensor in state.items() if name in needed})
            _fill(network, tensors, source=f"The weights in {path!r}")
            network.weights_id, network.weights_file = file_id(weights), str(weights)
            return network
    layers, size = (published.layers, published.size) if published else ((), None)
    wanted = f"{published.file} of {_PAGE}" if published else f"a .mat file of a simple network, as those of {_PAGE}"
    found = read_matfile(weights, layers=layers, size=size, expected=wanted)
    network = _network(
        (*found.layers, *layers[len(found.layers) :]), layer, mean=found.mean, size=found.size, name=name
    )
    if layer in LISTING:
        return network
    _fill(network, found.tensors, source=f"The weights in {path!r}")
    network.weights_id, network.weights_file, network.classes = file_id(weights), path, found.classes
    scores = _scores(found.layers, found.size)
    if scores is not None and (published is None or scores == published.layers[-2].name):
        network.classifier = functools.partial(matconvnet_network, model, layer=scores, weights=weights, seed=seed)
    return network


# --- modules -------------------------------------------------------------------------------------------------------


class _Padded(nn.Module):
    """Pads on four sides what its next class then filters or pools without a pad of its own."""

    margins: tuple[int, int, int, int] | None = None  # left, right, top, bottom; None where torch's own padding does
    fill = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.margins is None else F.pad(x, self.margins, value=self.fill))


class _Convolution(_Padded, nn.Conv2d):
    def __init__(self, layer: Layer) -> None:
        padding, margins = _padding(layer)
        super().__init__(
            *layer.channels,
            layer.size,
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilate,
            groups=layer.groups,
            device="meta",
        )
        self.margins = margins


class _MaxPooling(_Padded, nn.MaxPool2d):
    fill = -math.inf

    def __init__(self, layer: Layer) -> None:
        padding, margins = _padding(layer)
        super().__init__(layer.size, layer.stride, padding)
        self.margins = margins


class _AveragePooling(nn.Module):
    """The mean over the pixels of a window that lie inside the image."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        top, bottom, left, right = layer.pad
        self.size, self.stride, self.margins = layer.size, layer.stride, (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        share = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.margins), self.size, self.stride)
        return F.avg_pool2d(F.pad(x, self.margins), self.size, self.stride) / share


class _Normalisation(nn.Module):
    """y = x / (κ + α Σ x²)^β, the sum over the N channels around each (vl_nnnormalize; α is not divided by N)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        count, self.kappa, self.alpha, self.beta = layer.param
        channels = torch.arange(layer.channels[0], device="cpu")
        offset = channels[None, :] - channels[:, None]
        below = (int(count) - 1) // 2
        window = (offset >= -below) & (offset <= int(count) - 1 - below)
        # As a convolution, of which the dry run knows that it looks at one position only.
        self.register_buffer("window", window[:, :, None, None].to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x / (self.kappa + self.alpha * F.conv2d(x.square(), self.window)) ** self.beta


def _padding(layer: Layer) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """Return torch's own padding where it can do what is wanted, and otherwise none, with the margins for F.pad."""
    top, bottom, left, right = layer.pad
    # torch pads a pooling by half a window at most.
    fits = layer.kind == "convolution" or (2 * top <= layer.size[0] and 2 * left <= layer.size[1])
    return ((top, left), None) if top == bottom and left == right and fits else ((0, 0), (left, right, top, bottom))


def _module(layer: Layer) -> nn.Module:
    if layer.kind == "relu":
        return nn.LeakyReLU(layer.param[0]) if layer.param[0] else nn.ReLU()
    if layer.kind == "softmax":
        return nn.Softmax(dim=1)
    kinds = {"convolution": _Convolution, "max pooling": _MaxPooling, "average pooling": _AveragePooling}
    return kinds.get(layer.kind, _Normalisation)(layer)


def _network(layers: tuple[Layer, ...], layer: LayerNames, *, mean: Any, size: InputSize, name: str) -> Network:
    """Return the network without weights. ``mean``: 3 numbers or (3, H, W), in 0 … 255."""
    names = [one.name for one in layers if one.kind != "softmax"]
    if layer is None or layer == "???":
        raise InvrepError(
            f"{name} needs a layer, for instance layer={names[0]}, layer={names[len(names) // 2]} or "
            f"layer={names[-1]}; layer=list shows all."
        )
    module = nn.Sequential()
    for one in layers:
        module.add_module(one.name, _module(one))
    module.requires_grad_(False).eval()
    return Network(
        module,
        None if layer in LISTING else layer,
        mean=torch.as_tensor(mean, dtype=torch.float64) / 255,
        std=1 / 255,
        input_size=size,
        aliases={one.rpartition("_")[0]: one for one in names if "_" in one} if name == "vgg_vd_16" else {},
        numbers=names,
        name=name,
        skeleton=meta_copy(module),
    )


def _needed(network: Network) -> set[str]:
    """Return the names of the weights that the network's layers need."""
    return network.published_trace.weights_up_to(network.paths)


def _fill(network: Network, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Give the network the weights that its layers need, and take the others away."""
    needed = _needed(network)
    drop_weights(network.module, keep=needed)
    assign_weights(network.module, tensors, source=source)


def _scores(layers: tuple[Layer, ...], size: InputSize) -> str | None:
    """Return the layer with the classes' scores: a convolution at the end that leaves one position."""
    last = next((layer for layer in reversed(layers) if layer.kind != "softmax"), layers[0])
    end = functools.reduce(lambda side, layer: layer.output(side), layers, size.crop)
    return last.name if last.kind == "convolution" and end == (1, 1) else None


def _random(layers: tuple[Layer, ...], needed: set[str], seed: int) -> dict[str, Tensor]:
    tensors = {}
    for layer in layers:
        if f"{layer.name}.weight" in needed:
            shape = (layer.channels[1], layer.channels[0] // layer.groups, *layer.size)
            digest = hashlib.sha256(f"{seed}/{layer.name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            draws = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
            tensors[f"{layer.name}.weight"] = draws.mul_(math.sqrt(2 / math.prod(shape[1:])))
            tensors[f"{layer.name}.bias"] = torch.zeros(shape[0])
    return tensors


# --- the paper's networks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    file: str
    size: InputSize
    layers: tuple[Layer, ...]


def _conv(name: str, inputs: int, outputs: int, side: int, stride: int = 1, pad: int = 0, groups: int = 1) -> Layer:
    channels = (inputs, outputs)
    return Layer("convolution", name, (side, side), (stride, stride), (pad,) * 4, channels=channels, groups=groups)


def _pool(name: str, side: int, pad: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Layer:
    return Layer("max pooling", name, (side, side), (2, 2), pad)


def _norm(name: str, channels: int, kappa: float, alpha: float) -> Layer:
    return Layer("normalisation", name, channels=(channels, channels), param=(5, kappa, alpha, 0.75))


def _relu(name: str) -> Layer:
    return Layer("relu", name, param=(0.0,))


def _classifier(inputs: int, side: int) -> Iterator[Layer]:
    yield from (_conv("fc6", inputs, 4096, side), _relu("relu6"), _conv("fc7", 4096, 4096, 1), _relu("relu7"))
    yield from (_conv("fc8", 4096, 1000, 1), Layer("softmax", "prob"))


def _caffe(*, pool_first: bool) -> Iterator[Layer]:
    step = 1 if pool_first else -1
    yield from (_conv("conv1", 3, 96, 11, stride=4), _relu("relu1"))
    yield from (_pool("pool1", 3), _norm("norm1", 96, 1, 1e-4 / 5))[::step]
    yield from (_conv("conv2", 96, 256, 5, pad=2, groups=2), _relu("relu2"))
    yield from (_pool("pool2", 3), _norm("norm2", 256, 1, 1e-4 / 5))[::step]
    yield from (_conv("conv3", 256, 384, 3, pad=1), _relu("relu3"))
    yield from (_conv("conv4", 384, 384, 3, pad=1, groups=2), _relu("relu4"))
    yield from (_conv("conv5", 384, 256, 3, pad=1, groups=2), _relu("relu5"), _pool("pool5", 3))
    yield from _classifier(256, 6)


def _vgg_m() -> Iterator[Layer]:
    yield from (_conv("conv1", 3, 96, 7, stride=2), _relu("relu1"), _norm("norm1", 96, 2, 5e-4 / 5), _pool("pool1", 3))
    yield from (_conv("conv2", 96, 256, 5, stride=2, pad=1), _relu("relu2"), _norm("norm2", 256, 2, 5e-4 / 5))
    yield _pool("pool2", 3, pad=(0, 1, 0, 1))
    for number, inputs in ((3, 256), (4, 512), (5, 512)):
        yield from (_conv(f"conv{number}", inputs, 512, 3, pad=1), _relu(f"relu{number}"))
    yield _pool("pool5", 3)
    yield from _classifier(512, 6)


def _vgg_vd_16() -> Iterator[Layer]:
    inputs = 3
    for block, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        for index in range(1, count + 1):
            yield from (_conv(f"conv{block}_{index}", inputs, outputs, 3, pad=1), _relu(f"relu{block}_{index}"))
            inputs = outputs
        yield _pool(f"pool{block}", 2)
    yield from _classifier(512, 7)


_227, _224 = InputSize(crop=(227, 227), resize=256), InputSize(crop=(224, 224), resize=256)
_PUBLISHED = {
    "caffenet": _Published("imagenet-caffe-ref.mat", _227, tuple(_caffe(pool_first=True))),
    "caffe_alexnet": _Published("imagenet-caffe-alex.mat", _227, tuple(_caffe(pool_first=False))),
    "vgg_m": _Published("imagenet-vgg-m.mat", _224, tuple(_vgg_m())),
    "vgg_vd_16": _Published("imagenet-vgg-verydeep-16.mat", _224, tuple(_vgg_vd_16())),
}
