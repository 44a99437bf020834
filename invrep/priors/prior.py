"""Combine natural-image priors into one number for each image.

With X = 255·rgb − mean, the energy of a term is ``weight/σ² · R(X)``, which is ``weight · σ^(power−2) · R(X/σ)``. The
weight is then the paper's λ_V for β=2, follows its σ^(β−2) rule for other β, and is λ_α = 4e-10·σ⁴ for α=6 (CVPR;
paper.md §1). A preset that counts per pixel (IJCV) uses ``weight/(H·W) · R(X)`` instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from invrep.errors import InvrepError
from invrep.priors.denoiser import Denoiser
from invrep.priors.terms import PIXEL_RMS
from invrep.representations.base import Representation
from invrep.representations.module import load_weights, make_module
from invrep.stable_names import known_as
from invrep.validation import check_kind, number


class Term(Protocol):
    """Declare a prior's term: a module (B, C, H, W) → (B,) with a weight and a power."""

    @property
    def weight(self) -> float | str:
        """Return λ in the preset's units, or ``auto``."""

    @property
    def power(self) -> float:
        """Return the exponent of the image's scale in R."""

    def __call__(self, x: Float[Tensor, "batch channel row column"], /) -> Float[Tensor, " batch"]:
        """Return R for each image, (B,)."""


class AutomaticTerm(Term, Protocol):
    """Declare a term that can compute its own weight (``auto``)."""

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""


class FixedTerm(Term, Protocol):
    """Declare a term with constants that depend on Φ or lie in grey levels, such as black and white."""

    def fixed(self, phi: Representation, sigma: float, mean: Tensor) -> Term:
        """Return the term for Φ and images X/σ, where X = 255·(rgb − mean)."""


@known_as("prior")
class Prior:
    """Hold a preset of priors and its units.

    Args:
        sigma: norm σ in grey levels: the L2 norm of a typical photo less its mean; ``auto`` is 68.92·√(C·H·W).
        ball: largest norm of a pixel's X in grey levels; every pass projects the image to it. None for no bound.
        per_pixel: whether weights are divided by H·W instead of σ².
        denoiser: proximal step between passes; None for none.
        terms: name → :class:`TotalVariation`, :class:`AlphaNorm` or any module (B, C, H, W) → (B,) with the attributes
            ``weight`` and ``power``. A term with the weight ``auto`` also has a method ``automatic``. None removes a
            preset's term.

    Raises:
        InvrepError: σ or the ball is not positive, per_pixel is no bool, or a term declares no weight or power.
    """

    def __init__(
        self,
        *,
        sigma: float | str = "auto",
        ball: float | None = None,
        per_pixel: bool = False,
        denoiser: Denoiser | None = None,
        **terms: Term | None,
    ) -> None:
        self.sigma = sigma if sigma == "auto" else number("prior.sigma", sigma, above=0, word="auto")
        self.ball = None if ball is None else number("prior.ball", ball, above=0, word="null")
        check_kind("prior.denoiser", denoiser, denoiser is None or isinstance(denoiser, Denoiser), "a Denoiser")
        if not isinstance(per_pixel, bool):
            raise InvrepError(f"prior.per_pixel={per_pixel} is not valid: expected true or false.")
        self.per_pixel = per_pixel
        self.denoiser = denoiser
        self.terms = {name: term for name, term in terms.items() if term is not None}
        for name, term in self.terms.items():
            if not hasattr(term, "weight") or not hasattr(term, "power"):
                raise InvrepError(f"prior.{name} is not a prior: expected a module with a weight and a power.")

    def weights(self, phi: Representation) -> dict[str, float]:
        """Return each term's weight λ, with ``auto`` resolved for Φ; terms of weight 0 are left out."""
        weights = {
            name: float(
                cast(AutomaticTerm, term).automatic(phi, per_pixel=self.per_pixel)
                if term.weight == "auto"
                else term.weight
            )
            for name, term in self.terms.items()
        }
        return {name: weight for name, weight in weights.items() if weight}

    def noise(self, phi: Representation) -> float | None:
        """Return the noise in grey levels that the denoiser is told at first; None where it makes no step."""
        denoiser = self.denoiser and self.denoiser.fixed(phi)
        return float(denoiser.noise) if denoiser else None

    def for_shape(self, shape: tuple[int, int, int], phi: Representation, *, scale: float | str = 255.0) -> FixedPrior:
        """Return the prior with its automatic values resolved for a shape and for Φ, without terms of weight 0.

        Args:
            shape: (C, H, W) of the images.
            phi: representation Φ.
            scale: grey levels per unit of the optimised variable, see :attr:`~invrep.optim.Descent.scale`; ``sigma`` is
                σ.
        """
        sigma = PIXEL_RMS * math.sqrt(math.prod(shape)) if self.sigma == "auto" else float(self.sigma)
        factors = {}
        weights = self.weights(phi)
        for name, weight in weights.items():
            # R takes X/σ, whose powers float32 can hold.
            power = self.terms[name].power
            factors[name] = weight * sigma**power / (shape[1] * shape[2] if self.per_pixel else sigma**2)
        mean = _widened(phi.mean, shape)
        return FixedPrior(
            sigma,
            float(sigma if scale == "sigma" else scale),
            self.ball,
            {name: _fixed(self.terms[name], phi, sigma, mean) for name in weights},
            factors,
            mean,
            self.denoiser and self.denoiser.fixed(phi),
        )


