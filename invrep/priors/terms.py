"""Compute the terms of priors: total variation, α-norms, chroma."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.norms import each, squared_norms
from invrep.stable_names import known_as
from invrep.validation import number

PIXEL_RMS = 68.92  # grey levels; the published σ is 68.92·√(227·227·3)
PUBLISHED_SIGMA = 27098.11571533  # grey levels; the authors' x is X/σ with this σ for images of every size
BOUND = 80.0  # grey levels, B of the IJCV recipe: the unit of a pixel's norm
STEEPNESS = 6.5  # grey levels; the unit of differences between neighbours
LIGHT, CHROMA = 0.02, 2.5  # share of λ_V beside a denoiser, and how much more colour differences weigh


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return x^exponent, one image at a time.

    On a CPU the vectorised power and the scalar one, which serves the end of a tensor, differ in the last bit. In one
    call an image's value would depend on its place in the batch.
    """
    return x.pow(exponent) if x.is_cuda else torch.stack([image.pow(exponent) for image in x])


class _TotalVariation(torch.autograd.Function):
    """Compute Σ (d1² + d2²)^{β/2} with the authors' clamp in the gradient only (invert_nn.m:311-333)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float, floor: float, chroma: float = 0.0) -> Tensor:
        d1, d2 = x.diff(dim=-1), x.diff(dim=-2)
        ctx.beta, ctx.floor, ctx.shape = beta, floor, x.shape
        if beta == 2:
            values = squared_norms(d1) + squared_norms(d2)
            if chroma:  # Σ(d − grey d)² = Σd² − 3·Σ(grey d)²: both sums share their differences
                grey1, grey2 = d1.mean(1, keepdim=True), d2.mean(1, keepdim=True)
                grey = squared_norms(grey1) + squared_norms(grey2)
                values = (1 + chroma) * values - 3 * chroma * grey
                d1, d2 = (d.mul_(1 + chroma).sub_(g, alpha=chroma) for d, g in ((d1, grey1), (d2, grey2)))
            ctx.save_for_backward(d1, d2)
            return values
        squares = torch.zeros_like(x)
        squares[..., :, :-1] = d1.square()
        squares[..., :-1, :] += d2.square()
        values = _power(squares, beta / 2)
        ctx.save_for_backward(d1, d2, values)
        return values.flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        d1, d2, *values = ctx.saved_tensors
        slope = each(ctx.beta * upstream, d1)
        if values:
            slope = slope * _power(values[0].clamp(min=ctx.floor), (ctx.beta - 2) / ctx.beta)
        slope = slope.expand(ctx.shape)
        g1, g2 = d1 * slope[..., :, :-1], d2 * slope[..., :-1, :]
        grad = functional.pad(g1, (1, 0))
        grad[..., :, :-1] -= g1
        grad[..., 1:, :] += g2
        grad[..., :-1, :] -= g2
        return grad, None, None, None


class _EvenPowers(torch.autograd.Function):
    """Compute Σ x^power for an even power, by squares, which are several times as fast as pow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int) -> Tensor:
        squares = x.square()
        rest = squares.pow(power // 2 - 1)
        ctx.save_for_backward(x, rest)
        ctx.power = power
        return squares.mul_(rest).sum(tuple(range(1, x.ndim)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        x, rest = ctx.saved_tensors
        return (x * rest).mul_(each(ctx.power * upstream, x)), None


@known_as("total variation")
class TotalVariation(nn.Module):
    """Compute R_{V^β}(x) = Σ ((x_{i,j+1} − x_ij)² + (x_{i+1,j} − x_ij)²)^{β/2}, for each channel (paper.md §1).

    The last column has no horizontal difference, and the last row no vertical one. Their other difference counts. The
    value has no epsilon. For β ≠ 2 the gradient clamps (d1²+d2²)^{β/2} below at 1e-5 in the units of X over the
    published σ, as the authors' code does (invert_nn.m). The clamp is then the same number of grey levels at every
    size: 12.6 for β = 1.5. A clamp in units of the image's own σ would make the picture depend on the image's size.

    Args:
        beta: exponent, at least 1; 1 is the isotropic total variation, 2 the squared one.
        weight: λ_V in the paper's units, at least 0, or ``auto``: .5, 5 or 50 by the layer's receptive field
            (:func:`weight_by_depth`), and ten times the descriptors' for a code that pools descriptors; per pixel
            (6.5/80)^β (get_defaults.m).
        share: factor of the weight ``auto``, at least 0. ``auto``: 1 for a Φ that ignores contrast, else
            :data:`LIGHT`, which leaves most of the work to a denoiser.
        chroma: factor, at least 0, of the same sum over the image less its grey version, the mean of R, G and B. It is
            added for RGB images, since photos vary far less in colour than in brightness; for β = 2 only. Not in the
            papers. ``auto``: :data:`CHROMA` with β = 2, and 0 for a Φ that ignores contrast.

    Raises:
        InvrepError: beta is below 1, weight, share or chroma is negative, or chroma comes with another β than 2.
    """

    floor = 1e-5  # of images in units of the published σ

    def __init__(
        self, *, beta: float = 2.0, weight: float | str = "auto", share: float | str = 1.0, chroma: float | str = 0.0
    ) -> None:
        super().__init__()
        self.power = number("prior.tv.beta", beta, minimum=1)
        self.chroma = chroma if chroma == "auto" else number("prior.tv.chroma", chroma, minimum=0, word="auto")
        if self.chroma not in (0, "auto") and self.power != 2:
            raise InvrepError(f"prior.tv.chroma={chroma} needs prior.tv.beta=2, not {beta}; take prior.tv.chroma=0.")
        self.share = share if share == "auto" else number("prior.tv.share", share, minimum=0, word="auto")
        self.weight = weight if weight == "auto" else number("prior.tv.weight", weight, minimum=0, word="auto")

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""
        usual = (STEEPNESS / BOUND) ** self.power if per_pixel else _weight_for(phi)
        light = 1.0 if phi.ignores_contrast else LIGHT
        return usual * (light if self.share == "auto" else float(self.share))

    def fixed(self, phi: Representation, sigma: float, mean: Tensor) -> TotalVariation:
        """Return the term for Φ and images in units of σ; the clamp keeps its grey levels."""
        other = copy.copy(self)
        other.floor = self.floor * (PUBLISHED_SIGMA / sigma) ** self.power
        if self.chroma == "auto":
            other.chroma = 0.0 if phi.ignores_contrast or self.power != 2 else CHROMA
        return other

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, " batch"]:
        """Return R for each image. Shape: (B, C, H, W) → (B,)."""
        chroma = float(self.chroma) if self.chroma != "auto" and x.shape[1] == 3 else 0.0
        values: Tensor = _TotalVariation.apply(x, self.power, self.floor, chroma)
        return values


@known_as("alpha norm")
class AlphaNorm(nn.Module):
    """Compute R_α(x) = Σ |x_i|^α, which keeps values in the range of a photo's (paper.md §1).

    Args:
        alpha: exponent, at least 1.
        weight: λ_α / σ^(α−2), at least 0; 4e-10 in the authors' code. ``auto``: 4e-10 for a Φ that ignores contrast,
            whose codes would leave it to chance, else 0.

    Raises:
        InvrepError: alpha is below 1 or weight is negative.
    """

    def __init__(self, *, alpha: float = 6.0, weight: float | str = 4e-10) -> None:
        super().__init__()
        self.power = number("prior.alpha.alpha", alpha, minimum=1)
        self.weight = weight if weight == "auto" else number("prior.alpha.weight", weight, minimum=0, word="auto")

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""
        return 4e-10 if phi.ignores_contrast else 0.0

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, " batch"]:
        """Return R for each image. Shape: (B, C, H, W) → (B,)."""
        if self.power % 2 == 0:
            return cast(Tensor, _EvenPowers.apply(x, int(self.power)))
        return _power(x.abs(), self.power).flatten(1).sum(1)


@known_as("pixel norm")
class PixelNorm(nn.Module):
    """Compute R(x) = Σ_uv (Σ_c x_cuv²)^{α/2}, the α-norm of every pixel's colour vector (IJCV; paper.md §1).

    Args:
        alpha: exponent, at least 1.
        weight: λ_α, at least 0, or ``auto``: per pixel (1/80)^α (get_defaults.m), else the default of
            :class:`AlphaNorm`.

    Raises:
        InvrepError: alpha is below 1 or weight is negative.
    """

    def __init__(self, *, alpha: float = 6.0, weight: float | str = "auto") -> None:
        super().__init__()
        self.power = number("prior.alpha.alpha", alpha, minimum=1)
        self.weight = weight if weight == "auto" else number("prior.alpha.weight", weight, minimum=0, word="auto")

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""
        return BOUND**-self.power if per_pixel else 4e-10

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, " batch"]:
        """Return R for each image. Shape: (B, C, H, W) → (B,)."""
        squares, half = x.square().sum(1), self.power / 2
        values = squares.pow(int(half)) if half.is_integer() else _power(squares, half)
        return values.flatten(1).sum(1)


