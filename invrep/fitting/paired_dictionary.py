"""Read and write paired dictionaries: atoms of a code's windows, each with the grey patch under it (HOGgle)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from invrep.errors import InvrepError
from invrep.fitting.positions import Grid, grid_of
from invrep.representations.base import Representation
from invrep.representations.vocabularies.tensor_files import write
from invrep.stable_names import stable_name

VERSION = 1  # of the file's layout
KEY = "invrep.paired_dictionary"  # of the file's metadata
HALVES = ("codes", "patches")
MARGIN = 2  # cells by which a patch exceeds its window
FIT = "fit one by invrep vocabulary baseline=hoggle rep=NAME data.path=photos/ output=FILE.safetensors"


@dataclass(frozen=True)
class PairedDictionary:
    """Hold K atoms, each a window of a code with the grey patch under it.

    Attributes:
        codes: windows of D channels × n × n positions, (K, D·n²) float32, channel by channel.
        patches: patches, (K, p, p) float32, of zero mean; p pixels of a patch span the window and a cell beyond each
            side.
        settings: plain values. ``descriptor`` is the code's description
            (:func:`~invrep.representations.vocabularies.descriptors.describe`), ``window`` is n, ``stride`` the
            distance of the code's positions in pixels, and ``weight`` λ of the fit's lasso. Others are a record.
    """

    codes: Float[Tensor, "atom value"]
    patches: Float[Tensor, "atom row column"]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def window(self) -> int:
        """Return n, the side of a window in positions of the code."""
        return int(self.settings["window"])

    @property
    def side(self) -> int:
        """Return the side of a patch in pixels of the image."""
        return patch_side(self.window, int(self.settings["stride"]))

    @cached_property
    def id(self) -> str:
        """Return twelve hexadecimal digits that name the content, not the file."""
        digest = hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode())
        for half in (self.codes, self.patches):
            digest.update(half.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def patch_side(window: int, stride: int) -> int:
    """Return the side in pixels of the patch under a window of n × n positions."""
    return (window + MARGIN) * stride


def patch_offset(grid: Grid, window: int) -> int:
    """Return the first pixel, in either direction, of the patch under the window of the positions 0 to n − 1."""
    centre = grid.centre + (window - 1) / 2 * grid.stride
    return math.floor(centre - patch_side(window, grid.stride) / 2)


def windowed(phi: Representation, code: Sequence[Tensor], size: Sequence[int]) -> Grid:
    """Return the grid of a code, whose windows a paired dictionary codes.

    Args:
        phi: representation Φ.
        code: code, a list of (B, …).
        size: height and width of the images in pixels.

    Raises:
        InvrepError: the code has several parts, or no regular grid of positions.
    """
    if (grid := grid_of(phi, code, size)) is None:
        name = getattr(phi, "name", None) or stable_name(type(phi)) or type(phi).__name__
        raise InvrepError(
            f"baseline=hoggle needs a code of channels on one grid of positions, which rep={name} has not; take HOG, "
            f"dense SIFT or a convolutional layer."
        )
    return grid


def save(dictionary: PairedDictionary, path: str | os.PathLike[str]) -> None:
    """Write a paired dictionary to a .safetensors file, whole or not at all, each half of an atom in 8 bits.

    Raises:
        InvrepError: the file cannot be written.
    """
    tensors = {}
    for name in HALVES:
        values = getattr(dictionary, name)
        scale = (values.abs().flatten(1).amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        tensors[name] = (values / scale.reshape(-1, *[1] * (values.ndim - 1))).round().to(torch.int8)
        tensors[f"{name}_scale"] = scale
    about = {KEY: json.dumps({"version": VERSION, "settings": dict(dictionary.settings)}, sort_keys=True)}
    write(tensors, path, about)


def load(path: str | os.PathLike[str]) -> PairedDictionary:
    """Read a paired dictionary from a file of :func:`save`.

    Raises:
        InvrepError: there is no such file, it is cut short, or it is no paired dictionary.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvrepError(f"There is no paired dictionary {str(path)!r}; {FIT}.")
    try:
        with safe_open(file, framework="pt") as opened:
            about = (opened.metadata() or {}).get(KEY)
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError):
        raise InvrepError(f"The paired dictionary {str(path)!r} is cut short or damaged; {FIT}.") from None
    if about is None:
        raise InvrepError(f"{str(path)!r} is no paired dictionary of invrep; {FIT}.")
    known = json.loads(about)
    if known["version"] != VERSION:
        raise InvrepError(
            f"The paired dictionary {str(path)!r} has the layout {known['version']}, and this invrep reads {VERSION}; "
            f"{FIT}."
        )
    codes, patches = (
        found[name].float() * found[f"{name}_scale"].reshape(-1, *[1] * (found[name].ndim - 1)) for name in HALVES
    )
    return PairedDictionary(codes, patches, known["settings"])
