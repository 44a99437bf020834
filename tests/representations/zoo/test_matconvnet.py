"""MatConvNet's files in both layouts against numpy, the paper's tables, and files that are no such thing."""

from __future__ import annotations

import functools
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from hydra.utils import instantiate
from numpy.lib.stride_tricks import sliding_window_view
from omegaconf import OmegaConf
from safetensors.torch import save_file
from scipy.io import savemat
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.network import Network
from invrep.representations.zoo.matconvnet import matconvnet_network

LAYOUTS = ("2014", "later")
SIZE = (33, 29)
MEAN = np.random.default_rng(5).uniform(90, 130, (*SIZE, 3)).astype(np.float32)
CLASSES = ["tench, Tinca tinca", "goldfish", ""]


# --- files ---------------------------------------------------------------------------------------------------------


def cell(values: list[Any]) -> np.ndarray:
    found = np.empty((1, len(values)), object)
    found[0, :] = values
    return found


def conv(name: str, rows: int, columns: int, inputs: int, outputs: int, **more: Any) -> dict[str, Any]:
    draws = np.random.default_rng(list(name.encode()))
    filters = draws.normal(size=(rows, columns, inputs, outputs)) * np.sqrt(2 / (rows * columns * inputs))
    biases = draws.normal(size=(1, outputs))
    weights = cell([filters.astype(np.float32), biases.astype(np.float32)])
    return {"name": name, "type": "conv", "weights": weights, "pad": 0, "stride": 1} | more


def pool(name: str, side: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "pool", "pool": side, "method": "max", "pad": 0, "stride": 1} | more


def norm(name: str, *param: float) -> dict[str, Any]:
    return {"name": name, "type": "lrn", "param": np.array(param)}


def relu(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "relu"} | more


def chain() -> list[dict[str, Any]]:
    """A narrow network with every kind of layer and of pad."""
    return [
        conv("conv1", 5, 3, 3, 8, pad=np.array([[2, 1, 0, 1]]), stride=np.array([[2, 1]])),
        relu("relu1", leak=0.1),
        norm("norm1", 4, 2, 1e-4, 0.75),
        pool("pool1", 3, stride=2, pad=np.array([[0, 1, 0, 1]])),
        conv("conv2", 3, 3, 2, 12, pad=1, dilate=2),  # 4 groups
        relu("relu2"),
        pool("pool2", np.array([[3, 2]]), method="avg", pad=np.array([[1, 1, 0, 1]])),
        norm("norm2", 5, 1, 2e-5, 0.75),
        {"name": "dropout2", "type": "dropout", "rate": 0.5},
        pool("pool3", np.array([[3, 3]]), stride=2, pad=np.array([[2, 0, 1, 2]])),
        conv("fc3", 3, 7, 12, 7),
        relu("relu3"),
        conv("fc4", 1, 1, 7, 3),
        {"name": "prob", "type": "softmax"},
    ]


def save(
    file: Path,
    layers: list[dict[str, Any]],
    layout: str = "later",
    *,
    mean: np.ndarray | None = MEAN,
    size: tuple[int, ...] = SIZE,
    compressed: bool = False,
    whole: bool = False,
    **more: Any,
) -> Path:
    normalization = {"imageSize": np.array([[*size, 3.0]]), "interpolation": "bicubic", **more}
    if mean is not None:
        normalization["averageImage"] = mean
    meta = {"normalization": normalization, "classes": {"name": cell(["n1", "n2", "n3"]), "description": cell(CLASSES)}}
    if layout == "2014":
        old = []
        for layer in layers:
            layer = dict(layer)
            if layer.get("type") == "lrn":
                layer["type"] = "normalize"
            if "weights" in layer:
                layer["filters"], layer["biases"] = layer.pop("weights")[0]
            old.append(dict(reversed(layer.items())))  # fields have names, not places
        contents = {"layers": cell(old), **meta}
    else:
        contents = {"meta": meta, "layers": cell(layers)}
    savemat(file, {"net": contents} if whole else contents, do_compression=compressed, oned_as="row")
    return file


# --- the same in numpy ---------------------------------------------------------------------------------------------


def padded(x: np.ndarray, pad: Any, value: float) -> np.ndarray:
    top, bottom, left, right = np.broadcast_to(pad, (1, 4))[0]
    return np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=value)