def _widened(mean: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return a mean pixel, or a mean image with its edges repeated to the size of images (C, H, W)."""
    if mean.shape[-2:] in ((1, 1), shape[1:]):
        return mean
    rows, columns = shape[1] - mean.shape[1], shape[2] - mean.shape[2]
    margins = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return functional.pad(mean[None], margins, mode="replicate")[0]


def _fixed(term: Term, phi: Representation, sigma: float, mean: Tensor) -> Term:
    return cast(FixedTerm, term).fixed(phi, sigma, mean) if hasattr(term, "fixed") else term


@known_as("prior with a denoiser")
def with_denoiser(
    *,
    denoiser: Denoiser,
    target: str | None = None,
    args: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] | None = None,
    **rest: Any,
) -> Prior:
    """Return a prior whose denoiser is a module of the user's.

    Args:
        denoiser: proximal step with the built-in module.
        target: import path, ``package.module.factory``, of a function or class that returns the module of (images in
            [0, 1], σ). The working folder is searched too. None: the built-in module.
        args: keyword arguments of the factory.
        weights: path of a .safetensors, .pth or .pt file with the module's state dict; None keeps the factory's.
        rest: further arguments of :class:`Prior`.

    Raises:
        InvrepError: there is no such target or file, the target makes no module, or the weights do not fit.
    """
    check_kind("prior.denoiser", denoiser, isinstance(denoiser, Denoiser), "a Denoiser; without one take prior=natural")
    if target is None and (args or weights is not None):
        raise InvrepError("prior.args and prior.weights are those of prior.target, which is missing.")
    if target is not None:
        module = make_module(target, args or {}, 0, group="prior")
        if weights is not None:
            load_weights(module, weights, set(module.state_dict()))
        denoiser = Denoiser(module=module, noise=denoiser.noise, every=denoiser.every)
    return Prior(denoiser=denoiser, **rest)


@dataclass(frozen=True)
class FixedPrior:
    """Compute each term's energy and the steps between passes, with every constant known.

    Attributes:
        sigma: norm σ in grey levels.
        scale: grey levels per unit of the optimised variable.
        ball: largest norm of a pixel in grey levels, or None.
        terms: name → module, for images in units of σ.
        factors: name → factor of R(X/σ).
        mean: mean pixel (C, 1, 1) or (1, 1, 1), or mean image (C, H, W), in [0, 1].
        denoiser: proximal step between passes, or None.
    """

    sigma: float
    scale: float
    ball: float | None
    terms: dict[str, Term]
    factors: dict[str, float]
    mean: Tensor
    denoiser: Denoiser | None = None

    def __call__(self, image: Float[Tensor, "batch channel row column"]) -> dict[str, Float[Tensor, " batch"]]:
        """Return each term's weighted energy, (B,), for the optimised variable, (B, C, H, W)."""
        x = image if self.scale == self.sigma else image * (self.scale / self.sigma)
        return {name: term(x) * self.factors[name] for name, term in self.terms.items()}

    def denoised(
        self, image: Float[Tensor, "batch channel row column"], progress: float
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the optimised variable, (B, C, H, W), after the denoiser's step, which must be there.

        Args:
            image: optimised variable.
            progress: share of the descent's passes that are done, in (0, 1].
        """
        assert self.denoiser is not None
        unit = self.scale / 255
        rgb = torch.add(self.mean.to(image), image, alpha=unit)
        return torch.add(image, self.denoiser(rgb, progress), alpha=1 / unit)

    def project(self, image: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch channel row column"]:
        """Return the nearest image within the ball: x_uv · min(ball/‖X_uv‖, 1) (paper.md §1)."""
        if self.ball is None:
            return image
        norms: Tensor = image.norm(dim=1, keepdim=True)
        return image * (self.ball / (norms * self.scale)).clamp(max=1)
