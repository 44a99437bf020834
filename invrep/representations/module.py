"""Make Φ from any nn.Module of a Python function or class, cut at a layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any, cast

import torch
from torch import nn

from invrep.errors import InvrepError, words
from invrep.importing import find_here
from invrep.representations.base import Representation
from invrep.representations.geometry import InputSize
from invrep.representations.network import Network
from invrep.representations.tracing.layer_names import LISTING, LayerNames
from invrep.representations.tracing.wrapped import without_values
from invrep.representations.zoo.checkpoint_layouts import lacking
from invrep.representations.zoo.weights import file_id, read_weights
from invrep.stable_names import known_as


@known_as("module")
def module_network(
    target: str,
    *,
    layer: LayerNames = None,
    args: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    channels: int = 3,
    size: int | Sequence[int] | None = None,
    resize: int | Sequence[int] | None = None,
    interpolation: str = "bilinear",
    seed: int = 0,
) -> Representation:
    """Return a user's module up to a layer, as a representation.

    Args:
        target: import path, ``package.module.factory``, of a function or class that returns an nn.Module. A
            :class:`Representation` is returned as it is. The working folder is searched too.
        layer: layer as in :class:`invrep.representations.network.Network`; None for the module's output.
        args: keyword arguments of the factory.
        weights: path of a .safetensors, .pth or .pt file with the module's state dict; None keeps the factory's
            weights.
        mean: mean of the module's input; the module sees (images − mean) / std, for images in [0, 1]. A number, or one
            per channel.
        std: standard deviation of the module's input; a number, or one per channel.
        channels: number of channels that the module takes.
        size: height and width in pixels of resized and cropped photos, or one number for both; None for any.
        resize: shorter side in pixels before the crop, or a height and width; by default ``size``.
        interpolation: name of the resize's :class:`torchvision.transforms.InterpolationMode`.
        seed: seed of torch while the factory runs; torch's random state stays unchanged.

    Raises:
        InvrepError: there is no such target, layer or file; the target makes no module; the weights do not fit.
    """
    made = make_module(target, args or {}, seed)
    if isinstance(made, Representation):
        if weights is not None:
            load_weights(made, weights, set(made.state_dict()))
        return made
    crop = _sides((size, size) if isinstance(size, int) else size) if size else None
    network = Network(
        made,
        None if layer in LISTING else layer,
        mean=mean,
        std=std,
        channels=(channels,),
        input_size=None if crop is None else InputSize(crop, _side(resize) or crop, interpolation),
        name=target.rpartition(".")[2],
    )
    if weights is not None:
        needed = set(made.state_dict())
        with suppress(Exception):  # a module that fails on the meta device needs every weight
            needed &= network.published_trace.weights_up_to(network.paths)
        load_weights(made, weights, needed)
    if layer not in LISTING and (lack := without_values(made)):
        raise InvrepError(f"The module of rep.target={target} cannot be run: its weight {lack}.")
    network.weights_id = _digest(made) if weights is None else file_id(weights)
    network.weights_file = None if weights is None else str(weights)
    return network


def make_module(target: str, args: Mapping[str, Any], seed: int, *, group: str = "rep") -> nn.Module:
    """Return the module or representation of a target.

    Args:
        target: import path of a function or class that returns an nn.Module, or of an nn.Module.
        args: keyword arguments of the factory.
        seed: seed of torch while the factory runs; torch's random state stays unchanged.
        group: config group whose keys the messages name.

    Raises:
        InvrepError: the target cannot be imported, refuses the arguments, fails, or makes no module.
    """
    if not isinstance(target, str) or "." not in target:
        raise InvrepError(f"{group}.target={target} is not valid: expected package.module.factory.")
    find_here()
    with torch.random.fork_rng(devices=[]):
        try:
            factory = resolve_name(target)
        except Exception as error:
            reason = str(error.__cause__ or error).splitlines()[0].rstrip(".")
            raise InvrepError(
                f"{group}.target={target} cannot be imported ({reason}); expected package.module.factory."
            ) from error
        torch.manual_seed(seed)  # after the import, which draws numbers only once
        try:
            made = factory if isinstance(factory, nn.Module) else factory(**args)
        except TypeError as error:
            raise InvrepError(f"{group}.target={target} does not take {group}.args={dict(args)}: {error}.") from error
        except InvrepError:
            raise
        except Exception as error:
            raise InvrepError(f"{group}.target={target} failed while it was called: {words(error)}") from error
    if not isinstance(made, nn.Module):
        raise InvrepError(f"{group}.target={target} made a {type(made).__name__}, expected an nn.Module.")
    return made


def load_weights(module: nn.Module, weights: str | os.PathLike[str], needed: set[str]) -> None:
    """Load a file's weights into a module; the file must hold the needed names.

    Args:
        module: module to fill.
        weights: path of the file.
        needed: names of the parameters and buffers that the file must hold.

    Raises:
        InvrepError: needed weights are missing, or shapes differ.
    """
    source, wanted = f"The weights in {str(weights)!r}", module.state_dict()
    tensors = read_weights(weights, {name: wanted[name] for name in needed})
    missing = sorted(name for name in needed - tensors.keys() if not name.endswith("num_batches_tracked"))
    if missing:
        raise lacking(source, missing, tensors)
    wrong = [name for name in wanted.keys() & tensors.keys() if tensors[name].shape != wanted[name].shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InvrepError(f"{source} have another shape of {', '.join(wrong[:3])}{more}.")
    module.load_state_dict({name: tensors[name] for name in wanted if name in tensors}, strict=False)


def _side(resize: int | Sequence[int] | None) -> int | tuple[int, int] | None:
    return resize if resize is None or isinstance(resize, int) else _sides(resize)


def _sides(given: Sequence[int]) -> tuple[int, int]:
    return cast("tuple[int, int]", tuple(given))


def _digest(module: nn.Module) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of a factory's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()[:12]