def windows(x: np.ndarray, size: Any, layer: dict[str, Any], value: float) -> np.ndarray:
    """(C, rows, columns, window rows, window columns)"""
    (sy, sx), (dy, dx) = (np.broadcast_to(layer.get(key, 1), (1, 2))[0] for key in ("stride", "dilate"))
    reach = ((size[0] - 1) * dy + 1, (size[1] - 1) * dx + 1)
    found = sliding_window_view(padded(x, layer["pad"], value), reach, axis=(1, 2))
    return found[:, ::sy, ::sx, ::dy, ::dx]


def computed(layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """One layer of one image, (C, H, W), in float64."""
    kind = layer["type"]
    if kind == "conv":
        filters, biases = (value.astype(np.float64) for value in layer["weights"][0])
        groups = len(x) // filters.shape[2]
        seen = np.split(windows(x, filters.shape[:2], layer, 0.0), groups)
        parts = zip(seen, np.split(filters, groups, axis=3), strict=True)
        y = [np.tensordot(f, w, axes=((0, 1, 2), (3, 4, 0))) for w, f in parts]
        return np.concatenate(y) + biases.reshape(-1, 1, 1)
    if kind == "relu":
        return np.where(x > 0, x, layer.get("leak", 0.0) * x)
    if kind == "pool":
        size = np.broadcast_to(layer["pool"], (1, 2))[0]
        if layer["method"] == "max":
            return windows(x, size, layer, -np.inf).max((3, 4))
        return np.nanmean(windows(x, size, layer, np.nan), (3, 4))
    if kind == "lrn":
        count, kappa, alpha, beta = layer["param"]
        below, above = int(np.floor((count - 1) / 2)), int(np.ceil((count - 1) / 2))
        y = np.empty_like(x)
        for c in range(len(x)):
            energy = sum(x[q] ** 2 for q in range(max(0, c - below), min(len(x), c + above + 1)))
            y[c] = x[c] * (kappa + alpha * energy) ** -beta
        return y
    assert kind == "softmax"
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def reference(layers: list[dict[str, Any]], image: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Every layer's output for an image (H, W, 3) in [0, 1]."""
    x = (255 * image.astype(np.float64) - mean).transpose(2, 0, 1)
    found = {}
    for layer in layers:
        if layer["type"] != "dropout":
            x = found[layer["name"]] = computed(layer, x)
    return found


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(size=(height, width, 3))


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1))[None]


