"""Fit the vocabulary of a code to photos."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from invrep.api.parts import configured
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.fitting.codes import needs_of
from invrep.fitting.fit import WORDS, Recipe, Tell, fit, quiet
from invrep.fitting.gathering import Source
from invrep.presets import build
from invrep.representations.base import Representation
from invrep.representations.vocabularies.vocabulary import SUFFIX, Vocabulary
from invrep.validation import check_kind, choice, number


def fit_vocabulary(
    photos: str | os.PathLike[str],
    rep: str = "fisher",
    *,
    output: str | os.PathLike[str],
    words: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    color: str | None = None,
    resize: str | None = None,
    layer: Any = None,
    **options: Any,
) -> Vocabulary:
    """Fit the vocabulary of a code to photos, as ``invrep vocabulary`` does, and write it to a file.

    Args:
        photos: folder, pattern, .txt, .csv or .tar of photos, as ``data.path``.
        rep: name of the code: ``bovw``, ``textons``, ``vlad``, ``fisher``, ``sparse`` or ``llc``.
        output: .safetensors file to write, which must not exist.
        words: number of words, Gaussians or atoms, 16 to 4096; None: the code's usual number.
        seed: seed of the sample and of the fit.
        limit: greatest number of photos; None for all.
        color: ``rgb`` or ``gray``; None: as the descriptor has it.
        resize: ``model``, ``squash`` or ``none``; None: the network's published size where there is one.
        layer: layer of a network that is the descriptor.
        options: values for further keys of the code's config, for example ``descriptor`` or ``projection``.

    Returns:
        The vocabulary, which ``invrep.representation(rep, vocabulary=…)`` takes.

    Raises:
        InvrepError: scikit-learn is not installed, a setting is wrong, no photo can be used, or there are fewer
            descriptors than words.

    Example:
        >>> words = invrep.fit_vocabulary("photos/", "fisher", words=64, output="words.safetensors")
        >>> phi = invrep.representation("fisher", vocabulary=words)
    """
    needs_of(rep)
    node, objects = configured(rep, layer=layer, seed=seed, options={**options, "words": words})
    data = {"path": os.fspath(photos), "limit": limit, "color": color, "resize": resize}
    fitted, left_out = fit_config(node, rep, data, output, seed, descriptor=objects.get("descriptor"))
    if left_out:
        warnings.warn(f"Left out: {' '.join(left_out.values())}", stacklevel=2)
    return fitted


def fit_config(
    rep: DictConfig,
    name: str,
    data: Mapping[str, Any],
    output: object,
    seed: object,
    tell: Tell = quiet,
    descriptor: Any = None,
) -> tuple[Vocabulary, dict[str, str]]:
    """Fit the vocabulary of a code from its config; see :func:`fit_vocabulary`.

    Args:
        rep: config of the code, with its ``descriptor``.
        name: name of its preset.
        data: values of the group ``data``.
        output: file to write.
        seed: seed of the sample and of the fit.
        tell: function of what is counted, how many are done, and how many there are.
        descriptor: representation with positions; None: that of the config.

    Returns:
        The vocabulary, and the reason for each photo that is left out, by the photo's id.

    Raises:
        InvrepError: a setting is wrong, or the fit fails.
    """
    path = writable(output)
    needs = needs_of(name)
    low, high = WORDS
    words = number("rep.words", needs.words if rep.words is None else rep.words, minimum=low, maximum=high, whole=True)
    if (size := rep.projection) is not None:
        size = number("rep.projection", size, minimum=0, whole=True, word="null")
    seed = number("seed", seed, minimum=0, maximum=2**32 - 1, whole=True)
    if "limit" not in data:
        raise InvrepError("A vocabulary is fitted to photos; leave data=none out, and give data.path=photos/.")
    limit = None if data["limit"] is None else number("data.limit", data["limit"], minimum=1, whole=True)
    photos = find(str(data["path"]), limit, root=data.get("root"), split=data.get("split"))
    phi = build(rep.descriptor) if descriptor is None else descriptor
    check_kind("rep.descriptor", phi, isinstance(phi, Representation), "a Representation")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    color = choice("data.color", data["color"] or phi.color, ("rgb", "gray"))
    if (3 if color == "rgb" else 1) not in phi.channels:
        raise InvrepError(f"data.color={color} does not fit the descriptor, which takes the other; leave it out.")
    resize = choice("data.resize", data["resize"] or "model", ("model", "squash", "none"))
    values = data.get("range") and tuple(data["range"])
    source = Source(photos, phi.private(device), bool(rep.unit), color, resize, values)
    weight = rep.get("weight") or Recipe.weight
    return fit(source, Recipe(needs.kind, words, size, needs.projection, weight, seed), path, tell)


def writable(output: object) -> Path:
    """Return the path of the output.

    Raises:
        InvrepError: it is no name of a .safetensors file, or something is there already.
    """
    path = Path(os.fspath(output) if isinstance(output, str | os.PathLike) else str(output)).expanduser()
    if path.is_dir():
        raise InvrepError(f"output={path} is a folder; expected a file, such as output={path / ('words' + SUFFIX)}.")
    if path.suffix != SUFFIX:
        raise InvrepError(f"output={path} has another suffix; expected a file, such as output={path.stem}{SUFFIX}.")
    if path.exists():
        raise InvrepError(f"output={path} exists already; remove it, or choose another file.")
    return path
