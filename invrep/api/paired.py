"""Fit a paired dictionary, for the baseline HOGgle, to photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from invrep.api.vocabularies import writable
from invrep.data.batching import ahead
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.fitting.extra import scikit_learn
from invrep.fitting.fit import Tell, quiet
from invrep.fitting.gathering import AHEAD, Source
from invrep.fitting.paired_dictionary import PairedDictionary, save
from invrep.fitting.paired_windows import fit_pairs
from invrep.presets import build
from invrep.representations.base import Representation
from invrep.validation import check_kind, choice, number


def fit_paired(
    rep: DictConfig, data: Mapping[str, Any], output: object, seed: object, tell: Tell = quiet
) -> tuple[PairedDictionary, dict[str, str]]:
    """Fit a paired dictionary of a representation to photos from its config, and write it.

    Args:
        rep: config of the representation.
        data: values of the group ``data``.
        output: .safetensors file to write, which must not exist.
        seed: seed of the sample and of the fit.
        tell: function of what is counted, how many are done, and how many there are.

    Returns:
        The paired dictionary, and the reason for each photo that is left out, by the photo's id.

    Raises:
        InvrepError: scikit-learn is not installed, a setting is wrong, or the photos have too few windows.
    """
    path = writable(output)
    scikit_learn("decomposition")  # before an hour of work
    seed = number("seed", seed, minimum=0, maximum=2**32 - 1, whole=True)
    if "limit" not in data:
        raise InvrepError("A dictionary is fitted to photos; leave data=none out, and give data.path=photos/.")
    limit = None if data["limit"] is None else number("data.limit", data["limit"], minimum=1, whole=True)
    photos = find(str(data["path"]), limit, root=data.get("root"), split=data.get("split"))
    phi = build(rep)
    check_kind("rep", phi, isinstance(phi, Representation), "a Representation")
    phi = phi.private("cuda" if torch.cuda.is_available() else "cpu")
    color = choice("data.color", data["color"] or phi.color, ("rgb", "gray"))
    resize = choice("data.resize", data["resize"] or "model", ("model", "squash", "none"))
    source = Source(photos, phi, False, color, resize, data.get("range") and tuple(data["range"]))
    left_out: dict[str, str] = {}
    fitted = fit_pairs(
        phi, _pixels(source, left_out, tell), seed=seed, tell=lambda done, total: tell("steps", done, total)
    )
    save(fitted, path)
    return fitted, left_out


def _pixels(source: Source, left_out: dict[str, str], tell: Tell) -> Iterator[tuple[str, Tensor]]:
    """Yield the content and the pixels of each readable photo; name the others in ``left_out``."""

    def fetch(place: int) -> tuple[Tensor, str] | InvrepError:
        try:
            return source.pixels(source.photos[place])
        except InvrepError as error:
            return error

    for done, found in enumerate(ahead(fetch, range(len(source.photos)), AHEAD)):
        if isinstance(found, InvrepError):
            left_out[source.photos.ids[done]] = str(found)
        else:
            yield found[1], found[0]
        tell("photos", done + 1, len(source.photos))