def assert_every_layer(phi: Network, names: dict[str, np.ndarray], image: np.ndarray) -> None:
    with torch.no_grad():
        codes = phi.double()(tensor(image))
    for (name, expected), code in zip(names.items(), codes, strict=True):
        assert code.shape[1:] == expected.shape, name
        # The files are in float32, and so are the network's means.
        np.testing.assert_allclose(
            code[0].numpy(), expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_layer_of_a_file_is_numpys(tmp_path: Path, layout: str, compressed: bool) -> None:
    file = save(tmp_path / "net.mat", chain(), layout, compressed=compressed)
    image = picture(*SIZE)
    expected = reference(chain(), image, MEAN)
    assert expected["fc4"].shape == (3, 1, 1) and len(expected) == 13
    assert_every_layer(matconvnet_network(None, layer=list(expected), weights=file), expected, image)
    for name, code in expected.items():  # each alone, so that nothing past it is needed
        phi = matconvnet_network(None, layer=name, weights=str(file)).double()
        torch.testing.assert_close(phi(tensor(image))[0][0], torch.from_numpy(code), rtol=1e-6, atol=1e-6)
        assert not any(value.requires_grad for value in phi.parameters())


def named(model: str) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """The convolutional part of a network as MatConvNet's files have it, and a size to try it at."""
    corner = np.array([[0, 1, 0, 1]])  # which MatConvNet's importer gives to each of Caffe's poolings
    top = functools.partial(pool, side=3, stride=2)
    if model == "vgg_vd_16":
        layers, inputs = [], 3
        for block, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
            for index in range(1, count + 1):
                layers += [conv(f"conv{block}_{index}", 3, 3, inputs, outputs, pad=1), relu(f"relu{block}_{index}")]
                inputs = outputs
            layers.append(pool(f"pool{block}", 2, stride=2, pad=corner))
        return layers, (45, 38)
    if model == "vgg_m":
        layers = [conv("conv1", 7, 7, 3, 96, stride=2), relu("relu1"), norm("norm1", 5, 2, 1e-4, 0.75), top("pool1")]
        layers += [conv("conv2", 5, 5, 96, 256, stride=2, pad=1), relu("relu2"), norm("norm2", 5, 2, 1e-4, 0.75)]
        layers += [top("pool2", pad=corner)]
        for number, inputs in ((3, 256), (4, 512), (5, 512)):
            layers += [conv(f"conv{number}", 3, 3, inputs, 512, pad=1), relu(f"relu{number}")]
        return [*layers, top("pool5")], (129, 120)
    first = [norm("norm1", 5, 1, 2e-5, 0.75), top("pool1", pad=corner)]
    second = [norm("norm2", 5, 1, 2e-5, 0.75), top("pool2")]
    step = -1 if model == "caffenet" else 1
    layers = [conv("conv1", 11, 11, 3, 96, stride=4), relu("relu1"), *first[::step]]
    layers += [conv("conv2", 5, 5, 48, 256, pad=2), relu("relu2"), *second[::step]]
    layers += [conv("conv3", 3, 3, 256, 384, pad=np.array([[1, 1, 1, 1]])), relu("relu3")]
    layers += [conv("conv4", 3, 3, 192, 384, pad=1), relu("relu4"), conv("conv5", 3, 3, 192, 256, pad=1), relu("relu5")]
    return [*layers, top("pool5")], (227, 227) if model == "caffenet" else (131, 110)


NAMED = ("caffenet", "caffe_alexnet", "vgg_m", "vgg_vd_16")


@pytest.mark.parametrize(("model", "layout"), list(zip(NAMED, LAYOUTS * 2, strict=True)))
def test_every_layer_of_the_papers_networks_is_numpys(tmp_path: Path, model: str, layout: str) -> None:
    layers, size = named(model)
    published = matconvnet_network(model, layer="conv3_1" if "vd" in model else "conv3", weights="random").input_size
    image = picture(*size)
    if size == published.crop:
        mean = np.random.default_rng(0).uniform(100, 120, (*size, 3)).astype(np.float32)
    else:
        mean = np.array([[[123.5, 116.25, 103.75]]], np.float32)
    file = save(tmp_path / "net.mat", layers, layout, mean=mean, size=published.crop)
    expected = reference(layers, image, mean)
    phi = matconvnet_network(model, layer=list(expected), weights=file)
    assert_every_layer(phi, expected, image)
    assert phi.classifier is None  # the file ends before
    last = len(layers)
    assert matconvnet_network(model, layer=last, weights=file).paths == ["pool5"]
    with pytest.raises(InvrepError, match=r"net\.mat' lack fc6\.(weight|bias)"):
        matconvnet_network(model, layer=last + 1, weights=file)


# --- geometry ------------------------------------------------------------------------------------------------------

FCS = ["fc6", "relu6", "fc7", "relu7", "fc8"]
CONV345 = ["conv3", "relu3", "conv4", "relu4", "conv5", "relu5", "pool5"]
REF = ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2", *CONV345, *FCS]
ALEX = ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", *CONV345, *FCS]
VD = ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2"]
VD += [f"{kind}3_{index}" for index in (1, 2, 3) for kind in ("conv", "relu")] + ["pool3"]
VD += [f"{kind}4_{index}" for index in (1, 2, 3) for kind in ("conv", "relu")] + ["pool4"]
VD += [f"{kind}5_{index}" for index in (1, 2, 3) for kind in ("conv", "relu")] + ["pool5", *FCS]


def once_per(pairs: list[tuple[Any, int]]) -> list[Any]:
    return [value for value, count in pairs for _ in range(count)]


# Names, receptive fields, strides, sides and channels of paper.md §4.
GEOMETRY = {
    "caffenet": (
        REF,
        once_per([(11, 2), (19, 2), (51, 2), (67, 2), (99, 2), (131, 2), (163, 2), (195, 1), (355, 5)]),
        once_per([(4, 2), (8, 4), (16, 8), (32, 6)]),
        once_per([(55, 2), (27, 4), (13, 8), (6, 1), (1, 5)]),
        once_per([(96, 4), (256, 4), (384, 4), (256, 3), (4096, 4), (1000, 1)]),
    ),
    "caffe_alexnet": (
        ALEX,
        once_per([(11, 3), (19, 1), (51, 3), (67, 1), (99, 2), (131, 2), (163, 2), (195, 1), (355, 5)]),
        once_per([(4, 3), (8, 4), (16, 7), (32, 6)]),
        once_per([(55, 3), (27, 4), (13, 7), (6, 1), (1, 5)]),
        once_per([(96, 4), (256, 4), (384, 4), (256, 3), (4096, 4), (1000, 1)]),
    ),
    "vgg_m": (
        ALEX,
        once_per([(7, 3), (11, 1), (27, 3), (43, 1), (75, 2), (107, 2), (139, 2), (171, 1), (331, 5)]),
        once_per([(2, 3), (4, 1), (8, 3), (16, 7), (32, 6)]),
        once_per([(109, 3), (54, 1), (26, 3), (13, 7), (6, 1), (1, 5)]),
        once_per([(96, 4), (256, 4), (512, 7), (4096, 4), (1000, 1)]),
    ),
    "vgg_vd_16": (
        VD,
        once_per(
            [(3, 2), (5, 2), (6, 1), (10, 2), (14, 2), (16, 1), (24, 2), (32, 2), (40, 2), (44, 1), (60, 2), (76, 2)]
        )
        + once_per([(92, 2), (100, 1), (132, 2), (164, 2), (196, 2), (212, 1), (404, 5)]),
        once_per([(1, 4), (2, 5), (4, 7), (8, 7), (16, 7), (32, 6)]),
        once_per([(224, 4), (112, 5), (56, 7), (28, 7), (14, 7), (7, 1), (1, 5)]),
        once_per([(64, 5), (128, 5), (256, 7), (512, 14), (4096, 4), (1000, 1)]),
    ),
}


@pytest.mark.parametrize("model", NAMED)
def test_the_papers_tables(model: str) -> None:
    names, fields, strides, sides, channels = GEOMETRY[model]
    phi = matconvnet_network(model, layer="pool1", weights="random")
    assert [path for path, _ in phi.module.named_children()] == [*names, "prob"]
    layers = phi.published_trace.layers
    assert [layers[name].receptive_field for name in names] == fields
    assert [layers[name].stride for name in names] == strides
    assert [layers[name].shapes for name in names] == [((1, c, s, s),) for c, s in zip(channels, sides, strict=True)]
    assert (phi.receptive_field, phi.stride) == (fields[names.index("pool1")], strides[names.index("pool1")])
    side = {"caffenet": 227, "caffe_alexnet": 227}.get(model, 224)
    assert phi.input_size.crop == (side, side) and phi.input_size.resize == 256
    weights = sum(value.numel() for value in phi.state_dict().values())
    assert weights == (
        64 * 27 + 64 + 64 * 64 * 9 + 64 if "vd" in model else 96 * 3 * (7 if "m" in model else 11) ** 2 + 96
    )


def test_layer_numbers_and_short_names() -> None:
    assert matconvnet_network("caffenet", layer=15, weights="random").paths == ["pool5"]
    assert matconvnet_network("caffenet", layer=[1, "norm1", 4], weights="random").paths == ["conv1", "norm1", "norm1"]
    for number in (0, 21, 99):
        with pytest.raises(InvrepError, match=rf"caffenet has the layers 1 to 20, not {number}\."):
            matconvnet_network("caffenet", layer=number, weights="random")
    short = matconvnet_network("vgg_vd_16", layer=["conv2", "relu2", "relu1_1"], weights="random")
    assert short.paths == ["conv2_2", "relu2_2", "relu1_1"]
    with pytest.raises(InvrepError, match=r"caffenet needs a layer, for instance layer=conv1, "):
        matconvnet_network("caffenet", layer="???", weights="random")


# --- random weights ------------------------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    short = matconvnet_network("caffenet", layer="conv2", weights="random")
    long = matconvnet_network("caffenet", layer="conv4", weights="random")
    other = matconvnet_network("caffenet", layer="conv2", weights="random", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in short.module.state_dict().items():
        assert torch.equal(value, long.module.state_dict()[name]) and not value.is_meta
    assert list(short.module.state_dict()) == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    assert not torch.equal(short.module.conv2.weight, other.module.conv2.weight)
    assert short.module.conv2.weight.std().item() == pytest.approx((2 / (48 * 25)) ** 0.5, rel=0.02)
    assert short.weights_id == "random" and short.classifier is None and short.classes is None
    assert (short.mean.flatten() * 255).tolist() == pytest.approx([122.68, 116.67, 104.01])
    assert (1 / short.std.flatten()).tolist() == pytest.approx([255])
    images = torch.rand(2, 3, 67, 67)
    (code,) = short(images)
    assert torch.equal(pickle.loads(pickle.dumps(short))(images)[0], code)


def test_weights_in_torchs_files(tmp_path: Path) -> None:
    phi = matconvnet_network("caffenet", layer="norm1", weights="random")
    save_file(phi.module.state_dict(), tmp_path / "a.safetensors")
    torch.save(phi.module.state_dict(), tmp_path / "a.pth")
    images = torch.rand(1, 3, 67, 67)
    for file in ("a.safetensors", "a.pth"):
        same = matconvnet_network("caffenet", layer="norm1", weights=tmp_path / file)
        assert torch.equal(same(images)[0], phi(images)[0]) and len(same.weights_id) == 12
    with pytest.raises(InvrepError, match=r"lack conv2"):
        matconvnet_network("caffenet", layer="conv2", weights=tmp_path / "a.pth")


# --- what a file may look like -------------------------------------------------------------------------------------


def code_of(file: Path, layer: Any = "fc4", size: tuple[int, int] = SIZE) -> Tensor:
    return matconvnet_network(None, layer=layer, weights=file)(tensor(picture(*size)).float())[0]


def test_layouts_and_ways_of_saving_give_equal_codes(tmp_path: Path) -> None:
    plain = code_of(save(tmp_path / "a.mat", chain()))
    assert torch.equal(code_of(save(tmp_path / "b.mat", chain(), "2014")), plain)
    assert torch.equal(code_of(save(tmp_path / "c.mat", chain(), whole=True)), plain)  # save('c.mat', 'net')
    assert torch.equal(code_of(save(tmp_path / "d.mat", chain(), mean=MEAN.astype(np.float64))), plain)
    nested = chain()
    nested[3]["pool"], nested[0]["type"] = cell([3]), cell(["conv"])  # {3} and {'conv'}
    assert torch.equal(code_of(save(tmp_path / "e.mat", nested)), plain)
    four = chain()
    four[4]["pad"] = np.array([[1, 1, 1, 1]])
    four[3]["stride"] = np.array([[2, 2]])
    assert torch.equal(code_of(save(tmp_path / "f.mat", four)), plain)
    four[4]["pad"] = np.array([[1, 1]])
    assert torch.equal(code_of(save(tmp_path / "g.mat", four)), plain)


def test_the_mean_image(tmp_path: Path) -> None:
    three = np.array([120.5, 110.25, 100.75], np.float32)
    files = [
        save(tmp_path / f"{number}.mat", chain(), mean=mean)
        for number, mean in enumerate(
            [three, three[:, None], three[None, None], np.broadcast_to(three, (*SIZE, 3)).copy()]
        )
    ]
    codes = [code_of(file) for file in files]
    assert all(torch.equal(code, codes[0]) for code in codes[1:])
    image = picture(*SIZE)
    np.testing.assert_allclose(
        codes[0][0].numpy(), reference(chain(), image.astype(np.float32), three)["fc4"], rtol=1e-3, atol=1e-3
    )
    phi = matconvnet_network(None, layer="conv1", weights=files[-1])
    assert phi.mean.shape == (3, *SIZE) and torch.equal(phi.mean[:, 0, 0] * 255, torch.from_numpy(three))
    assert code_of(files[0], "conv1", (40, 40)).shape == (1, 8, 20, 39)  # numbers fit any size
    with pytest.raises(InvrepError, match=r"33×29"):
        code_of(files[-1], "conv1", (40, 40))


def test_singletons_that_matlab_drops(tmp_path: Path) -> None:
    layers = [conv("conv1", 3, 2, 3, 4), conv("one", 2, 3, 4, 1), conv("two", 2, 2, 1, 1), conv("last", 1, 1, 1, 5)]
    full = code_of(save(tmp_path / "a.mat", layers), "last")
    for layer, shape in ((layers[1], (2, 3, 4)), (layers[2], (2, 2)), (layers[3], (1, 5))):
        filters, biases = layer["weights"][0]
        layer["weights"] = cell([filters.reshape(shape), biases.reshape(-1)])
        assert torch.equal(code_of(save(tmp_path / "b.mat", layers), "last"), full)
    layers[3]["weights"] = cell([layers[3]["weights"][0, 0], np.zeros((0, 0))])  # biases [] are none
    assert not torch.equal(code_of(save(tmp_path / "b.mat", layers), "last"), full)


@pytest.mark.parametrize(
    ("more", "resize"),
    [
        ({"border": np.array([[29, 29]]), "keepAspect": True}, 62),
        ({"border": np.array([[29, 27]]), "keepAspect": False}, (62, 56)),
        ({"border": 3}, 36),
        ({"cropSize": 0.5, "keepAspect": False}, (66, 58)),
        ({}, SIZE),
    ],
)
def test_the_input_size(tmp_path: Path, more: dict[str, Any], resize: int | tuple[int, int]) -> None:
    phi = matconvnet_network(None, layer="conv1", weights=save(tmp_path / "a.mat", chain(), **more))
    assert phi.input_size.crop == SIZE and phi.input_size.resize == resize
    assert phi.input_size.interpolation == "bicubic"


def test_names_numbers_and_losses(tmp_path: Path) -> None:
    layers = chain()
    layers[1]["name"] = "relu.1"
    del layers[2]["name"]
    layers[5]["name"] = "relu.1"
    layers[6]["name"] = "forward"
    layers[-1] = {"name": "loss", "type": "softmaxloss"}
    file = save(tmp_path / "a.mat", layers)
    phi = matconvnet_network(None, layer=12, weights=file)
    assert list(phi.numbers[:7]) == ["conv1", "relu_1", "layer3", "pool1", "conv2", "layer6", "layer7"]
    assert phi.numbers[-1] == "fc4" and phi.paths == ["fc4"]


def test_the_classifier(tmp_path: Path) -> None:
    file = save(tmp_path / "a.mat", chain(), "2014")
    phi = matconvnet_network(None, layer="conv1", weights=file)
    assert phi.classes == CLASSES
    assert torch.equal(phi.classifier()(tensor(picture(*SIZE)).float())[0], code_of(file, "fc4"))
    assert len(phi.weights_id) == 12 and phi.weights_id == phi.classifier().weights_id
    assert matconvnet_network(None, layer="conv1", weights=save(file, chain()[:4])).classifier is None


# --- what it may not look like -------------------------------------------------------------------------------------


def change(layers: list[dict[str, Any]], index: int, **fields: Any) -> list[dict[str, Any]]:
    layers[index] = {name: value for name, value in (layers[index] | fields).items() if value is not None}
    return layers


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("index", "fields", "message"),
    [
        (0, {"weights": cell([np.zeros((0, 0)), np.zeros((0, 0))])}, "conv1 has no weights"),
        (0, {"weights": None}, "conv1 has no weights"),
        (0, {"weights": cell(["text", "text"])}, "filters of its layer conv1 are no numbers"),
        (0, {"weights": cell([np.zeros((5, 3, 3, 8)), np.zeros(7)])}, "conv1 has filters of 5×3×3×8 and 7 biases"),
        (0, {"weights": cell([np.zeros((2, 2, 3, 2, 2)), np.zeros(2)])}, "5 dimensions"),
        (4, {"weights": cell([np.zeros((3, 3, 5, 12)), np.zeros(12)])}, "conv2 has filters .* of 8 channels"),
        (4, {"weights": cell([np.zeros((3, 3, 2, 10)), np.zeros(10)])}, "conv2 has filters .* of 8 channels"),
        (10, {"weights": cell([np.zeros((9, 9, 12, 7)), np.zeros(7)])}, "nothing of the image is left after fc3"),
        (4, {"pad": np.array([[1, 1, 1]])}, "pad of its conv2 is not 1 or 2 or 4 numbers"),
        (4, {"pad": -1}, "pad of its conv2"),
        (4, {"stride": 0}, "stride of its conv2"),
        (4, {"stride": 1.5}, "whole numbers"),
        (3, {"pool": None}, "pool1 has no pool"),
        (3, {"pool": "wide"}, "pool of its pool1 is not"),
        (3, {"pad": 3}, "no smaller than its window"),
        (3, {"method": "sum"}, "pools by 'sum'"),
        (2, {"param": None}, "norm1 has no param"),
        (2, {"param": np.array([5, 1, 1])}, "not 4 numbers"),
        (1, {"type": "bnorm"}, "relu1 is of the type 'bnorm'"),
        (1, {"type": None}, "relu1 is of the type ''"),
    ],
)
def test_a_layer_that_cannot_be(tmp_path: Path, layout: str, index: int, fields: dict[str, Any], message: str) -> None:
    if layout == "2014" and "weights" in fields and fields["weights"] is not None:
        fields = fields | {"weights": cell(list(fields["weights"][0]))}
    layers = change(chain(), index, **fields)
    with pytest.raises(InvrepError, match=rf"net\.mat' is not used: .*{message}.*; expected a \.mat file"):
        matconvnet_network(None, layer="conv1", weights=save(tmp_path / "net.mat", layers, layout))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": None}, "no averageImage"),
        ({"mean": np.zeros((32, 29, 3))}, "averageImage is of 32×29×3, neither 33×29×3 nor 3 numbers"),
        ({"mean": np.zeros(SIZE)}, "averageImage is of 33×29"),
        ({"mean": "grey"}, "averageImage are no numbers"),
        ({"size": (33,)}, None),
        ({"size": (33, 29, 3, 1, 1)}, "imageSize"),
        ({"size": (0, 29)}, "imageSize"),
        ({"border": np.array([[1, 2, 3]])}, "border"),
    ],
)
def test_a_normalization_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str | None) -> None:
    with pytest.raises(InvrepError, match=message or "is not used"):
        matconvnet_network(None, layer="conv1", weights=save(tmp_path / "a.mat", chain(), **options))


