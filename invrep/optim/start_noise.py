"""Make random generators that depend on the image, not on its place in a batch."""

from __future__ import annotations

import hashlib

import torch


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
