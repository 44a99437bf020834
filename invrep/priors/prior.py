"""Combine natural-image priors into one number for each image.

With X = 255·rgb − mean, the energy of a term is ``weight/σ² · R(X)``, which is ``weight · σ^(power−2) · R(X/σ)``. The
weight is then the paper's λ_V for β=2, follows its σ^(β−2) rule for other β, and is λ_α = 4e-10·σ⁴ for α=6 (CVPR;
paper.md §1). A preset that counts per pixel (IJCV) uses ``weight/(H·W) · R(X)`` instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.priors.terms import PIXEL_RMS
from invrep.representations.base import Representation
from invrep.stable_names import known_as
from invrep.validation import number


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


@known_as("prior")
class Prior:
    """Hold a preset of priors and its units.

    Args:
        sigma: norm σ in grey levels: the L2 norm of a typical photo less its mean; ``auto`` is 68.92·√(C·H·W).
        ball: largest norm of a pixel's X in grey levels; every pass projects the image to it. None for no bound.
        per_pixel: whether weights are divided by H·W instead of σ².
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
        **terms: Term | None,
    ) -> None:
        self.sigma = sigma if sigma == "auto" else number("prior.sigma", sigma, above=0, word="auto")
        self.ball = None if ball is None else number("prior.ball", ball, above=0, word="null")
        if not isinstance(per_pixel, bool):
            raise InvrepError(f"prior.per_pixel={per_pixel} is not valid: expected true or false.")
        self.per_pixel = per_pixel
        self.terms = {name: term for name, term in terms.items() if term is not None}
        for name, term in self.terms.items():
            if not hasattr(term, "weight") or not hasattr(term, "power"):
                raise InvrepError(f"prior.{name} is not a prior: expected a module with a weight and a power.")

    def weights(self, phi: Representation) -> dict[str, float]:
        """Return each term's weight λ; ``auto`` is resolved for Φ."""
        return {
            name: float(
                cast(AutomaticTerm, term).automatic(phi, per_pixel=self.per_pixel)
                if term.weight == "auto"
                else term.weight
            )
            for name, term in self.terms.items()
        }

    def for_shape(self, shape: tuple[int, int, int], phi: Representation, *, scale: float | str = 255.0) -> FixedPrior:
        """Return the prior with its automatic values resolved for a shape and for Φ.

        Args:
            shape: (C, H, W) of the images.
            phi: representation Φ.
            scale: grey levels per unit of the optimised variable, see :attr:`~invrep.optim.Descent.scale`; ``sigma`` is
                σ.
        """
        sigma = PIXEL_RMS * math.sqrt(math.prod(shape)) if self.sigma == "auto" else float(self.sigma)
        factors = {}
        for name, weight in self.weights(phi).items():
            # R takes X/σ, whose powers float32 can hold.
            power = self.terms[name].power
            factors[name] = weight * sigma**power / (shape[1] * shape[2] if self.per_pixel else sigma**2)
        return FixedPrior(sigma, float(sigma if scale == "sigma" else scale), self.ball, dict(self.terms), factors)


@dataclass(frozen=True)
class FixedPrior:
    """Compute each term's energy, with every constant known.

    Attributes:
        sigma: norm σ in grey levels.
        scale: grey levels per unit of the optimised variable.
        ball: largest norm of a pixel in grey levels, or None.
        terms: name → module.
        factors: name → factor of R(X/σ).
    """

    sigma: float
    scale: float
    ball: float | None
    terms: dict[str, Term]
    factors: dict[str, float]

    def __call__(self, image: Float[Tensor, "batch channel row column"]) -> dict[str, Float[Tensor, " batch"]]:
        """Return each term's weighted energy, (B,), for the optimised variable, (B, C, H, W)."""
        x = image if self.scale == self.sigma else image * (self.scale / self.sigma)
        return {name: term(x) * self.factors[name] for name, term in self.terms.items()}

    def project(self, image: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch channel row column"]:
        """Return the nearest image within the ball: x_uv · min(ball/‖X_uv‖, 1) (paper.md §1)."""
        if self.ball is None:
            return image
        norms: Tensor = image.norm(dim=1, keepdim=True)
        return image * (self.ball / (norms * self.scale)).clamp(max=1)