@pytest.mark.parametrize(
    ("index", "fields", "message"),
    [
        (
            0,
            {"stride": 2},
            r"its layer conv1 is convolution 11×11×3×96, stride 2 2.*, not convolution .*stride 4 4",
        ),
        (2, {"pool": 2}, r"its layer pool1 is max pooling 2×2"),
        (2, {"method": "avg"}, r"its layer pool1 is average pooling 3×3, .* not max pooling"),
        (3, {"param": np.array([5, 1, 1e-4, 0.75])}, r"its layer norm1 is .*0\.0001.* not .*2e-05"),
        (3, {"type": "relu"}, r"its layer norm1 is relu"),
        (1, {"leak": 0.2}, r"its layer relu1 is relu with the parameters 0\.2"),
        (4, {"pad": np.array([[1, 3, 2, 2]])}, r"its layer conv2 .*pad 1 3 2 2"),
        (4, {"pad": np.array([[2, 3, 2, 2]])}, r"its layer conv2 .*pad 2 3 2 2"),
    ],
)
def test_another_network_than_the_one_named(tmp_path: Path, index: int, fields: dict[str, Any], message: str) -> None:
    layers = change(named("caffenet")[0][:5], index, **fields)
    mean = np.array([120, 110, 100.0])
    file = save(tmp_path / "net.mat", layers, size=(227, 227), mean=mean)
    with pytest.raises(InvrepError, match=message + r".*; expected imagenet-caffe-ref\.mat of "):
        matconvnet_network("caffenet", layer="conv1", weights=file)


