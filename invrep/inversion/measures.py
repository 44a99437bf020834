"""Measure the final pre-images."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import out_of_memory
from invrep.evaluation.metrics import psnr, ssim
from invrep.inversion.compute import exact
from invrep.inversion.curve import bared
from invrep.inversion.module import Inversion

log = logging.getLogger(__name__)


@exact()
@torch.no_grad()
def measure(
    inversion: Inversion, photos: Float[Tensor, "batch channel row column"] | None
) -> dict[str, Float[Tensor, " batch"]]:
    """Return the measures of the final pre-images, name → (B,) in float64 on the CPU.

    - The objective's measures: for a match ``error`` ‖Φ−Φ0‖²/‖Φ0‖², its root ``root_error``, ``distance`` ‖Φ−Φ0‖² and
      ``code_norm`` ‖Φ0‖²; otherwise ``activation``.
    - ``psnr`` in dB and ``ssim`` against the photos, on values clipped to [0, 1].
    - ``energy`` and its terms.

    A measure is NaN where memory runs out, and a relative error is NaN where the target code is zero.

    Args:
        inversion: fitted inversion.
        photos: photo of every row, (B, C, H, W) in [0, 1]; None without photos.
    """
    images, objective = inversion.reconstruction(), inversion.objective
    photos = None if photos is None else photos.to(images)
    measures: list[Callable[[], dict[str, Tensor]]] = [lambda: objective.measures(inversion.phi(images))]
    if photos is not None:
        measures += [lambda: {"psnr": psnr(images, photos)}, lambda: {"ssim": ssim(images, photos)}]
    names = (*objective.columns, *inversion.latest, *(("psnr", "ssim") if photos is not None else ()))
    values = dict.fromkeys(names, images.new_full((len(images),), float("nan"))) | inversion.latest
    for part in measures:
        try:
            values |= part()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            log.warning("Memory has run out after the last pass; a measure of %d images is blank.", len(images))
    return {name: value.double().cpu() for name, value in bared(values, inversion.bare).items()}
