"""What a fitted inversion has come to, for each of its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.inversion.measures import measure
from invrep.inversion.module import Inversion

Curve = list[tuple[int, dict[str, Tensor]]]  # passes, and each value of every image there


@dataclass(frozen=True)
class Outcome:
    """What is known of the B pre-images of a batch, on the CPU.

    Attributes:
        images: (B, C, H, W) in [0, 1], unclipped.
        measures: name → (B,), see :func:`invrep.inversion.measures.measure`.
        curve: (pass, {name: (B,)}), NaN for the error of an image that has none.
        passes: how many each has taken.
        remarks: why an image has no relative error; blank for one that has.
        failures: why an image has failed, as the rest of a sentence that begins with its name; None if it has not.
    """

    images: Float[Tensor, "batch channel row column"]
    measures: dict[str, Float[Tensor, " batch"]]
    curve: Curve
    passes: list[int]
    remarks: list[str]
    failures: list[str | None]


def outcome_of(inversion: Inversion, photos: Float[Tensor, "batch channel row column"] | None) -> Outcome:
    """Return what a fitted inversion has come to.

    Args:
        inversion: it has run.
        photos: (B, C, H, W) in [0, 1], of every row; None where there are none.
    """
    measures, status = measure(inversion, photos), inversion.status
    return Outcome(
        images=inversion.reconstruction().detach().cpu(),
        measures=measures,
        curve=[(at, {name: value.cpu() for name, value in terms.items()}) for at, terms in inversion.points()],
        passes=torch.where(status.done, status.ended, inversion.passes).tolist(),
        remarks=inversion.remarks,
        failures=status.whys(),
    )
