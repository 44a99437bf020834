"""Compute all columns of the certificates of one photo's pre-images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.evaluation.certificate.codes import Code, entries, in_passes, pearson_squared, ranked, spearman
from invrep.evaluation.certificate.columns import OF_PARTS, ordered
from invrep.evaluation.certificate.equivalents import scales
from invrep.evaluation.certificate.held_out import HeldOut
from invrep.evaluation.certificate.naturalness import Residual, gradient_distance, gradients, usual_gradients
from invrep.evaluation.certificate.null import Compared, Null, NullPhotos
from invrep.evaluation.certificate.other_networks import OtherNetwork
from invrep.evaluation.certificate.perceptual import Lpips
from invrep.evaluation.metrics import psnr, ssim
from invrep.objectives.match import Match
from invrep.representations.base import Representation
from invrep.representations.network import Network

VERSION = 1  # of the columns' definitions; increase it when equal settings no longer give equal values


@dataclass
class Certifier:
    """Certify pre-images of photos.

    Photos of one size are best certified one after another: the codes of the null photos are kept for one size.

    Attributes:
        phi: representation Φ, private to the caller.
        objective: function from the code of one photo, a list of (1, …), and the photo's shape to the objective of the
            descent, which knows region, channels and the weights of parts.
        null: other photos.
        networks: networks that took no part.
        lpips: measure of LPIPS; None leaves its column out.
        denoised: whether a denoiser took part in the descent, which leaves ``naturalness`` out.
    """

    phi: Representation
    objective: Callable[[Code, tuple[int, int, int]], Match]
    null: NullPhotos
    networks: Sequence[OtherNetwork] = ()
    lpips: Lpips | None = None
    denoised: bool = False
    _held_out: HeldOut | None = field(init=False, default=None)
    _residual: Residual | None = field(init=False, default=None)
    _null: Null | None = field(init=False, default=None)
    _usual: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._residual = None if self.denoised else Residual()

    @property
    def id(self) -> str:
        """Return a hash of all settings that change a certificate of a pre-image."""
        parts = [VERSION, self.null.name, *sorted(other.id for other in self.networks), self.lpips is None]
        return hashlib.sha256(repr([*parts, self.denoised]).encode(errors="surrogateescape")).hexdigest()[:16]

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch channel row column"], photo: Float[Tensor, "channel row column"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the columns of each pre-image of a photo, name → (B,) float64; NaN where one has no value.

        The code's columns are of the images as they are, all others of images clipped to [0, 1].

        Args:
            images: pre-images of the photo in [0, 1], unclipped.
            photo: photo of their size, in their precision.
        """
        target = self._codes(photo[None])
        objective = self.objective(target, (photo.shape[0], photo.shape[1], photo.shape[2]))
        code = self._codes(images)
        compared = self._compared(objective, photo)
        errors = self._errors(objective, code)
        columns = {
            "error": errors,
            "null_percentile": compared.percentile(errors),
            "null_photos": torch.full_like(errors, len(compared.errors)),
            **self._equivalents(objective, photo, errors),
            **self._likeness(objective, code, compared, errors),
            **self._other_layers(images, photo),
        }
        for other in self.networks:
            columns |= other(images, photo, self.null)
        columns |= self._pictures(images, photo)
        for name in OF_PARTS[1:]:
            parts = [values for column, values in columns.items() if column.startswith(f"{name}/")]
            columns |= {name: torch.stack(parts).mean(0)} if parts else {}
        return {name: columns[name] for name in ordered(columns)}

    def _codes(self, images: Tensor) -> Code:
        return in_passes(self.phi, images.to(self.phi.mean.dtype), self.phi)

    def _errors(self, objective: Match, code: Code) -> Tensor:
        """Return the relative error of some codes, (B,) float64; NaN where the photo's own code is zero."""
        errors = objective.value(code).double().cpu()
        return torch.full_like(errors, math.nan) if bool(objective.empty.any()) else errors

    def _compared(self, objective: Match, photo: Tensor) -> Compared:
        size = (photo.shape[-2], photo.shape[-1])
        if self._null is None or self._null.size != size:
            self._null = None  # frees the codes of the last size first
            self._null = Null(self.null, self._codes, size, correlated=True)
            self._usual = usual_gradients(self.null.of_size(size)) if min(size) > 1 else None
        return self._null.compare(objective, photo)

    def _equivalents(self, objective: Match, photo: Tensor, errors: Tensor) -> dict[str, Tensor]:
        found = scales(lambda images: self._errors(objective, self._codes(images)), photo)
        return {name: errors.new_tensor([scale(float(e)) for e in errors]) for name, scale in found.items()}

    def _likeness(self, objective: Match, code: Code, compared: Compared, errors: Tensor) -> dict[str, Tensor]:
        """Return the criteria of Feather et al. (2019, 2023): ρ, R² and SNR, each beside the best of the null."""
        ranks, own = ([ranked(part) for part in entries(objective, some)] for some in (code, objective.target))
        nearest = float(compared.errors.min()) if len(compared.errors) else math.nan
        return {
            "rho": spearman(objective, ranks, own).double(),
            "null_rho": torch.full_like(errors, compared.rho),
            "r2": pearson_squared(objective, code).cpu(),
            "null_r2": torch.full_like(errors, compared.r2),
            "snr_db": -10 * errors.log10(),
            "null_snr_db": torch.full_like(errors, nearest).log10() * -10,
        }

    def _other_layers(self, images: Tensor, photo: Tensor) -> dict[str, Tensor]:
        if self._held_out is None and isinstance(self.phi, Network):
            self._held_out = HeldOut(self.phi, (photo.shape[-2], photo.shape[-1]))
        return {} if self._held_out is None else self._held_out(images, photo)

    def _pictures(self, images: Tensor, photo: Tensor) -> dict[str, Tensor]:
        beside = photo.expand_as(images)
        columns = {name: measure(images, beside).double().cpu() for name, measure in (("psnr", psnr), ("ssim", ssim))}
        if self.lpips is not None:
            columns["lpips"] = self.lpips(images, photo)
        if self._residual is not None:
            columns["naturalness"] = self._residual(images, photo)
        if min(photo.shape[-2:]) > 1:
            usual = gradients(photo.float().cpu()).double() if self._usual is None else self._usual
            columns["gradient_distance"] = gradient_distance(images, usual)
            columns["photo_gradient_distance"] = gradient_distance(photo[None], usual).expand(len(images))
        return columns
