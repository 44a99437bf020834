"""Compute LPIPS without a download: torchmetrics' heads on the AlexNet of a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import AlexNet_Weights

from invrep.errors import InvrepError
from invrep.representations.zoo.weights import read_weights

LEAST = 31  # pixels; AlexNet has no relu5 below


class Lpips:
    """Compute LPIPS (AlexNet) of images and a photo.

    Args:
        weights: file of torchvision's AlexNet, of which the convolutions are used.

    Raises:
        InvrepError: the file is missing, or lacks the convolutions.
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        with torch.random.fork_rng():  # torchmetrics draws initial weights
            self._measure = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
        given = {name: tensor for name, tensor in read_weights(weights).items() if name.startswith("features.")}
        ours = self._measure.net.state_dict()
        pairs = dict(zip(_ordered(ours), _ordered(given), strict=False))
        fits = [name for name, other in pairs.items() if given[other].shape == ours[name].shape]
        if len(fits) < len(ours):
            raise InvrepError(f"LPIPS needs the convolutions of torchvision's AlexNet, which {str(weights)!r} lacks.")
        self._measure.net.load_state_dict({name: given[other] for name, other in pairs.items()})

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch channel row column"], photo: Float[Tensor, "channel row column"]
    ) -> Float[Tensor, " batch"]:
        """Return LPIPS of each image, clipped to [0, 1], (B,) float64; NaN below 31 pixels."""
        if min(photo.shape[-2:]) < LEAST:
            return torch.full((len(images),), torch.nan, dtype=torch.float64)
        own, *others = (_scaled(image) for image in (photo, *images))
        return torch.cat([self._measure(other, own).flatten() for other in others]).double()


def _scaled(image: Tensor) -> Tensor:
    return image[None].float().cpu().clamp(0, 1).expand(-1, 3, -1, -1) * 2 - 1


def _ordered(names: dict[str, Tensor]) -> list[str]:
    """Return names such as ``features.10.bias`` in the order of the layers."""
    return sorted(names, key=lambda name: (int(name.split(".")[1]), name))


def backbone(*files: str | os.PathLike[str] | None) -> Path | None:
    """Return the file of LPIPS' AlexNet: the first one that is given, else torch hub's; None without any."""
    given = next((Path(file) for file in files if file is not None), None)
    if given is not None:
        return given
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name
    return cached if cached.is_file() else None
