"""Take the sign of differences between pixels, with a surrogate derivative."""

from __future__ import annotations

from torch import Tensor

from invrep.representations.surrogate import Surrogate

WIDTH = 0.4  # width of the sigmoid at softness 1, over the root mean square of an image's differences
NARROWEST = 1e-5  # least width: of a flat image, whose differences are zero, too


def soft_bits(differences: Tensor, bits: Tensor, surrogate: Surrogate | None) -> Tensor:
    """Return bits as numbers, with the derivative of sigmoid(differences / width).

    The true derivative of a bit is zero, and so is that of this function without a surrogate. The width is .4 times the
    softness times the root mean square of an image's differences, so that it narrows to the true derivative during a
    descent.

    Args:
        differences: differences that the bits compare, (B, …), in the unit of an image in [0, 1].
        bits: whether a difference counts as positive, (B, …), boolean.
        surrogate: gradient of the pass; None for the true derivative.

    Returns:
        0 or 1, (B, …), in the type of the differences.
    """
    hard = bits.to(differences.dtype)
    if surrogate is None or (not isinstance(surrogate.softness, Tensor) and surrogate.softness == 0):
        return hard + 0 * differences
    values = tuple(range(1, differences.ndim))
    rms = differences.detach().square().mean(values, keepdim=True).sqrt()
    width = (rms * (WIDTH * surrogate.softness)).clamp(min=NARROWEST)
    soft = (differences / width).sigmoid()
    return hard + (soft - soft.detach())  # The bracket is exactly zero.