def test_the_networks_are_told_apart(tmp_path: Path) -> None:
    for held, asked in itertools.permutations(NAMED, 2):
        file = save(tmp_path / f"{held}.mat", named(held)[0][:4], size=(227, 227), mean=np.array([120, 110, 100.0]))
        with pytest.raises(InvrepError, match=rf"{held}\.mat' is not used: its layer \w+ is "):
            matconvnet_network(asked, layer=1, weights=file)


def test_files_of_another_kind(tmp_path: Path) -> None:
    def message(contents: bytes | dict[str, Any] | None) -> str:
        file = tmp_path / "file.mat"
        if isinstance(contents, dict):
            savemat(file, contents)
        elif contents is not None:
            file.write_bytes(contents)
        with pytest.raises(InvrepError) as caught:
            matconvnet_network("caffenet", layer="conv1", weights=file)
        text = str(caught.value)
        assert "file.mat'" in text and "imagenet-caffe-ref.mat" in text and "\n" not in text
        return text

    assert "There is no weights file" in message(None)
    for text in (b"", b"PK\3\4", b"<html>404 Not Found</html>" * 20, b"\x80\x04\x95" * 100, bytes(500)):
        assert "it is no MATLAB" in message(text)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    assert "7.3" in message(header + bytes(384) + b"\x89HDF\r\n\x1a\n") and "-v7" in message(header + bytes(384))
    assert "no layers" in message({"x": 1.0})
    assert "no layers" in message({"layers": np.zeros((0, 0))})
    assert "type ''" in message({"layers": "text"})
    dag = {"name": "conv1", "type": "dagnn.Conv", "inputs": cell(["data"]), "block": {"size": np.zeros(4)}}
    assert "DagNN" in message({"layers": cell([dag]), "params": {"value": 1.0}, "vars": {"name": "x"}})
    assert "DagNN" in message({"net": {"layers": cell([dag]), "params": {"value": 1.0}, "vars": {"name": "x"}}})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_file(tmp_path: Path, layout: str) -> None:
    draws = np.random.default_rng(0)
    file = tmp_path / "damaged.mat"

    def refused(contents: bytes) -> None:
        file.write_bytes(contents)
        with pytest.raises(InvrepError, match=r"damaged\.mat' is not used: it is (damaged|no MATLAB)"):
            matconvnet_network(None, layer="conv1", weights=file)

    for compressed in (False, True):
        good = save(tmp_path / "good.mat", chain(), layout, compressed=compressed).read_bytes()
        for length in [0, 4, 100, 127, 130, 200, *draws.integers(200, len(good), 20), len(good) - 1]:
            refused(good[:length])
        refused(good[: len(good) // 2] + bytes(len(good) - len(good) // 2))
    for _ in range(40):  # MATLAB compresses unless told otherwise
        bad = bytearray(good)
        bad[draws.integers(128, len(bad))] ^= int(draws.integers(1, 256))
        refused(bytes(bad))


# --- asking --------------------------------------------------------------------------------------------------------


def test_the_list_of_layers_needs_no_weights(tmp_path: Path) -> None:
    whole = matconvnet_network("vgg_vd_16", layer="list")
    assert whole.paths == [""] and whole.numbers == tuple(VD) and whole.trace(224, 224).error is None
    whole = matconvnet_network(None, layer="?", weights=save(tmp_path / "a.mat", chain()))
    assert whole.paths == [""] and whole.numbers[-1] == "fc4"


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvrepError, match=r"imagenet-vgg-m\.mat of www\.vlfeat\.org/matconvnet.*rep\.weights=random"):
        matconvnet_network("vgg_m", layer="conv1")
    for weights in ("default", "random"):
        with pytest.raises(InvrepError, match=rf"rep=matconvnet cannot have weights={weights}; give rep\.weights=PATH"):
            matconvnet_network(None, layer="conv1", weights=weights)
    with pytest.raises(InvrepError, match=r"no MatConvNet network 'vgg_n'; the nearest .*vgg_m"):
        matconvnet_network("vgg_n", layer="conv1", weights="random")
    with pytest.raises(InvrepError, match=r"has no layer 'relu8'"):  # before the file, which is not there
        matconvnet_network("caffenet", layer="relu8", weights=tmp_path / "none.mat")
    with pytest.raises(InvrepError, match=r"matconvnet has no layer 'relu8'"):
        matconvnet_network(None, layer="relu8", weights=save(tmp_path / "a.mat", chain()))
    with pytest.raises(InvrepError, match=r"needs a layer"):
        matconvnet_network(None, layer=None, weights=save(tmp_path / "a.mat", chain()))


@pytest.mark.parametrize("name", [*NAMED, "matconvnet"])
def test_the_configuration(tmp_path: Path, name: str) -> None:
    config = OmegaConf.load(ROOT / "conf" / "rep" / f"{name}.yaml")
    assert config.weights == "default" and config.model == (None if name == "matconvnet" else name)
    root = OmegaConf.create({"layer": 2, "seed": 0, "rep": config})
    root.rep.weights = str(save(tmp_path / "a.mat", chain())) if name == "matconvnet" else "random"
    phi = instantiate(root.rep)
    assert phi.paths == ["relu1_1" if name == "vgg_vd_16" else "relu1"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_the_gpu(tmp_path: Path) -> None:
    phi = matconvnet_network(None, layer="fc4", weights=save(tmp_path / "a.mat", chain())).double()
    image = tensor(picture(*SIZE))
    torch.testing.assert_close(phi(image)[0], phi.cuda()(image.cuda())[0].cpu())
