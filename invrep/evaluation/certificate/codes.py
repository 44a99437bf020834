"""Compare the codes of several images with that of one photo: error, Pearson's and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from invrep.objectives.match import Match
from invrep.representations.base import Representation

MOST_RANKED = 2**18  # entries of a code that are ranked; Spearman's ρ of a sample of so many is known to ±.002
PIXELS_AT_ONCE = 8 * 224**2  # of the images in one pass

Code = list[Tensor]


def in_passes(
    phi: Callable[[Tensor], Code], images: Float[Tensor, "batch channel row column"], like: Representation
) -> Code:
    """Return the codes of images, a list of (B, …), by passes of a bounded number of pixels.

    Args:
        phi: function from images to codes.
        images: images in [0, 1] on any device.
        like: representation whose device and precision the images take.
    """
    size = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
    codes = [phi(some.to(like.mean.device)) for some in images.split(size)]
    return [torch.cat(parts) for parts in zip(*codes, strict=True)]


def entries(objective: Match, code: Sequence[Tensor]) -> list[Tensor]:
    """Return the matched entries of each part of some codes, (B, D_k).

    Args:
        objective: objective of a photo, which knows the region and the channels.
        code: codes, a list of (B, …).
    """
    found = []
    for k, part in enumerate(code):
        mask = getattr(objective, f"mask{k}")
        flat = part.flatten(1)
        found.append(flat if mask is None else flat[:, mask.flatten().bool()])
    return found


def ranked(rows: Float[Tensor, "batch entry"]) -> Float[Tensor, "batch entry"]:
    """Return the ranks of each row's entries, centred and of unit length, on the CPU; NaN for a constant row.

    Equal entries share their mean rank. Of more than ``MOST_RANKED`` entries, the same random ones are ranked in all
    rows.
    """
    if rows.shape[1] > MOST_RANKED:
        chosen = np.sort(np.random.default_rng(0).choice(rows.shape[1], MOST_RANKED, replace=False))
        rows = rows[:, torch.from_numpy(chosen).to(rows.device)]
    return centred(torch.from_numpy(rankdata(rows.cpu().numpy(), axis=1))).float()


def centred(rows: Float[Tensor, "batch entry"]) -> Float[Tensor, "batch entry"]:
    """Return each row less its mean and divided by its length, in float64; NaN for a constant row."""
    rows = rows.double()
    rows = rows - rows.mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, torch.nan)


def mean_over_parts(objective: Match, values: Sequence[Tensor]) -> Tensor:
    """Return the mean of the parts' values, each (B,), with the parts' weights in the objective."""
    return torch.stack([weight * value for weight, value in zip(objective.weights, values, strict=True)]).sum(0)


def pearson_squared(objective: Match, code: Sequence[Tensor]) -> Float[Tensor, " batch"]:
    """Return the square of Pearson's correlation of each code with the photo's, (B,) float64."""
    wanted = entries(objective, objective.target)
    pairs = zip(entries(objective, code), wanted, strict=True)
    return mean_over_parts(objective, [(centred(part) @ centred(own)[0]).square() for part, own in pairs])


def spearman(objective: Match, ranks: Sequence[Tensor], own: Sequence[Tensor]) -> Float[Tensor, " batch"]:
    """Return Spearman's correlation of each code with the photo's, (B,).

    Args:
        objective: objective of the photo.
        ranks: :func:`ranked` entries of each part of the codes, (B, D_k).
        own: those of the photo, (1, D_k).
    """
    return mean_over_parts(objective, [part @ wanted[0] for part, wanted in zip(ranks, own, strict=True)])
