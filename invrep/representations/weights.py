"""Weights: reading files, torchvision's own, and giving them to a module that has none yet."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from invrep.errors import InvrepError, nearest

_CHOICES = "use rep.weights=random or a local file, rep.weights=path/to/file.safetensors (or .pth, .pt)"

# torchvision's DenseNet files were written before its layers got their present names.
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


def published_weights(model: str, weights: str = "default") -> WeightsEnum | None:
    """Return torchvision's entry for a model: its default one, or the one named; None for any other word.

    Raises:
        InvrepError: torchvision has no model of this name for classification or segmentation.
    """
    known = [name for kind in (models, models.segmentation) for name in models.list_models(module=kind)]
    if model not in known:
        if model in models.list_models():
            raise InvrepError(
                f"torchvision's {model} takes no batch of photos alone (video, flow, boxes or quantised weights); "
                f"expected a model for classification or segmentation, such as {known[0]}."
            )
        raise InvrepError(f"torchvision has no model {model!r}; {nearest(str(model), known)}.")
    entries = models.get_model_weights(model)
    return entries.DEFAULT if weights == "default" else entries.__members__.get(weights)


def file_id(path: str | os.PathLike[str]) -> str:
    """Return the first twelve hexadecimal digits of a file's SHA-256.

    Raises:
        InvrepError: there is no such file, or it cannot be read.
    """
    try:
        with open(existing(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise InvrepError(f"The weights file {str(path)!r} cannot be read ({error.strerror}).") from error


def download_weights(entry: WeightsEnum) -> dict[str, Tensor]:
    """Return torchvision's published weights, from torch hub's cache or the network.

    Raises:
        InvrepError: they are in neither, or the cached file is damaged.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    was_there = cached.is_file()
    try:
        return _plain(entry.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True))
    except Exception as error:
        if was_there:
            raise InvrepError(
                f"The cached weights {str(cached)!r} cannot be read ({_reason(error)}); delete that file to have it "
                f"downloaded again, or {_CHOICES}."
            ) from error
        raise InvrepError(
            f"The weights {entry} are not in torch hub's cache ({cached.parent}) and cannot be downloaded "
            f"({_reason(error)}); {_CHOICES}."
        ) from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth or .pt file by name, on the CPU; no code in it is run.

    Tensors under a key ``state_dict`` or ``model`` and the prefix ``module.`` of DataParallel are found as well.

    Raises:
        InvrepError: there is no such file, it is no weights file, or it holds code.
    """
    file = existing(path)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                found: Any = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, no mapping
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on the pickle protocol of files that turn out to be no weights
                # Mapped, a checkpoint of which a layer needs a tenth is not read whole; old files cannot be.
                found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file) or _first_byte(file) == b"\x80":  # a pickle, old or new
            raise InvrepError(
                f"The weights file {str(path)!r} holds Python objects, which could run any code, and is not opened; "
                "save module.state_dict() alone."
            ) from error
        raise _no_weights(path) from error
    except OSError as error:
        raise InvrepError(f"The weights file {str(path)!r} cannot be read ({_reason(error)}).") from error
    except (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _no_weights(path) from error
    tensors = _plain(found)
    if not tensors:
        raise _no_weights(path)
    return tensors


def assign_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Give a module without values (on the meta device) those it needs, as copies on the CPU, frozen.

    Args:
        module: its parameters and buffers say which names, shapes and types are wanted.
        tensors: may hold more than that.
        source: what the messages call the tensors.

    Raises:
        InvrepError: names are missing, or shapes differ.
    """
    wanted = module.state_dict()
    given: Any = OrderedDict()
    # Files without torch's version marks are taken as the present version's where a whole network asks (MNASNet).
    given._metadata = {"": {"version": getattr(module, "_version", None)}}
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise InvrepError(
                f"{source} do not fit: {name} has the shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}."
            )
        # Names that are not wanted stay, for some of torchvision's classes rename those of old files as they load.
        dtype = wanted[name].dtype if name in wanted else tensor.dtype
        given[name] = tensor.detach().to(dtype, copy=name in wanted, memory_format=torch.contiguous_format)
    try:
        missing = module.load_state_dict(given, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise InvrepError(f"{source} do not fit: {str(error).strip().splitlines()[-1].strip()}") from error
    if missing:
        raise InvrepError(
            f"{source} lack {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + ", which the layers up to the one asked for need."
        )
    module.requires_grad_(False)


def _plain(found: Any) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint, under the names that torchvision's modules have."""
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        return {}
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items()}


def existing(path: str | os.PathLike[str]) -> Path:
    """Return where a weights file is.

    Raises:
        InvrepError: nowhere.
    """
    file = Path(path).expanduser()
    if file.exists() and not file.is_file():  # a pipe or a device would never end
        raise InvrepError(f"The weights file {str(path)!r} cannot be read: it is a folder, a pipe or a device.")
    if not file.exists():
        raise InvrepError(
            f"There is no weights file {str(path)!r}; weights is default, random or the path of a local "
            ".safetensors, .pth or .pt file."
        )
    return file


def _no_weights(path: str | os.PathLike[str]) -> InvrepError:
    return InvrepError(
        f"{str(path)!r} is no weights file: it is damaged, or no .safetensors, .pth or .pt with tensors."
    )


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _first_byte(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(1)
