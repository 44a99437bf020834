"""Read MatConvNet's .mat files of simple networks, in both layouts, by field name and without pickles."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import matfile_version
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.geometry import InputSize
from invrep.representations.zoo.matlab_values import Unfit, array, get, numbers, pair, string, whole


@dataclass(frozen=True)
class Layer:
    """Hold one layer of a chain, with MatConvNet's parameters.

    Attributes:
        kind: convolution, max pooling, average pooling, normalisation, relu or softmax.
        name: name of the layer in the paper.
        size: height and width of the window.
        stride: vertical and horizontal stride.
        pad: top, bottom, left and right pad.
        dilate: vertical and horizontal dilation.
        channels: channels of a convolution's input and output, all groups together; a normalisation's channels, twice.
        groups: number of groups of a convolution.
        param: parameters N, κ, α, β of a normalisation (α multiplies the sum of squares, not their mean), or the leak
            of a ReLU.
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
            text += f" with the parameters {' '.join(f'{value:g}' for value in self.param)}"
        else:
            text += f", stride {self.stride[0]} {self.stride[1]}, pad {' '.join(map(str, self.pad))}"
        return text + (f", dilation {self.dilate[0]} {self.dilate[1]}" if self.dilate != (1, 1) else "")

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the output for an input's height and width; below 1 where no window fits."""
        margins = (self.pad[0] + self.pad[1], self.pad[2] + self.pad[3])
        each = zip(size, margins, self.size, self.dilate, self.stride, strict=True)
        height, width = ((n + p - d * (k - 1) - 1) // s + 1 for n, p, k, d, s in each)
        return height, width

    def same(self, other: Layer, size: tuple[int, int]) -> bool:
        """Return whether two layers give the same output for an input of this size.

        Bottom and right pads may differ where the output does not depend on them.
        """
        # MatConvNet's importer of Caffe models gives every pooling a bottom and right pad, needed or not.
        mine, its = (replace(one, name="", pad=(one.pad[0], 0, one.pad[2], 0), param=()) for one in (self, other))
        close = len(self.param) == len(other.param) and all(
            math.isclose(a, b, rel_tol=1e-3) for a, b in zip(self.param, other.param, strict=True)
        )
        return mine == its and close and self.output(size) == other.output(size)


@dataclass(frozen=True)
class MatFile:
    """Hold the contents of a file.

    Attributes:
        layers: layers in their order, without dropout and losses.
        tensors: weights with torch's names and shapes: ``conv1.weight`` (out, in / groups, rows, columns),
            ``conv1.bias`` (out,) and so on.
        mean: mean image, (3, 1, 1) or (3, H, W), RGB, 0 … 255.
        size: input size, and how photos are resized to it.
        classes: names of the last layer's outputs; None where the file has none.
    """

    layers: tuple[Layer, ...]
    tensors: dict[str, Tensor]
    mean: Tensor
    size: InputSize
    classes: list[str] | None


def read_matfile(
    path: str | os.PathLike[str], *, layers: Sequence[Layer] = (), size: InputSize | None = None, expected: str
) -> MatFile:
    """Read a simple network (no DagNN) in the layout of 2014 or the later one.

    Args:
        path: MATLAB 5 to 7 file with the variables ``layers`` and ``meta``, or ``layers`` and ``normalization``, or
            with a structure ``net`` of them.
        layers: expected layers, which also name the file's; the file may end early. Empty: any chain is accepted.
        size: input size where the file does not define its own.
        expected: words for the expected file, in messages.

    Raises:
        InvrepError: there is no such file, it is damaged or incomplete, or it holds other layers.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvrepError(f"There is no weights file {str(path)!r}; expected {expected}.")
    try:
        contents = _contents(file)
        normalization = get(contents, "normalization")
        size = _input_size(normalization, size)
        chain, tensors = _chain(get(contents, "layers"), size.crop, layers)
        mean = _mean(normalization, size.crop)
    except Unfit as error:
        raise InvrepError(f"The weights file {str(path)!r} is not used: {error}; expected {expected}.") from error
    names = get(get(contents, "classes"), "description")
    classes = None if names is None else [string(name) for name in np.asarray(names).reshape(-1)]
    return MatFile(chain, tensors, mean, size, classes)


_DAG = ("vars", "params")
_VARIABLES = ("layers", "meta", "normalization", "classes", *_DAG)


def _contents(file: Path) -> dict[str, Any]:
    """Return the variables of a .mat file, with the fields of the later layout's ``meta``.

    Raises:
        Unfit: the file has another format, is damaged, or holds no chain of layers.
    """
    try:
        version = matfile_version(str(file))[0]
    except Exception as error:  # scipy's parser raises any exception on a foreign file
        raise Unfit("it is no MATLAB file") from error
    if version == 2:
        raise Unfit("it is a MATLAB 7.3 (HDF5) file, which is not read; load it in MATLAB and save it with -v7")
    if version != 1:
        raise Unfit("it is no MATLAB 5 to 7 file")
    _check_sums(file)
    try:
        contents = loadmat(str(file), variable_names=[*_VARIABLES, "net"])
    except Exception as error:
        raise Unfit("it is damaged or cut short") from error
    if "layers" not in contents and "net" in contents:  # a file that was saved without -struct
        contents = {name: get(contents["net"], name) for name in _VARIABLES}
    if any(get(contents, name) is not None for name in _DAG):
        raise Unfit("it holds a DagNN, where only chains of layers (SimpleNN) are read")
    if get(contents, "layers") is None:
        raise Unfit("it has no layers, or is cut short")
    meta = get(contents, "meta")
    found: dict[str, Any] = contents | {
        name: get(meta, name) for name in ("normalization", "classes") if get(meta, name) is not None
    }
    return found


def _check_sums(file: Path) -> None:
    """Refuse a file that is cut short, or that has a compressed variable with a wrong checksum.

    scipy's reader trusts types and lengths, and some wrong ones end the process (its pull request 25349).

    Raises:
        Unfit: the file is damaged.
    """
    with file.open("rb") as opened:
        order: Literal["big", "little"] = "big" if opened.read(128)[126:] == b"MI" else "little"
        while tag := opened.read(8):
            left = int.from_bytes(tag[4:], order)
            unpacker = zlib.decompressobj() if int.from_bytes(tag[:4], order) == 15 else None  # miCOMPRESSED
            while left and (part := opened.read(min(left, 1 << 20))):
                left -= len(part)
                try:
                    if unpacker is not None:
                        unpacker.decompress(part)
                except zlib.error as error:
                    raise Unfit("it is damaged") from error
            if left or len(tag) < 8 or (unpacker is not None and not unpacker.eof):
                raise Unfit("it is damaged or cut short")


def _chain(cells: Any, size: tuple[int, int], expected: Sequence[Layer]) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """Return a chain's layers and weights; the first layer sees colour images of this size.

    Raises:
        Unfit: the layers are not the expected ones, or do not fit each other.
    """
    layers: list[Layer] = []
    tensors: dict[str, Tensor] = {}
    channels = 3
    for number, cell in enumerate(np.asarray(cells).reshape(-1), start=1):
        kind, name = string(get(cell, "type")), string(get(cell, "name")).replace(".", "_")
        if kind in ("dropout", "softmaxloss", "loss"):
            continue
        if not name or hasattr(torch.nn.Module, name) or any(name == layer.name for layer in layers):
            name = f"layer{number}"  # as in vl_simplenn_tidy; no submodule can have the other names
        wanted = expected[len(layers)] if len(layers) < len(expected) else None
        name = wanted.name if wanted else name
        layer, weights = _layer(cell, kind, name, channels)
        if expected and wanted is None:
            raise Unfit(f"it goes on after {expected[-1].name} with {layer}")
        if wanted and not layer.same(wanted, size):
            raise Unfit(f"its layer {name} is {layer}, not {wanted}")
        size, channels = layer.output(size), layer.channels[1] or channels
        if min(size) < 1:
            raise Unfit(f"its layers do not fit each other: nothing of the image is left after {name}")
        layers.append(layer)
        tensors |= {f"{name}.{key}": value for key, value in weights.items()}
    if not layers:
        raise Unfit("it has no layers")
    return tuple(layers), tensors


def _layer(cell: Any, kind: str, name: str, channels: int) -> tuple[Layer, dict[str, Tensor]]:
    """Return a layer and its weights; defaults are vl_simplenn_tidy's.

    Args:
        cell: MATLAB structure of the layer.
        kind: type of the layer in the file.
        name: name of the layer.
        channels: number of its input's channels.

    Raises:
        Unfit: the layer is of an unknown type, lacks a field, or does not fit its input.
    """
    if kind == "softmax":
        return Layer("softmax", name), {}
    if kind == "relu":
        return Layer("relu", name, param=numbers(cell, "leak", name, counts=(1,), default=(0.0,))), {}
    if kind in ("normalize", "lrn"):
        param = numbers(cell, "param", name, counts=(4,))
        return Layer("normalisation", name, channels=(channels, channels), param=param), {}
    if kind not in ("conv", "pool"):
        known = "conv, pool, normalize, lrn, relu, softmax, softmaxloss and dropout"
        raise Unfit(f"its layer {name} is of the type {kind!r}, where only {known} are known")
    pad = whole(cell, "pad", name, counts=(1, 2, 4), default=(0,), least=0)
    top, bottom, left, right = pad if len(pad) == 4 else (pad[0], pad[0], pad[-1], pad[-1])
    stride, pad = pair(cell, "stride", name), (top, bottom, left, right)
    if kind == "pool":
        rows, columns = pair(cell, "pool", name, default=None)
        if max(top, bottom) >= rows or max(left, right) >= columns:
            raise Unfit(f"its layer {name} has a pad that is no smaller than its window")
        method = string(get(cell, "method")) or "max"
        if method not in ("max", "avg"):
            raise Unfit(f"its layer {name} pools by {method!r}, where only max and avg are known")
        return Layer("max pooling" if method == "max" else "average pooling", name, (rows, columns), stride, pad), {}
    filters, biases = _weights(cell, name)
    rows, columns, inputs, outputs = filters.shape
    groups = channels // inputs
    if groups * inputs != channels or outputs % groups or biases.size != outputs:
        raise Unfit(
            f"its layers do not fit each other: {name} has filters of {rows}×{columns}×{inputs}×{outputs} and "
            f"{biases.size} biases for an input of {channels} channels"
        )
    dilate = pair(cell, "dilate", name)
    layer = Layer(
        "convolution", name, (rows, columns), stride, pad, dilate, channels=(channels, outputs), groups=groups
    )
    return layer, {"weight": torch.from_numpy(filters.transpose(3, 2, 0, 1)), "bias": torch.from_numpy(biases)}


def _weights(cell: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return filters (rows, columns, in / groups, out) and biases (out,).

    Raises:
        Unfit: the layer has no filters, or filters of more than 4 dimensions.
    """
    both = get(cell, "weights")
    if both is None:
        filters, biases = get(cell, "filters"), get(cell, "biases")
    else:
        filters, biases = [*np.asarray(both).reshape(-1), None][:2]
    if filters is None or not np.size(filters):
        raise Unfit(f"its layer {name} has no weights")
    filters = array(filters, f"the filters of its layer {name}")
    biases = np.zeros(0, np.float32) if biases is None else array(biases, f"the biases of its layer {name}").reshape(-1)
    if filters.ndim == 2 and 1 < biases.size == filters.shape[1]:
        filters = filters[None, None]  # squeezed 1×1 filters; MATLAB's own would have one output
    if filters.ndim > 4:
        raise Unfit(f"the filters of its layer {name} have {filters.ndim} dimensions, not 4")
    filters = filters.reshape(*filters.shape, *(1,) * (4 - filters.ndim))  # MATLAB drops trailing ones
    return filters, biases if biases.size else np.zeros(filters.shape[3], np.float32)


def _mean(normalization: Any, size: tuple[int, int]) -> Tensor:
    """Return averageImage, (3, 1, 1) or (3, H, W).

    Raises:
        Unfit: the file has none, or one of another size.
    """
    mean = get(normalization, "averageImage")
    if mean is None:
        raise Unfit("it has no averageImage to subtract from images")
    mean = array(mean, "its averageImage")
    if mean.size == 3:
        return torch.from_numpy(mean.reshape(3, 1, 1))
    if mean.shape != (*size, 3):
        found = "×".join(map(str, mean.shape))
        raise Unfit(f"its averageImage is of {found}, neither {size[0]}×{size[1]}×3 nor 3 numbers")
    return torch.from_numpy(mean.transpose(2, 0, 1))


def _input_size(normalization: Any, otherwise: InputSize | None) -> InputSize:
    """Return imageSize as the crop, and the size before it: imageSize + border, or imageSize / cropSize."""
    owner = "normalization"
    sides = whole(normalization, "imageSize", owner, counts=(2, 3, 4), default=otherwise.crop if otherwise else None)
    crop = sides[0], sides[1]
    resize: int | tuple[int, int] = otherwise.resize if otherwise else crop
    border = numbers(normalization, "border", owner, counts=(1, 2), default=())
    share = numbers(normalization, "cropSize", owner, counts=(1, 2), default=())
    if border or (share and min(share) > 0):
        if border:
            resize = round(crop[0] + border[0]), round(crop[1] + border[-1])
        else:
            resize = round(crop[0] / share[0]), round(crop[1] / share[-1])
        if any(numbers(normalization, "keepAspect", owner, counts=(1,), default=(1.0,))):
            resize = max(resize)
    word = string(get(normalization, "interpolation"))
    return InputSize(crop, resize, word if word in ("bilinear", "bicubic") else "bilinear")
