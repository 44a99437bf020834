"""Collect the results of a fitted inversion, for each of its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.inversion.curve import Curve
from invrep.inversion.measures import measure
from invrep.inversion.module import Inversion


@dataclass(frozen=True)
class Outcome:
    """Hold the results of the B pre-images of a batch, on the CPU.

    Attributes:
        images: pre-images (B, C, H, W); 0 to 1 is black to white, unclipped.
        measures: measures by name, (B,) each, see :func:`invrep.inversion.measures.measure`.
        curve: list of (pass, {name: (B,)}); NaN for the relative error of an image that has none.
        passes: number of passes of each image, B integers.
        remarks: reason why an image has no relative error, B texts; empty where it has one.
        failures: reason why an image has failed, as a sentence without its subject; None for success.
    """

    images: Float[Tensor, "batch channel row column"]
    measures: dict[str, Float[Tensor, " batch"]]
    curve: Curve
    passes: list[int]
    remarks: list[str]
    failures: list[str | None]


def outcome_of(inversion: Inversion, photos: Float[Tensor, "batch channel row column"] | None) -> Outcome:
    """Return the results of a fitted inversion.

    Args:
        inversion: fitted inversion.
        photos: photo of every row, (B, C, H, W) in [0, 1]; None without photos.
    """
    measures, status = measure(inversion, photos), inversion.status
    return Outcome(
        images=inversion.reconstruction().detach().cpu(),
        measures=measures,
        curve=_on_the_cpu(inversion.points()),
        passes=torch.where(status.done, status.ended, inversion.passes).tolist(),
        remarks=inversion.remarks,
        failures=status.whys(),
    )


def _on_the_cpu(curve: Curve) -> Curve:
    """Return a curve on the CPU, by one copy of all its points."""
    values = torch.stack([value for _, terms in curve for value in terms.values()]).cpu().unbind()
    every = iter(values)
    return [(at, {name: next(every) for name in terms}) for at, terms in curve]
