"""Average the pre-images of several restarts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.baselines.descending import draws_of
from invrep.errors import UnfitError
from invrep.inversion.solver import solve
from invrep.objectives.match import Match
from invrep.optim.descent import Descent
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.stable_names import known_as
from invrep.validation import number


@known_as("average of restarts")
def average(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
    restarts: int = 5,
    prior: Prior | None = None,
    descent: Descent | None = None,
) -> Float[Tensor, "batch channel row column"]:
    """Return for each code the mean of several pre-images from different noise.

    Args:
        code: codes Φ0, a list of (B, …).
        phi: representation Φ.
        shape: (C, H, W) of a picture.
        draws: generators of the start noise, one for each picture.
        restarts: number of pre-images to average.
        prior: prior of the descents; None: no prior.
        descent: recipe of the descents; None: Adam, 400 passes.

    Raises:
        UnfitError: no pre-image of a code was found, or Φ does not accept such images.
        InvrepError: ``restarts`` is no whole number of at least 1, or Φ cannot be inverted.
    """
    restarts = number("baseline.restarts", restarts, minimum=1, whole=True)
    means, lost = [], []
    for k, draw in enumerate(draws_of(code, draws)):
        wanted = Match([part[k : k + 1].expand(restarts, *part.shape[1:]) for part in code], phi=phi, shape=shape)
        grey = torch.full((1, *shape), 0.5, dtype=code[0].dtype)
        inversion = solve(
            grey,
            [(0, "average", restart) for restart in range(restarts)],
            phi=phi,
            prior=prior or Prior(),
            descent=descent or Descent(),
            objective=partial(_same, wanted),
            seed=int(torch.randint(2**62, (), generator=draw)),
            trainer={"accelerator": "cpu" if code[0].device.type == "cpu" else "auto"},
        )
        sound = inversion.status.active
        lost += [] if bool(sound.any()) else [k]
        means.append(inversion.reconstruction().detach()[sound].mean(0))
    if lost:
        raise UnfitError("baseline=average found no pre-image; change the learning rate (optim.lr).", lost)
    return torch.stack(means).to(code[0])


def _same(wanted: Match, code: Sequence[Tensor], **_: object) -> Match:
    """Return the objective of a code that is known, whatever the code of the grey image."""
    return wanted
