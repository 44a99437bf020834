"""Build the paper's networks with MatConvNet's layers, from files of its pretrained models or with random weights."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invrep.errors import InvrepError, nearest
from invrep.representations.geometry import InputSize
from invrep.representations.network import Network
from invrep.representations.tracing.dry_run import meta_copy
from invrep.representations.tracing.layer_names import LISTING, LayerNames
from invrep.representations.tracing.meta_init import drop_weights
from invrep.representations.zoo.matconvnet_layers import layer_module
from invrep.representations.zoo.matconvnet_published import MEAN, PUBLISHED
from invrep.representations.zoo.matfile import Layer, read_matfile
from invrep.representations.zoo.weights import assign_weights, file_id, read_weights
from invrep.stable_names import known_as

_PAGE = "www.vlfeat.org/matconvnet/pretrained"


@known_as("matconvnet")
def matconvnet_network(
    model: str | None, *, layer: LayerNames, weights: str | os.PathLike[str] = "default", seed: int = 0
) -> Network:
    """Return one of the paper's networks up to a layer, as a representation (paper.md §4).

    The network takes images (B, 3, H, W) in [0, 1]. It scales them to 0 … 255 and subtracts the file's mean image.
    Layers have the paper's names, ``conv1`` … ``fc8``, then ``prob``. They also have its numbers from 1 on:
    ``layer=15`` is CaffeNet's ``pool5``. Windows, pads and normalisation follow MatConvNet's vl_nnconv, vl_nnpool and
    vl_nnnormalize.

    Args:
        model: name of the network, ``caffenet`` (the paper's CNN-A), ``caffe_alexnet``, ``vgg_m`` or ``vgg_vd_16``.
            None: any chain of convolutions, poolings, normalisations and ReLUs in the file.
        layer: name or number, or several.
        weights: path of a MatConvNet file in either layout, which may end after the layers used; or ``random``. A model
            with a name also takes the path of a .safetensors, .pth or .pt file with ``conv1.weight`` and so on.
        seed: seed of random weights (He et al. 2015, biases 0). A layer's weights depend on the seed and the layer's
            name alone; torch's random state stays unchanged.

    Raises:
        InvrepError: there is no such model, layer or file; the file is damaged, or another network's.
    """
    if model is not None and model not in PUBLISHED:
        raise InvrepError(f"There is no MatConvNet network {model!r}; {nearest(str(model), PUBLISHED)}.")
    published = None if model is None else PUBLISHED[model]
    name, path = model or "matconvnet", str(weights)
    if published is not None:
        # Before the file: a wrong layer is reported at once.
        network = _network(published.layers, layer, mean=MEAN, size=published.size, name=name)
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


def _network(layers: tuple[Layer, ...], layer: LayerNames, *, mean: Any, size: InputSize, name: str) -> Network:
    """Return the network without weights; the mean is 3 numbers or (3, H, W), in 0 … 255."""
    names = [one.name for one in layers if one.kind != "softmax"]
    if layer is None or layer == "???":
        raise InvrepError(
            f"{name} needs a layer, for instance layer={names[0]}, layer={names[len(names) // 2]} or "
            f"layer={names[-1]}; layer=list shows all."
        )
    module = nn.Sequential()
    for one in layers:
        module.add_module(one.name, layer_module(one))
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
    """Return the names of the weights up to the network's layers."""
    return network.published_trace.weights_up_to(network.paths)


def _fill(network: Network, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Load the needed weights into the network, and drop the others."""
    needed = _needed(network)
    drop_weights(network.module, keep=needed)
    assign_weights(network.module, tensors, source=source)


def _scores(layers: tuple[Layer, ...], size: InputSize) -> str | None:
    """Return the layer of the class scores, a last convolution that leaves one position; None without one."""
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
