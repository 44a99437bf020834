"""Read weights from files or from torchvision, and load them into a module without weights."""

from __future__ import annotations

import hashlib
import os
import pickle
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
from invrep.representations.zoo.checkpoint_layouts import lacking, plain_weights, weights_for
from invrep.representations.zoo.reach import unreachable

_CHOICES = "use rep.weights=random or a local file, rep.weights=path/to/file.safetensors (or .pth, .pt)"


def published_weights(model: str, weights: str = "default") -> WeightsEnum | None:
    """Return torchvision's entry for a model: the default one, or the named one; None for any other word.

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
        InvrepError: the cache lacks the weights and the download fails, or the cached file is damaged.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    was_there = cached.is_file()
    try:
        if not was_there and (why := unreachable(entry.url)):
            raise OSError(why)
        return plain_weights(
            entry.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
        )
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


def read_weights(path: str | os.PathLike[str], wanted: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth or .pt file by name, on the CPU; no code in the file runs.

    Args:
        path: path of the file.
        wanted: name → tensor of a module, which locates the tensors' keys and prefix
            (:func:`invrep.representations.zoo.checkpoint_layouts.weights_for`). None looks under ``state_dict``,
            ``model`` and ``module.``.

    Raises:
        InvrepError: there is no such file, it is no weights file, it holds code, or different tensors fit.
    """
    file = existing(path)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                found: Any = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, no mapping
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings on the pickle protocol of files without weights
                # Mapped, a checkpoint is read no further than the layer's share. Old files cannot be mapped.
                found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        if _kind(file) is None and (zipfile.is_zipfile(file) or _head(file)[:1] == b"\x80"):  # a pickle, old or new
            raise InvrepError(
                f"The weights file {str(path)!r} holds Python objects, which could run any code, and is not opened; "
                "save module.state_dict() alone."
            ) from error
        raise _no_weights(path) from error
    except OSError as error:
        raise InvrepError(f"The weights file {str(path)!r} cannot be read ({_reason(error)}).") from error
    except (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _no_weights(path) from error
    source = f"The weights in {str(path)!r}"
    tensors = plain_weights(found) if wanted is None else weights_for(found, wanted, source)
    if not tensors:
        keys = f": its keys are {', '.join(map(str, list(found)[:5]))}" if isinstance(found, Mapping) else ""
        raise InvrepError(
            f"{str(path)!r} is no weights file: it holds a {type(found).__name__} without named tensors{keys}."
        )
    return tensors


def assign_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights into a module without values (on the meta device), as frozen copies on the CPU.

    Args:
        module: module to fill; its parameters and buffers define the wanted names, shapes and types.
        tensors: name → tensor; further names are allowed.
        source: name of the tensors in messages.

    Raises:
        InvrepError: names are missing, or shapes differ.
    """
    wanted = module.state_dict()
    given: Any = OrderedDict()
    # Files without torch's version marks count as the present version, which MNASNet's loading asks for.
    given._metadata = {"": {"version": getattr(module, "_version", None)}}
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise InvrepError(
                f"{source} do not fit: {name} has the shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}."
            )
        # Unwanted names stay: some of torchvision's classes rename an old file's weights while loading.
        dtype = wanted[name].dtype if name in wanted else tensor.dtype
        given[name] = tensor.detach().to(dtype, copy=name in wanted, memory_format=torch.contiguous_format)
    try:
        missing = module.load_state_dict(given, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise InvrepError(f"{source} do not fit: {str(error).strip().splitlines()[-1].strip()}") from error
    if missing:
        raise lacking(source, missing, tensors)
    module.requires_grad_(False)


def existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of a weights file, with ``~`` expanded.

    Raises:
        InvrepError: there is no such file, or the path is a folder, a pipe or a device.
    """
    file = Path(path).expanduser()
    if file.exists() and not file.is_file():  # reading a pipe or a device would never end
        raise InvrepError(f"The weights file {str(path)!r} cannot be read: it is a folder, a pipe or a device.")
    if not file.exists():
        raise InvrepError(
            f"There is no weights file {str(path)!r}; weights is default, random or the path of a local "
            ".safetensors, .pth or .pt file."
        )
    return file


def _no_weights(path: str | os.PathLike[str]) -> InvrepError:
    kind = _kind(existing(path))
    what = f"it is {kind}" if kind else "it is damaged, or no .safetensors, .pth or .pt with tensors"
    return InvrepError(f"{str(path)!r} is no weights file: {what}.")


def _kind(file: Path) -> str | None:
    """Return the kind of a file that looks like weights, and how to convert it; None for any other file."""
    head = _head(file)
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to it; fetch it with git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, which a download without access leaves; download it again"
    if text.startswith(b"{") and b'"weight_map"' in text:
        return "the index of weights in several files; save them as one .safetensors file"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes; save a module's state_dict() with torch.save"
    if file.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and (b"pytorch" in text or b"onnx" in text)):
        return "an ONNX graph; save module.state_dict() of the PyTorch module that it was made from"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "a TorchScript archive; save torch.jit.load(FILE).state_dict() with torch.save"
        if any(name.endswith(".npy") for name in names):
            return "a NumPy archive; save it as .safetensors"
    return None


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4096)
