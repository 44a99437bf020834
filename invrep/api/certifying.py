"""Certify pre-images of tensors: does Φ take them for their photos, by how much, and does anything else?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.api.inverted import Inverted
from invrep.api.parts import part
from invrep.data.given_images import as_images
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.evaluation.certificate.certifier import Certifier
from invrep.evaluation.certificate.columns import heading, worded
from invrep.evaluation.certificate.null import FEW, NullPhotos
from invrep.evaluation.certificate.other_networks import at_hand
from invrep.evaluation.certificate.perceptual import Lpips, backbone
from invrep.evaluation.certificate.sentences import sentences
from invrep.evaluation.intervals import bootstrap_interval
from invrep.inversion.compute import exact
from invrep.objectives.base import Objective
from invrep.objectives.match import Match
from invrep.representations.base import Representation
from invrep.representations.zoo.user_function import as_representation


@dataclass(frozen=True, eq=False, repr=False)
class Certificates:
    """Hold the certificates of n images with R pre-images each.

    Attributes:
        columns: values by name, (n, R) float64 each; NaN where one has no value. docs/certificate.md defines them.
        names: names of the images, n texts.
    """

    columns: dict[str, Float[Tensor, "image restart"]]
    names: list[str]

    def sentences(self, image: int = 0, restart: int = 0) -> list[str]:
        """Return what the certificate of a pre-image means, in a few sentences.

        Args:
            image: index of the image.
            restart: number of the restart.
        """
        return sentences({name: float(values[image, restart]) for name, values in self.columns.items()})

    def interval(self, name: str) -> tuple[float, tuple[float, float] | None]:
        """Return the mean of a column over images, restarts averaged first, and its 95 % bootstrap interval.

        Args:
            name: name of the column; images without a finite value are left out.
        """
        values = self.columns[name].nanmean(1)
        values = values[values.isfinite()]
        return float(values.mean()), bootstrap_interval(values.tolist())

    def __repr__(self) -> str:
        """Return the numbers of images and restarts, and the mean of each column."""
        images, restarts = next(iter(self.columns.values())).shape
        means = {name: self.interval(name)[0] for name in self.columns if "/" not in name}
        told = [f"  {heading(name)}: {worded(name, mean)}" for name, mean in means.items() if mean == mean]
        return "\n".join([f"Certificates of {images} × {restarts} pre-images, means:", *told])


@exact()
@torch.no_grad()
def certify(
    found: Inverted,
    phi: nn.Module | Callable[[Tensor], Any],
    *,
    null: Any = None,
    networks: Sequence[str] | Mapping[str, str | os.PathLike[str] | None] = (),
    lpips: str | os.PathLike[str] | None = None,
    objective: str | Mapping[str, Any] | Callable[..., Objective] = "match",
    denoised: bool = True,
) -> Certificates:
    """Certify pre-images: whether Φ takes them for their photos, by how much, and whether anything else does.

    Args:
        found: result of :func:`invert` for images.
        phi: representation that was inverted.
        null: other photos: images as for :func:`invert`, or the path of a folder, pattern or list. None: the other
            images of ``found``.
        networks: names of torchvision's networks that took no part, whose weights are in torch hub's cache; or name →
            file of weights. Nothing is downloaded: a network without weights is named in a warning and left out.
        lpips: file with the convolutions of torchvision's AlexNet; None: that of ``networks``, or torch hub's cache.
        objective: objective of :func:`invert`, if it matched a region or channels only.
        denoised: whether a denoiser took part in the descent, as in the default prior for networks; ``naturalness`` is
            then left out.

    Returns:
        Columns and sentences, see :class:`Certificates`.

    Raises:
        InvrepError: ``found`` has no photos, the objective does not match a photo's code, an image has other than one
            or three channels, or a network, file or folder does not exist.

    Example:
        >>> found = invrep.invert(images, phi, restarts=5)
        >>> certificates = invrep.certify(found, phi, null="photos/", networks=["resnet18"])
        >>> certificates.columns["jpeg_equivalent"].shape, certificates.sentences(0, 0)
    """
    if found.photos is None:
        raise InvrepError("found has no photos, which a certificate compares with; invert images instead of a shape.")
    if (channels := found.photos.shape[1]) not in (1, 3):
        raise InvrepError(f"found has images of {channels} channels; a certificate needs grey or RGB ones.")
    made = part("objective", objective, {})
    phi = as_representation(phi, channels).private(dtype=found.photos.dtype)
    others, absent = at_hand(networks, phi)
    for name, why in absent.items():
        warnings.warn(f"certify leaves out {name}, {why}.", stacklevel=4)
    given = networks.get("alexnet") if isinstance(networks, Mapping) else None
    trunk = backbone(lpips, given, phi.weights_file if getattr(phi, "name", None) == "alexnet" else None)
    certifier = Certifier(
        phi,
        partial(_objective, made, phi),
        _null(null, found.photos),
        others,
        None if trunk is None else Lpips(trunk),
        denoised,
    )
    if len(certifier.null.readers) < FEW + (null is None):
        warnings.warn(f"A percentile of fewer than {FEW} other photos means little; give null=FOLDER.", stacklevel=4)
    pairs = zip(found.reconstructions, found.photos, strict=True)
    rows = [certifier(images, photo) for images, photo in pairs]
    return Certificates({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, found.names)


def _objective(make: Any, phi: Representation, code: list[Tensor], shape: tuple[int, int, int]) -> Match:
    made = make(code, phi=phi, shape=shape)
    if not isinstance(made, Match) or not made.needs_photo:
        raise InvrepError("A certificate compares with a photo's code; give objective='match', or a partial of Match.")
    return made


def _null(given: Any, photos: Tensor) -> NullPhotos:
    """Return the null photos: the images that were given, those of a path, or the inverted ones.

    Raises:
        InvrepError: there are no such photos, or they are no images.
    """
    color = "gray" if photos.shape[1] == 1 else "rgb"
    if isinstance(given, str | os.PathLike):
        try:
            files = find(os.fspath(given))
        except InvrepError as error:
            raise InvrepError(str(error).replace("data.path", "null")) from None
        return NullPhotos([partial(_read, files[place], color) for place in range(len(files))])
    images = photos if given is None else as_images(given, color)
    if images.shape[1] != photos.shape[1]:
        raise InvrepError(f"null has {images.shape[1]} channels, but the images of found have {photos.shape[1]}.")
    return NullPhotos([partial(torch.Tensor.to, image, photos.dtype) for image in images])


def _read(photo: Any, color: str) -> Tensor | None:
    try:
        with photo.open() as file:
            return read(file, color=color, name=photo.name)
    except InvrepError:
        return None
