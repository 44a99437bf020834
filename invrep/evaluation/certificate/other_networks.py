"""Ask networks that took no part: do they take a pre-image for its photo?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from invrep.errors import InvrepError, nearest
from invrep.evaluation.certificate.codes import Code, in_passes
from invrep.evaluation.certificate.null import Compared, Null, NullPhotos, fitted
from invrep.objectives.match import Match
from invrep.representations.base import Representation
from invrep.representations.network import Network
from invrep.representations.zoo.torchvision_models import torchvision_network
from invrep.representations.zoo.weights import existing, published_weights

POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
POOLED = ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "mean")  # functions that some networks call themselves


class OtherNetwork:
    """Compare images with a photo at a network's last pooled layer and by its top-1 class.

    Images are clipped to [0, 1] and scaled to the network's published input size.

    Args:
        name: name of one of torchvision's networks for classification.
        weights: file of its weights; a file that ends before the class scores leaves the class out. None: torch hub's
            cache.

    Raises:
        InvrepError: torchvision has no such network, or the file does not fit.
    """

    def __init__(self, name: str, weights: str | None = None) -> None:
        self.name = name
        self.layer = _last_pooled(torchvision_network(name, layer="list"))
        source = weights or "default"
        self._scores = True
        try:
            network = torchvision_network(name, layer=[self.layer, "output"], weights=source)
        except InvrepError:
            network, self._scores = torchvision_network(name, layer=self.layer, weights=source), False
        self.network, self.id = network.private(), f"{name}-{network.weights_id}"
        self._nulls: dict[tuple[int, int], Null] = {}

    @torch.no_grad()
    def __call__(
        self,
        images: Float[Tensor, "batch channel row column"],
        photo: Float[Tensor, "channel row column"],
        photos: NullPhotos,
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return ``other_percentile/NAME`` and ``other_class_kept/NAME``, 1 or 0, (B,) float64 each.

        Args:
            images: images in [0, 1].
            photo: photo of their size.
            photos: null photos.
        """
        size = (photo.shape[-2], photo.shape[-1])
        if size not in self._nulls:
            self._nulls = {size: Null(photos, self._pooled, size)}
        own, code = self._codes(photo[None]), self._codes(images)
        objective = Match(own[:1])
        compared: Compared = self._nulls[size].compare(objective, photo)
        errors = objective.value(code[:1]).double().cpu()
        found = {f"other_percentile/{self.name}": compared.percentile(errors)}
        if self._scores:
            kept = code[1].argmax(1) == own[1].argmax(1)
            found[f"other_class_kept/{self.name}"] = kept.double().cpu()
        return found

    def _pooled(self, images: Tensor) -> Code:
        return self._codes(images)[:1]

    def _codes(self, images: Tensor) -> Code:
        """Return the pooled code of images, and the class scores where there are any."""
        size = self.network.published_size
        colour = images.float().clamp(0, 1).expand(-1, 3, -1, -1)
        return in_passes(self.network, torch.stack([fitted(image, size) for image in colour]), self.network)


def at_hand(
    wanted: Sequence[str] | Mapping[str, str | os.PathLike[str] | None], phi: Representation
) -> tuple[list[OtherNetwork], dict[str, str]]:
    """Return the networks whose weights are there, and why each other one is left out, by name.

    Nothing is downloaded.

    Args:
        wanted: names of torchvision's networks; or name → file of weights, None for torch hub's cache.
        phi: inverted representation; its own network took part, unless its weights are random.

    Raises:
        InvrepError: torchvision has no such network for classification, or a file is missing or does not fit.
    """
    found, absent = [], {}
    for name, file in sources(wanted).items():
        if isinstance(phi, Network) and phi.name == name and phi.weights_id != "random":
            absent[name] = "the inverted network itself"
        elif file is None and not is_cached(name):
            absent[name] = "whose weights are not in torch hub's cache; give a file: 'certificate.networks={NAME:FILE}'"
        else:
            found.append(OtherNetwork(name, file))
    return found, absent


def sources(wanted: Sequence[str] | Mapping[str, str | os.PathLike[str] | None]) -> dict[str, str | None]:
    """Return the file of each network's weights by the network's name; None for torch hub's cache.

    Raises:
        InvrepError: torchvision has no such network for classification, or a file does not exist.
    """
    if not isinstance(wanted, Mapping):
        if isinstance(wanted, str) or not all(isinstance(name, str) for name in wanted):
            raise InvrepError(
                f"certificate.networks={wanted} is not valid: expected names as [resnet18,alexnet], or files as "
                "{resnet18:FILE}."
            )
        wanted = dict.fromkeys(wanted)
    known = models.list_models(module=models)
    for name in wanted:
        if name not in known:
            raise InvrepError(f"certificate.networks names {name}, which torchvision lacks; {nearest(name, known)}.")
    return {name: None if file is None else str(existing(file)) for name, file in wanted.items()}


def is_cached(name: str) -> bool:
    """Return whether torch hub's cache has the default weights of one of torchvision's networks."""
    entry = published_weights(name)
    return entry is not None and (Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name).is_file()


def _last_pooled(network: Network) -> str:
    """Return the path of a network's last pooling; of a network without any, that of its last normalisation."""
    layers = network.published_trace.layers
    modules = {path: module for path, module in network.module.named_modules() if path in layers}
    pooled = [path for path, module in modules.items() if isinstance(module, POOLINGS)]
    pooled += [path for path in layers if path not in modules and path.rstrip("_0123456789") in POOLED]
    normalised = [path for path, module in modules.items() if isinstance(module, nn.LayerNorm)]
    if found := pooled or normalised:
        return str(max(found, key=lambda path: layers[path].end))
    raise InvrepError(f"{network.name} has neither pooling nor normalisation; leave it out of certificate.networks.")
