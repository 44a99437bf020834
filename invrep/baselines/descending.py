"""Descend without what an inversion adds: a single gradient step, and the plain loop of pixels and Adam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.objectives.match import Match
from invrep.optim.start_noise import noise_of
from invrep.priors.terms import PIXEL_RMS
from invrep.representations.base import Representation
from invrep.stable_names import known_as
from invrep.validation import number

QUIET = 0.1  # norm of the start noise of a single step, in norms of a photo, as in the default recipe
LENGTHS = torch.logspace(-3, 1, 41).tolist()  # of a step: deviation of the pixels it adds, black to white being 1


def draws_of(code: Sequence[Tensor], draws: Sequence[torch.Generator] | None) -> Sequence[torch.Generator]:
    """Return the given generators, by default one for each of the B codes with the seeds 0 to B − 1."""
    return draws if draws is not None else [torch.Generator().manual_seed(k) for k in range(len(code[0]))]


@known_as("single step")
def step(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
) -> Float[Tensor, "batch channel row column"]:
    """Return for each code quiet noise after one step against the gradient of ‖Φ − Φ0‖² / ‖Φ0‖².

    The step has the length, of 41 from a thousandth to ten times black to white, whose picture matches best.

    Args:
        code: codes Φ0, a list of (B, …).
        phi: representation Φ.
        shape: (C, H, W) of a picture.
        draws: generators of the start noise, one for each picture.
    """
    wanted, like = Match(code, phi=phi, shape=shape), code[0]
    amount = QUIET * PIXEL_RMS / 255 * math.prod(shape) ** 0.5
    noise = torch.stack([noise_of("natural", shape, draw, amount) for draw in draws_of(code, draws)])
    start = (phi.mean.to(like) + noise.to(like)).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(wanted.value(phi(start)).sum(), start)
    with torch.no_grad():
        way = -gradient / gradient.flatten(1).std(1).clamp(min=torch.finfo(like.dtype).tiny)[:, None, None, None]
        best, found = wanted.value(phi(start)), start.detach().clone()
        for length in LENGTHS:
            images = start + length * way
            errors = wanted.value(phi(images))
            nearer = errors < best
            best, found[nearer] = torch.where(nearer, errors, best), images[nearer]
    return found


@known_as("plain descent")
def plain(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
    steps: int = 300,
    lr: float = 0.01,
) -> Float[Tensor, "batch channel row column"]:
    """Return for each code uniform noise after Adam on its pixels: no prior, no basis, Φ's own gradient.

    It is the loop that plenoptic's ``Metamer`` and most scripts run.

    Args:
        code: codes Φ0, a list of (B, …).
        phi: representation Φ.
        shape: (C, H, W) of a picture.
        draws: generators of the start noise, one for each picture.
        steps: number of passes.
        lr: learning rate of the pixels, black to white being 1.

    Raises:
        InvrepError: ``steps`` is no whole number of at least 1, or ``lr`` not above 0.
    """
    steps = number("baseline.steps", steps, minimum=1, whole=True)
    wanted = Match(code, phi=phi, shape=shape)
    noise = [torch.rand(shape, generator=draw, dtype=torch.float64) for draw in draws_of(code, draws)]
    images = torch.stack(noise).to(code[0]).requires_grad_()
    adam = torch.optim.Adam([images], lr=number("baseline.lr", lr, above=0))
    with torch.enable_grad():
        for _ in range(steps):
            adam.zero_grad()
            wanted.value(phi(images)).sum().backward()
            adam.step()
    return images.detach()
