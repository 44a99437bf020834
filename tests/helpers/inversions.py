"""Small photos, and representations that are quickly inverted."""

import torch
from torch import nn

from invrep.data.photo_reading import bundled, read
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.representations.network import Network
from invrep.representations.surrogate import Surrogate


def papers_prior() -> Prior:
    """Return the CVPR energy with σ by the image's size: total variation and the α-norm alone."""
    config = preset("prior", "cvpr15")
    config.sigma = "auto"
    prior: Prior = build(config)
    return prior


def photographs(size: tuple[int, int], color: str) -> torch.Tensor:
    """Return three photos' parts of an odd size."""
    return torch.stack(
        [
            read(bundled(name), color=color)[:, 20 : 20 + size[0], 30 : 30 + size[1]]
            for name in ("chelsea", "coffee", "rocket")
        ]
    )


def small_network() -> Network:
    """Return a small convolutional network with random weights that see structure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    return Network(layers, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Fragile(Representation):
    """Returns NaN for an image that has become bright, and from then on until it is dark again."""

    schedule = ()

    def encode(self, images: torch.Tensor, surrogate: Surrogate | None) -> list[torch.Tensor]:
        bright = images.mean((1, 2, 3), keepdim=True) > 0.55
        return [images * torch.where(bright, float("nan"), 1.0)]


def flat(*values: float) -> torch.Tensor:
    return torch.stack([torch.full((3, 8, 8), value) for value in values])
