"""Take the photo of a folder whose code is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.baselines.gallery import gallery_of
from invrep.errors import UnfitError
from invrep.objectives.match import Match
from invrep.representations.base import Representation
from invrep.stable_names import known_as

SAME = 1e-8  # ‖Φ − Φ0‖² / ‖Φ0‖² below which a photo counts as the one that is sought


@known_as("nearest")
@torch.no_grad()
def nearest(
    code: Sequence[Float[Tensor, "batch ..."]],
    phi: Representation,
    *,
    shape: tuple[int, int, int],
    draws: Sequence[torch.Generator] | None = None,
    path: str | None = None,
    limit: int | None = None,
    resize: str | None = None,
) -> Float[Tensor, "batch channel row column"]:
    """Return for each code the photo of a folder with the least ‖Φ − Φ0‖² / ‖Φ0‖².

    A photo with the sought code itself is passed over, so that the folder may be that of the job's own photos.

    Args:
        code: codes Φ0, a list of (B, …).
        phi: representation Φ.
        shape: (C, H, W) of a picture; each photo of the folder is made to cover it and cropped.
        draws: unused; nothing is random.
        path: source of the photos, as ``data.path``.
        limit: greatest number of photos; None for all.
        resize: ``model``, ``squash`` or ``none``; None: as a job reads photos for Φ.

    Raises:
        InvrepError: no photo is at the path, or a photo cannot be read.
        UnfitError: the folder holds no other photo than the one that is sought.
    """
    wanted = Match(code, phi=phi, shape=shape)
    count = len(code[0])
    best = torch.full((count,), torch.inf)
    found = torch.zeros(count, *shape, dtype=code[0].dtype)
    for images, codes in gallery_of(path, phi, shape, limit, resize):
        for k, image in enumerate(images):
            errors = wanted.value(
                [part[k : k + 1].to(own).expand_as(own) for part, own in zip(codes, code, strict=True)]
            )
            errors = errors.float().cpu()
            nearer = (errors < best) & (errors > SAME)
            best[nearer] = errors[nearer]
            found[nearer] = image.to(found)
    if not bool(best.isfinite().all()):
        raise UnfitError(
            "baseline.path has no photo but the one that is sought; give a folder of others.",
            (~best.isfinite()).nonzero()[:, 0].tolist() if bool(best.isfinite().any()) else (),
        )
    return found