@known_as("chroma variation")
class ChromaVariation(nn.Module):
    """Compute R(x) = Σ ‖∇c‖² over the two colour differences of x; photos vary far less in them than in brightness.

    The paper's total variation treats R, G and B separately. Deep layers hardly see colour fringes, so pre-images fill
    with them. This term suppresses the fringes. It uses c1 = (r − g)/√2 and c2 = (r + g − 2b)/√6 with the differences
    of :class:`TotalVariation`. The term is not in the papers. Images without three channels have R = 0.

    Args:
        weight: factor in the units of λ_V, at least 0, or ``auto``: four times :func:`weight_by_depth`.

    Raises:
        InvrepError: weight is negative.
    """

    power = 2.0

    def __init__(self, *, weight: float | str = "auto") -> None:
        super().__init__()
        self.weight = weight if weight == "auto" else number("prior.chroma.weight", weight, minimum=0, word="auto")

    def automatic(self, phi: Representation, *, per_pixel: bool) -> float:
        """Return the value of the weight ``auto`` for a representation."""
        return 4 * ((STEEPNESS / BOUND) ** 2 if per_pixel else weight_by_depth(phi.receptive_field))

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, " batch"]:
        """Return R for each image. Shape: (B, C, H, W) → (B,)."""
        if x.shape[1] != 3:
            return 0 * x.flatten(1).sum(1)
        r, g, b = x.unbind(1)
        chroma = torch.stack([(r - g) / math.sqrt(2), (r + g - 2 * b) / math.sqrt(6)], 1)
        return cast(Tensor, _TotalVariation.apply(chroma, 2.0, 0.0))


def _weight_for(phi: Representation) -> float:
    """Return λ_V for a representation: ten times the descriptors' where it pools them, at most 50.

    Without their places, descriptors leave more open. At dense SIFT's own .5, Fisher vectors have noisy pre-images, and
    at 50 the error of bags of words and Fisher vectors is up to three times as large as at 5.
    """
    if phi.local_field is None:
        return weight_by_depth(phi.receptive_field)
    return min(10 * weight_by_depth(phi.local_field), 50.0)


def weight_by_depth(receptive_field: int | None) -> float:
    """Return the paper's λ_V for a layer: .5 up to a receptive field of 60 pixels, 5 up to 150, else 50.

    For its AlexNet the paper chose .5 for conv1 … relu2, 5 for pool2 … relu4 and 50 for conv5 … fc8
    (experiment_cnn.m:63-71). The receptive fields of these layers are 11–51, 67–131 and 163–355 pixels. The paper
    inverts HOG and dense SIFT with .5; their receptive fields are below 60 pixels.

    Args:
        receptive_field: side in pixels; None where it is the whole image.
    """
    if receptive_field is None:
        return 50.0
    return 0.5 if receptive_field <= 60 else 5.0 if receptive_field <= 150 else 50.0
