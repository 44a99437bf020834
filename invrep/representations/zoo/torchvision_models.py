"""Build torchvision's networks by name, cut at a layer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from invrep.errors import InvrepError
from invrep.representations.geometry import InputSize
from invrep.representations.network import Network
from invrep.representations.tracing.layer_names import LISTING, LayerNames
from invrep.representations.tracing.meta_init import drop_weights, initial_weights, skeleton_of
from invrep.representations.zoo.weights import (
    assign_weights,
    download_weights,
    file_id,
    published_weights,
    read_weights,
)
from invrep.stable_names import known_as


@known_as("torchvision")
def torchvision_network(
    model: str, *, layer: LayerNames, weights: str | os.PathLike[str] = "default", seed: int = 0
) -> Network:
    """Return a torchvision network for classification or segmentation up to a layer, as a representation.

    Mean, standard deviation and input size come from the model's published transform, also with other weights. Modules
    past the layer have no weights: published ones are dropped, and random ones are not made.

    Args:
        model: name for ``torchvision.models.get_model``.
        layer: layer as in :class:`invrep.representations.network.Network`; AlexNet and VGG have names in the paper's
            style (:func:`numbered_layers`). With ``list`` or ``?`` the network has no weights and lists its layers.
        weights: source of the weights: ``default`` (torchvision's choice), the name of one of torchvision's entries
            (``IMAGENET1K_V1``), ``random``, or the path of a .safetensors, .pth or .pt file. Entries come from torch
            hub's cache or the network. A file may hold just the layers used.
        seed: seed of random weights, which torchvision's own initialisation makes. A layer's weights do not depend on
            the cut; torch's random state stays unchanged.

    Raises:
        InvrepError: there is no such model, layer or file; the weights do not fit or cannot be downloaded.
    """
    entry = published_weights(model, str(weights))
    published: WeightsEnum = entry or published_weights(model)  # every model has default weights
    build = _builder(model, published, trained=weights != "random")
    skeleton, order = skeleton_of(build)
    aliases = _aliases(skeleton)
    if layer is None or layer == "???":
        names = list(aliases) or [path for path, _ in skeleton.named_children()]
        raise InvrepError(
            f"{model} needs a layer, for instance layer={names[0]}, layer={names[len(names) // 2]} or "
            f"layer={names[-1]}; layer=list shows all."
        )
    preset = published.transforms()
    module = copy.deepcopy(skeleton)
    # Before the weights: a wrong layer is reported before any reading or download.
    network = Network(
        module,
        None if layer in LISTING else layer,
        mean=preset.mean,
        std=preset.std,
        input_size=_input_size(preset),
        aliases=aliases,
        name=model,
        skeleton=skeleton,
    )
    if layer in LISTING:
        return network
    needed = network.published_trace.weights_up_to(network.paths)
    drop_weights(module, keep=needed)
    if weights == "random":
        network.weights_id = "random"
        assign_weights(module, initial_weights(build, seed, order, needed), source=f"{model}'s random weights")
    elif entry is not None:
        network.weights_id = f"{entry}-{entry.url.rpartition('-')[2].partition('.')[0]}"
        assign_weights(module, download_weights(entry), source=f"torchvision's {entry}")
    else:
        network.weights_id, network.weights_file = file_id(weights), str(weights)
        tensors = read_weights(weights, module.state_dict())
        assign_weights(module, tensors, source=f"The weights in {str(weights)!r}")
    module.eval()
    if weights != "random" and "categories" in published.meta and not _segments(model):
        network.classes = published.meta["categories"]
        network.classifier = partial(torchvision_network, model, layer="output", weights=weights)
    return network


def numbered_layers(module: nn.Module, *, blocks: bool) -> dict[str, str]:
    """Return short names in the paper's style → module paths, for a network that is one sequence.

    Args:
        module: network; its convolutions, ReLUs, poolings and linear layers count in the order of ``modules()``.
        blocks: whether numbers count blocks, as in VGG: a pooling ends a block. Its layers are ``conv5_3``,
            ``relu5_3``, ``pool5``, and ``conv5`` and ``relu5`` are its last. Otherwise numbers count convolutions, as
            in AlexNet: ``conv3``, ``relu3``. Linear layers continue the count: ``fc6``, ``relu6``.
    """
    names: dict[str, str] = {}
    number, within, open_block = 0, 0, False
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            number, within = (number + 1, 1) if not (blocks and open_block) else (number, within + 1)
            open_block = True
            kind = "conv"
        elif isinstance(layer, nn.Linear):
            number, within, kind = number + 1, 0, "fc"
        elif isinstance(layer, nn.BatchNorm2d):
            kind = "bn"
        elif isinstance(layer, nn.ReLU):
            kind = "relu"
        elif isinstance(layer, nn.MaxPool2d):
            names[f"pool{number}"] = path
            open_block = False
            continue
        else:
            continue
        if blocks and within:
            names[f"{kind}{number}_{within}"] = path
        names[f"{kind}{number}"] = path
    return names


def _aliases(module: nn.Module) -> dict[str, str]:
    if isinstance(module, (models.AlexNet, models.VGG)):
        return numbered_layers(module, blocks=isinstance(module, models.VGG))
    return {}


def _builder(model: str, entry: WeightsEnum, *, trained: bool) -> Callable[[], nn.Module]:
    """Return a function that builds the model as torchvision does for these weights, but without them."""
    options: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):
        options = {"transform_input": trained, "init_weights": not trained}
    elif _segments(model):
        options = {"weights_backbone": None, "num_classes": len(entry.meta["categories"]), "aux_loss": True}
    elif model.startswith("vit_"):
        options = {"image_size": entry.meta["min_size"][0]}
    return lambda: models.get_model(model, weights=None, **options)


def _segments(model: str) -> bool:
    return model in models.list_models(module=models.segmentation)


def _input_size(preset: Any) -> InputSize:
    """Return the sizes in torchvision's preset; a preset for segmentation does not crop."""
    resize = list(preset.resize_size)
    crop = list(getattr(preset, "crop_size", resize))
    return InputSize(
        crop=(crop[0], crop[-1]),
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=preset.interpolation.value,
    )
