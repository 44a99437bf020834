"""Make a part by the name of its preset: a representation, an objective, a prior or a descent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from invrep.errors import InvrepError, nearest
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.representations.vocabularies.vocabulary import Vocabulary
from invrep.validation import check_kind

# group → an example of a preset, and the values accepted in a preset's place
PARTS = {
    "objective": ("match", "what makes an Objective from a code: a class, a partial of one, or a function"),
    "prior": ("natural", "a Prior"),
    "optim": ("adam", "a Descent"),
}


def representation(name: str, *, layer: Any = None, seed: int = 0, **options: Any) -> Representation:
    """Return a representation by the name of its config, as a module on images (B, C, H, W) in [0, 1].

    Args:
        name: name of a file in ``conf/rep``: ``hog``, ``hogb``, ``dsift``, ``alexnet``, ``vgg16``, …
        layer: layer of a network, as an alias such as ``relu5`` or ``conv1_1`` or as a module's path; several layers
            as a list, or as a dictionary with their weights. None: the network's output, or a representation without
            layers.
        seed: seed of ``weights="random"``.
        options: values for further keys of that config, for example ``weights`` or ``cell``. A ``descriptor`` is the
            name of another representation, a :class:`Representation`, or a dictionary of keys of the preset's.

    Returns:
        Φ on the CPU, in float32: images (B, C, H, W) → codes, a list with one tensor (B, …) for each layer.

    Raises:
        InvrepError: the name, layer, option or weights file does not exist, or weights cannot be downloaded.

    Example:
        >>> phi = invrep.representation("vgg16", layer="relu5", weights="random")
        >>> [code.shape for code in phi(torch.rand(1, 3, 224, 224))]
        [torch.Size([1, 512, 14, 14])]
    """
    node, objects = configured(name, layer=layer, seed=seed, options=options)
    made: Representation = build(node, **objects)
    return made


def configured(name: str, *, layer: Any, seed: int, options: Mapping[str, Any]) -> tuple[DictConfig, dict[str, Any]]:
    """Return the config of a representation with its options set, and those options that are finished objects.

    Args:
        name: name of a file in ``conf/rep``.
        layer: layer of a network.
        seed: seed of random weights.
        options: values for further keys, see :func:`representation`.

    Raises:
        InvrepError: the name or an option does not exist.
    """
    config = preset("rep", name)
    given = options.get("descriptor") if "descriptor" in config else None
    objects: dict[str, Any] = {}
    if given is not None:
        options = {key: value for key, value in options.items() if key != "descriptor"}
        if isinstance(given, str):
            config.descriptor = preset("rep", given)
        elif isinstance(given, Mapping):
            _override(config.descriptor, f"the descriptor of {name!r}", given)
        else:
            check_kind("descriptor", given, isinstance(given, Representation), "a name or a Representation")
            objects["descriptor"] = given
    if isinstance(options.get("vocabulary"), Vocabulary):
        objects["vocabulary"] = options["vocabulary"]
        options = {key: value for key, value in options.items() if key != "vocabulary"}
    _override(config, f"representation {name!r}", options)
    whole = OmegaConf.create({"rep": config, "layer": layer, "seed": seed})
    return whole.rep, objects


def part(group: str, given: Any, options: Mapping[str, Any]) -> Any:
    """Return a prior, descent or objective from a preset's name, a config or the part itself.

    Args:
        group: ``objective``, ``prior`` or ``optim``.
        given: name of a preset, config of one, or the part.
        options: values for keys of the preset's config.

    Raises:
        InvrepError: ``given`` is none of these, an option does not exist, or options come with a finished part.
    """
    example, own = PARTS[group]
    wanted = f"a preset's name such as {example!r}, a config of one, or {own}"
    if isinstance(given, str | Mapping):
        config = preset(group, given) if isinstance(given, str) else OmegaConf.create(dict(given))
        _override(config, f"{group}={given}", options)
        made = build(config)
    else:
        made = given
    kind = getattr(made, "func", made)  # the class or function of a partial
    if group != "objective":
        good = isinstance(made, Prior if group == "prior" else Descent)
    elif isinstance(kind, type):
        good = issubclass(kind, Objective)
    else:
        good = callable(kind) and not isinstance(kind, nn.Module)
    check_kind(group, made, good, wanted)
    if made is given and options:
        raise InvrepError("steps is for a preset's name; a Descent has its own.")
    return made


def _override(config: DictConfig, owner: str, options: Mapping[str, Any]) -> None:
    keys = list(map(str, config))  # OmegaConf's "in" is False for a mandatory key without a value
    for key, value in options.items():
        if key not in keys:
            raise InvrepError(f"{owner} has no option {key!r}; {nearest(key, [k for k in keys if k[0] != '_'])}.")
        config[key] = os.fspath(value) if isinstance(value, os.PathLike) else value
    if missing := [key for key in keys if OmegaConf.is_missing(config, key)]:
        raise InvrepError(f"{owner} needs {' and '.join(missing)}; give {', '.join(f'{key}=…' for key in missing)}.")
