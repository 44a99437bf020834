"""Write a result into one file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from invrep.results.atomic_files import atomic

if TYPE_CHECKING:
    from invrep.api.inverted import Inverted

FILE = "inverted.safetensors"
FORMAT = "1"  # number of the file's format
TEXTS = ("names", "remarks", "stopped", "display")


def save(found: Inverted, folder: str | os.PathLike[str]) -> None:
    """Write a result, see :meth:`Inverted.save`.

    The keys of the tensors are ``reconstructions``, ``photos``, ``codes.0``, ``targets.0``, ``metrics.NAME``,
    ``history.NAME`` of shape (points, n, R), ``history.pass``, ``passes`` and ``converged``. Everything else is JSON in
    the file's header, key ``invrep``.
    """
    texts = {"format": FORMAT, **{name: getattr(found, name) for name in TEXTS}}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(found).items()}
    header = {"invrep": json.dumps(texts)}
    remedy = "save it in another folder"
    atomic(Path(folder) / FILE, lambda path: save_file(tensors, path, metadata=header), remedy=remedy)


def _tensors(found: Inverted) -> dict[str, Tensor]:
    blank = torch.full(found.passes.shape, math.nan)
    names = dict.fromkeys(name for _, terms in found.history for name in terms)
    return {
        "reconstructions": found.reconstructions,
        **({} if found.photos is None else {"photos": found.photos}),
        "passes": found.passes,
        "converged": found.converged,
        **{f"codes.{k}": code for k, code in enumerate(found.codes)},
        **{f"targets.{k}": code for k, code in enumerate(found.targets)},
        **{f"metrics.{name}": values for name, values in found.metrics.items()},
        "history.pass": torch.tensor([at for at, _ in found.history]),
        **{f"history.{n}": torch.stack([terms.get(n, blank) for _, terms in found.history]) for n in names},
    }
