"""Compare a pre-image's top-1 class with the photo's."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.network import Network

COLUMNS = ("class", "class_kept", "class_probability", "photo_probability")


class Classifier:
    """Score photos and pre-images by the whole network of Φ; the first call makes it.

    There is no classifier for a representation that was not trained on classes. There is none for weights that end
    before the class scores.

    Args:
        phi: representation.
    """

    def __init__(self, phi: Representation) -> None:
        self._make = phi.classifier if isinstance(phi, Network) else None
        self._network: Network | None = None
        self.classes = phi.classes if isinstance(phi, Network) else None
        self._whole = phi.skeleton if isinstance(phi, Network) else None

    @property
    def nbytes(self) -> int:
        """Return about how many bytes the whole network will take."""
        if self._make is None or self._network is not None or self._whole is None:
            return 0
        weights = getattr(self._make, "keywords", {}).get("weights")
        held = sum(tensor.nbytes for tensor in self._whole.state_dict().values())
        reaches = weights is None or not os.path.isfile(weights) or os.path.getsize(weights) > 0.9 * held
        return held if reaches else 0  # a smaller file holds the first layers only

    @torch.no_grad()
    def __call__(self, photos: Tensor, images: Tensor) -> list[dict[str, Any]]:
        """Return the values of :data:`COLUMNS` for each pre-image; an empty list without a classifier.

        ``class`` is the photo's top-1 class. ``photo_probability`` and ``class_probability`` are its probabilities on
        the photo and on the pre-image, in [0, 1]. ``class_kept`` is 1 where the pre-image has the same top-1 class,
        else 0.

        Args:
            photos: photos, (B, C, H, W) in [0, 1], on the CPU.
            images: pre-images of the same shape and precision.
        """
        of_photos, of_images = self._scores(photos), self._scores(images)
        if of_photos is None or of_images is None:
            return []
        before, after = of_photos.double().softmax(1), of_images.double().softmax(1)
        names = before.argmax(1).tolist()
        return [
            {
                "class": str(name) if self.classes is None else self.classes[name],
                "class_kept": int(after[k].argmax() == name),
                "class_probability": float(after[k, name]),
                "photo_probability": float(before[k, name]),
            }
            for k, name in enumerate(names)
        ]

    def _scores(self, images: Tensor) -> Tensor | None:
        if self._make is None:
            return None
        try:
            if self._network is None:
                self._network = self._make().private()
            network = self._network.private(images.device, images.dtype)
            return torch.cat([network(image[None])[0].flatten(1) for image in images])
        except InvrepError:
            self._make = self._network = None
            return None
