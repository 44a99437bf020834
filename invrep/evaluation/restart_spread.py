"""Measure how much a code leaves open: the distances between pre-images of one photo, in pixels and in codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights

from invrep.evaluation.metrics import ssim
from invrep.objectives.match import Match
from invrep.representations.zoo.weights import read_weights

log = logging.getLogger(__name__)
LPIPS_SIDE = 31  # pixels; LPIPS' AlexNet has no relu5 below


def lpips_at_hand() -> LearnedPerceptualImagePatchSimilarity | None:
    """Return LPIPS (AlexNet), a mean over the pairs given to it; None without its weights in torch hub's cache.

    Nothing is downloaded: the linear weights come with torchmetrics, and the trunk is torchvision's AlexNet.
    """
    trunk = Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name
    if not trunk.is_file():
        return None
    try:
        read_weights(trunk)  # refuse a file that holds code: torchmetrics would run it
        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    except Exception as error:
        log.warning("LPIPS is left out: %s cannot be used (%s).", trunk, str(error).splitlines()[0])
        return None


@torch.no_grad()
def pixel_spread(images: Tensor, lpips: LearnedPerceptualImagePatchSimilarity | None) -> dict[str, float]:
    """Return ``spread_ssim`` and ``spread_lpips`` of pre-images of one photo, clipped to [0, 1].

    The two are means over all pairs i < j: of 1 − SSIM(x_i, x_j) and of LPIPS(x_i, x_j). ``spread_ssim`` is NaN below
    11 pixels. ``spread_lpips`` is NaN below 31 pixels, and without LPIPS.

    Args:
        images: pre-images, (K, C, H, W) in [0, 1], K ≥ 2.
        lpips: measure of :func:`lpips_at_hand`, or None.
    """
    images = images.clamp(0, 1)
    pairs = list(combinations(range(len(images)), 2))
    unlike = [1 - float(ssim(images[[i]], images[[j]])) for i, j in pairs]
    spread = {"spread_ssim": sum(unlike) / len(pairs), "spread_lpips": float("nan")}
    if lpips is not None and min(images.shape[-2:]) >= LPIPS_SIDE:
        lpips.to(images.device).reset()
        colour = images.float().expand(-1, 3, -1, -1)
        for i, j in pairs:
            lpips.update(colour[[i]], colour[[j]])
        spread["spread_lpips"] = float(lpips.compute())
    return spread


@torch.no_grad()
def code_spread(codes: Sequence[Tensor], objective: Match) -> float:
    """Return the mean over all pairs i < j of ‖Φ_i − Φ_j‖²/‖Φ0‖², over the matched part of the code.

    Args:
        codes: codes of the pre-images, a list of (K, …), K ≥ 2.
        objective: objective of their photo, one row.
    """
    pairs = list(combinations(range(len(codes[0])), 2))
    values = [float(objective.value([p[[i]] for p in codes], [p[[j]] for p in codes])) for i, j in pairs]
    return sum(values) / len(pairs)
