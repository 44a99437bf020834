"""torchvision's classification networks by name, cut at a layer."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models
from torchvision.models import WeightsEnum

from invrep.errors import InvrepError
from invrep.representations.base import InputSize
from invrep.representations.network import LayerNames, Network
from invrep.representations.trace import meta_copy
from invrep.representations.weights import assign_weights, download_weights, published_weights, read_weights


def torchvision_network(
    model: str, *, layer: LayerNames, weights: str | os.PathLike[str] = "default", seed: int = 0
) -> Network:
    """Return a torchvision classification network up to a layer, as a representation.

    Mean, standard deviation and input size are those of the model's published transform, also with other weights. What
    lies past the layer has no weights: they are not kept, and random ones are not made.

    Args:
        model: a name that ``torchvision.models.get_model`` knows.
        layer: a module path or, for AlexNet and VGG, a name in the paper's style (:func:`numbered_layers`); or several.
        weights: ``default`` (torchvision's choice; from torch hub's cache or the network), the name of one of
            torchvision's entries (``IMAGENET1K_V1``), ``random``, or the path of a .safetensors, .pth or .pt file,
            which may hold no more than the layers used.
        seed: of random weights, which torchvision's own initialisation makes. Those of a layer do not depend on where
            the network is cut, and torch's random state stays as it is.

    Raises:
        InvrepError: there is no such model, layer or file; the weights do not fit or cannot be had.
    """
    entry = published_weights(model, str(weights))
    published = entry or published_weights(model)
    build = _builder(model, published, trained=weights != "random")
    skeleton, order = _skeleton(build)
    aliases = _aliases(skeleton)
    if layer is None or layer == "???":
        names = list(aliases) or [path for path, _ in skeleton.named_children()]
        raise InvrepError(
            f"{model} needs a layer, for instance layer={names[0]}, layer={names[len(names) // 2]} or "
            f"layer={names[-1]}."
        )
    preset = published.transforms()
    module = copy.deepcopy(skeleton)
    # Before the weights, so that a wrong name is known before anything is read or downloaded.
    network = Network(
        module,
        layer,
        mean=preset.mean,
        std=preset.std,
        input_size=_input_size(preset),
        aliases=aliases,
        name=model,
        skeleton=skeleton,
    )
    needed = network.published_trace.weights_up_to(network.paths)
    _drop_weights(module, keep=needed)
    if weights == "random":
        assign_weights(module, _initial(build, seed, order, needed), source=f"{model}'s random weights")
    elif entry is not None:
        assign_weights(module, download_weights(entry), source=f"torchvision's {entry}")
    else:
        assign_weights(module, read_weights(weights), source=f"The weights in {str(weights)!r}")
    module.eval()
    return network


def numbered_layers(module: nn.Module, *, blocks: bool) -> dict[str, str]:
    """Return short names in the paper's style → module paths, of a network that is one sequence.

    Args:
        module: its convolutions, ReLUs, poolings and linear layers are taken in the order of ``modules()``.
        blocks: the number is the block's, which a pooling ends, and layers within are ``conv5_3``, ``relu5_3``,
            ``pool5``, with ``conv5`` and ``relu5`` for the last of the block (VGG); otherwise it is the convolution's:
            ``conv3``, ``relu3`` (AlexNet). Linear layers go on counting: ``fc6``, ``relu6``.
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
    """Return what builds the model as torchvision builds it for these weights, but without them."""
    options: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):
        options = {"transform_input": trained, "init_weights": not trained}
    elif model.startswith("vit_"):
        options = {"image_size": entry.meta["min_size"][0]}
    return lambda: models.get_model(model, weights=None, **options)


def _skeleton(build: Callable[[], nn.Module]) -> tuple[nn.Module, list[str | None]]:
    """Return the model on the meta device, and its parameters' names in the order in which they were made."""
    made: list[nn.Parameter] = []
    try:
        with torch.device("meta"), _each_parameter(made.append):
            module = skeleton = build()
    except NotImplementedError:  # RegNet computes its widths with tensors
        made.clear()
        with torch.random.fork_rng(devices=[]), _each_parameter(made.append):
            module = build()
        skeleton = meta_copy(module)
    skeleton.requires_grad_(False).eval()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return skeleton, [names.get(id(parameter)) for parameter in made]


def _drop_weights(module: nn.Module, *, keep: set[str]) -> None:
    """Leave None for each parameter and buffer that is not kept; the modules stay what and where they are."""
    for path, child in module.named_modules():
        for tensors in (child._parameters, child._buffers):
            for name in tensors:
                if (f"{path}.{name}" if path else name) not in keep:
                    tensors[name] = None


def _initial(build: Callable[[], nn.Module], seed: int, order: list[str | None], needed: set[str]) -> dict[str, Tensor]:
    """Return the needed weights as the model's own initialisation makes them."""
    names = iter(order)
    draws = _SeededDraws(seed)

    def skip(parameter: nn.Parameter) -> nn.Parameter | None:
        name = next(names)
        if name not in needed:
            # Memory that nothing has written to costs nothing, and there is no arithmetic on the meta device.
            return nn.Parameter(parameter.to("meta"))
        draws.names[parameter.data_ptr()] = name
        return None

    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _each_parameter(skip), draws:
        tensors = build().state_dict()
    return {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}


class _SeededDraws(TorchDispatchMode):
    """Seeds every random operation by the parameter that it fills, so that it does not depend on the others."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.names: dict[int, str | None] = {}  # by address
        self._last: str | None = None
        self._draws: Counter[str | None] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = args[0] if args and isinstance(args[0], Tensor) else None
        if torch.Tag.nondeterministic_seeded in func.tags and not (target is not None and target.is_meta):
            # What has no name yet is a helper of the parameter before (trunc_normal_ draws again what lies outside).
            self._last = name = self._last if target is None else self.names.get(target.data_ptr(), self._last)
            self._draws[name] += 1
            digest = hashlib.sha256(f"{self.seed}/{name}/{self._draws[name]}".encode()).digest()
            torch.default_generator.manual_seed(int.from_bytes(digest[:7]))
        return func(*args, **(kwargs or {}))


@contextmanager
def _each_parameter(see: Callable[[nn.Parameter], nn.Parameter | None]) -> Iterator[None]:
    """Call ``see(parameter)`` whenever a module gets a parameter; what it returns, unless None, takes its place."""
    handle = register_module_parameter_registration_hook(lambda _module, _name, parameter: see(parameter))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
            yield
    finally:
        handle.remove()


def _input_size(preset: Any) -> InputSize:
    """Return the sizes in torchvision's ImageClassification preset."""
    crop, resize = list(preset.crop_size), list(preset.resize_size)
    return InputSize(
        crop=(crop[0], crop[-1]),
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=preset.interpolation.value,
    )
