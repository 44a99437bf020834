"""List the layers of the published networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from invrep.representations.geometry import InputSize
from invrep.representations.zoo.matfile import Layer

MEAN = (122.68, 116.67, 104.01)  # mean of ILSVRC12's training images, RGB, 0 … 255; from Caffe's distribution

_227, _224 = InputSize(crop=(227, 227), resize=256), InputSize(crop=(224, 224), resize=256)


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


PUBLISHED = {
    "caffenet": _Published("imagenet-caffe-ref.mat", _227, tuple(_caffe(pool_first=True))),
    "caffe_alexnet": _Published("imagenet-caffe-alex.mat", _227, tuple(_caffe(pool_first=False))),
    "vgg_m": _Published("imagenet-vgg-m.mat", _224, tuple(_vgg_m())),
    "vgg_vd_16": _Published("imagenet-vgg-verydeep-16.mat", _224, tuple(_vgg_vd_16())),
}
