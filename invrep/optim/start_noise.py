"""Draw the noise at which descents start: it depends on the image, not on its place in a batch."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from invrep.optim.bases import cosines, frequencies
from invrep.priors.terms import BOUND


def generator_of(seed: int, image: str, restart: int, purpose: str = "") -> torch.Generator:
    """Return a generator that depends on these arguments alone.

    Args:
        seed: seed of the job.
        image: id of the image.
        restart: number of the restart.
        purpose: name that keeps the draws of one image apart.
    """
    name = f"{seed}\0{image}\0{restart}{purpose and chr(0) + purpose}"
    key = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


def noise_of(kind: str, shape: tuple[int, int, int], generator: torch.Generator, amount: float) -> Tensor:
    """Return start noise, (C, H, W) float64.

    Args:
        kind: ``gaussian``; ``natural``, with the spectrum 1/f of photos; or ``uniform``.
        shape: (C, H, W) of the image.
        generator: generator of :func:`generator_of`.
        amount: L2 norm of the noise; for ``uniform`` the value that 5 % of it exceed.
    """
    if kind == "uniform":
        noise = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        loudest = noise.flatten().sort().values[int(0.95 * (noise.numel() - 1))]
        return noise * (amount / loudest)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "natural":
        rows, columns = cosines(shape[1]), cosines(shape[2])
        noise = rows.mT @ (noise / frequencies(*shape[1:])) @ columns
    norm: Tensor = noise.norm()
    return noise * (amount / norm)


def amount_of(kind: str, start: float, sigma: float) -> float:
    """Return the amount of :func:`noise_of` in grey levels, for a recipe's ``start`` and a prior's norm σ."""
    return start * BOUND / math.sqrt(3) if kind == "uniform" else start * sigma
