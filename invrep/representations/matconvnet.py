"""The paper's networks: MatConvNet's .mat files in both their layouts, read by field name and without pickles."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from scipy.io.matlab import matfile_version
from torch import Tensor, nn

from invrep.errors import InvrepError, nearest
from invrep.representations.base import InputSize
from invrep.representations.network import LayerNames, Network
from invrep.representations.trace import meta_copy
from invrep.representations.weights import assign_weights, read_weights

_MEAN = (122.68, 116.67, 104.01)  # of ILSVRC12's training images, RGB, 0 … 255; as Caffe distributes it
_PAGE = "MatConvNet's page of pretrained models, www.vlfeat.org/matconvnet/pretrained"


@dataclass(frozen=True)
class Layer:
    """One layer of a chain, with MatConvNet's parameters.

    Attributes:
        kind: convolution, max pooling, average pooling, normalisation, relu or softmax.
        name: the paper's name, which is the module's path.
        size: height and width of the window; ``stride`` and ``dilate`` likewise.
        pad: top, bottom, left, right.
        channels: of the input and of the output of a convolution, all groups together; of a normalisation, twice.
        param: N, κ, α, β of a normalisation (α multiplies the sum of squares, not their mean); the leak of a ReLU.
    """

    kind: str
    name: str
    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilate: tuple[int, int] = (1, 1)
    channels: tuple[int, int] = (0, 0)
    groups: int = 1
    param: tuple[float, ...] = ()

    def __str__(self) -> str:
        text = self.kind
        if self.kind == "convolution":
            text += f" {self.size[0]}×{self.size[1]}×{self.channels[0] // self.groups}×{self.channels[1]}"
        elif "pooling" in self.kind:
            text += f" {self.size[0]}×{self.size[1]}"
        if self.param:
            return text + f" with the parameters {' '.join(f'{value:g}' for value in self.param)}"
        if text == self.kind:
            return text
        dilated = f", dilation {self.dilate[0]} {self.dilate[1]}" if self.dilate != (1, 1) else ""
        return text + f", stride {self.stride[0]} {self.stride[1]}, pad {' '.join(map(str, self.pad))}{dilated}"

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the output for those of the input; below 1 where a window does not fit."""
        margins = (self.pad[0] + self.pad[1], self.pad[2] + self.pad[3])
        each = zip(size, margins, self.size, self.dilate, self.stride, strict=True)
        return tuple((n + p - d * (k - 1) - 1) // s + 1 for n, p, k, d, s in each)

    def same(self, other: Layer, size: tuple[int, int]) -> bool:
        """Whether both compute the same of an input of this size; bottom and right pads may differ as far as that."""
        mine, its = (replace(one, name="", pad=(one.pad[0], 0, one.pad[2], 0), param=()) for one in (self, other))
        close = len(self.param) == len(other.param) and all(map(_close, self.param, other.param))
        return mine == its and close and self.output(size) == other.output(size)


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
    published = None if model is None else _PUBLISHED[model]
    path, name = str(weights), model or "matconvnet"
    if path == "default" or (path == "random" and published is None):
        file = f"a .mat file, for instance {_PUBLISHED['caffenet'].file}" if published is None else published.file
        raise InvrepError(
            f"rep={name} needs weights: get {file} from {_PAGE}, and give rep.weights=PATH"
            + (" (random weights need a network with a name, for instance rep=caffenet)." if published is None else "")
            + (", or rep.weights=random." if published is not None else "")
        )
    network = None
    if published is not None:
        # Before the file is read, so that a wrong layer is known at once.
        network = _network(published.layers, layer, mean=_MEAN, size=published.size, name=name)
    if published is not None and path == "random":
        _fill(network, lambda needed: _random(published.layers, needed, seed), source=f"{name}'s random weights")
        network.weights_id = "random"
        return network
    if published is not None and Path(path).suffix in (".safetensors", ".pth", ".pt"):
        tensors = read_weights(weights)
        _fill(network, lambda _needed: tensors, source=f"The weights in {path!r}")
        network.weights_id = _digest(path)
        return network
    found = read_matconvnet(weights, model)
    rest = published.layers[len(found.layers) :] if published is not None else ()
    network = _network((*found.layers, *rest), layer, mean=found.mean, size=found.size, name=name)
    _fill(network, lambda _needed: found.tensors, source=f"The weights in {path!r}")
    network.weights_id = _digest(path)
    network.classes = found.classes
    if found.classifier:
        network.classifier = functools.partial(
            matconvnet_network, model, layer=found.classifier, weights=weights, seed=seed
        )
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


def _network(
    layers: tuple[Layer, ...], layer: LayerNames, *, mean: Any, size: InputSize, name: str
) -> Network:
    """Return the network without weights. ``mean``: 3 numbers or (3, H, W), in 0 … 255."""
    names = [one.name for one in layers if one.kind != "softmax"]
    if layer is None or layer == "???":
        raise InvrepError(
            f"{name} needs a layer, for instance layer={names[0]}, layer={names[len(names) // 2]} or layer={names[-1]}."
        )
    module = nn.Sequential()
    for one in layers:
        module.add_module(one.name, _module(one))
    module.requires_grad_(False).eval()
    return Network(
        module,
        layer,
        mean=torch.as_tensor(mean, dtype=torch.float64) / 255,
        std=1 / 255,
        input_size=size,
        aliases={one.rpartition("_")[0]: one for one in names if "_" in one} if name == "vgg_vd_16" else {},
        numbers=names,
        name=name,
        skeleton=meta_copy(module),
    )


def _fill(network: Network, tensors: Any, *, source: str) -> None:
    """Give the network what ``tensors(names)`` returns for the names of the weights that its layers need."""
    needed = network.published_trace.weights_up_to(network.paths)
    for name, child in network.module.named_children():
        if isinstance(child, nn.Conv2d) and f"{name}.weight" not in needed:
            child.weight = child.bias = None
    given = tensors(needed)
    assign_weights(network.module, {name: given[name] for name in needed if name in given}, source=source)


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


def _digest(path: str) -> str:
    with open(Path(path).expanduser(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3)


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatFile:
    """What a MatConvNet file holds.

    Attributes:
        layers: in their order, without dropout and losses.
        tensors: ``conv1.weight`` (out, in / groups, rows, columns), ``conv1.bias`` (out,) and so on, as torch has them.
        mean: (3, 1, 1) or (3, H, W), RGB, 0 … 255.
        size: the input size, and how photos are brought to it.
        classes: the names of the outputs of the last layer; None where there are none.
        classifier: the layer with the scores of the classes; None where the file ends before.
    """

    layers: tuple[Layer, ...]
    tensors: dict[str, Tensor]
    mean: Tensor
    size: InputSize
    classes: list[str] | None
    classifier: str | None


class _Unfit(Exception):
    """What is wrong with a file, as a sentence."""


def read_matconvnet(path: str | os.PathLike[str], model: str | None = None) -> MatFile:
    """Read a simple network (no DagNN) of MatConvNet from a .mat file in either layout; nothing in it is run.

    Args:
        path: a MATLAB 5 to 7 file with ``layers`` and ``meta`` (since 2015), or ``layers`` and ``normalization`` (2014).
        model: the network that it has to be; None for any. Bottom and right pads may differ where the output does not.

    Raises:
        InvrepError: there is no such file, it is damaged, something is missing in it, or it is another network's.
    """
    published = _PUBLISHED[model] if model else None
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvrepError(f"There is no weights file {str(path)!r}; rep.weights is a MatConvNet .mat file or random.")
    try:
        contents = _contents(file)
        size = _input_size(contents, published)
        layers, tensors = _chain(contents, size.crop, published.layers if published else ())
        mean = _mean(contents, size.crop)
    except _Unfit as error:
        mend = f"expected {published.file} or a part of it" if published else "expected a simple network"
        raise InvrepError(f"{str(path)!r} cannot be used for rep={model or 'matconvnet'}: {error}; {mend}, as on {_PAGE}.") from error
    names = _get(_get(contents, "meta", "classes") or _get(contents, "classes"), "description")
    scores = [layer.name for layer in layers if layer.kind != "softmax"][-1:]
    return MatFile(layers, tensors, mean, size)
