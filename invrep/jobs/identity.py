"""Name a job and its folder: a hash of the settings that its results depend on, and of no module path."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from invrep.messages import layer_name
from invrep.stable_names import stable_name

IDENTITY = 1  # version of the hashed content; increase it when equal content no longer means equal results
PARTS = ("rep", "objective", "prior", "optim")  # groups whose parts change a result
NAMED = (*PARTS, "baseline", "compute")  # groups whose parts have stable names in results
NAMED_BY = {"torchvision": "model", "timm": "model", "module": "target", "matconvnet": "weights"}


def name_of(config: DictConfig) -> str:
    """Return the name of a job, for its folder and above its pictures.

    The name is the config's ``name``, by default the preset of ``rep``. A preset for many networks, such as ``timm``,
    is replaced by the network's own name.
    """
    key = NAMED_BY.get(config.name)
    network = key and config.rep.get(key)
    if not isinstance(network, str):
        return str(config.name)
    if config.name == "matconvnet":
        return Path(network).stem
    return network.rpartition("." if config.name == "module" else "/")[2]


def named(node: Any) -> Any:
    """Return a config with stable names: ``part: NAME`` replaces the ``_target_`` of each of the project's parts.

    The user's own parts keep their ``_target_``.

    Args:
        node: config as plain data, in which every ``_target_`` can be imported.
    """
    if isinstance(node, list | tuple):
        return [named(inner) for inner in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: named(value) for key, value in node.items()}
    name = stable_name(get_object(found["_target_"])) if isinstance(found.get("_target_"), str) else None
    if name is None:
        return found
    return {"part": name} | {key: value for key, value in found.items() if key not in ("_target_", "_partial_")}


def baseline_name(config: DictConfig) -> str | None:
    """Return the name of a job's baseline for its folder, its plan and above its pictures; None without one."""
    if config.baseline is None:
        return None
    part = get_object(config.baseline["_target_"])
    return str(part.__name__)


def result_name(
    config: DictConfig, weights: str | None, codes: Sequence[str] = (), dictionary: str | None = None
) -> str:
    """Return the name of the job's folder, ``<rep>-<layer>-<hash>``.

    The hash covers all settings that change a result. So the same command finds its folder again, and another command
    never writes into it. The number of photos and restarts, and settings of running and display, are left out.

    Args:
        config: composed config, whose parts can be built.
        weights: identifier of the weights; None for a representation without weights.
        codes: identifiers of the files in ``objective.path``.
        dictionary: identifier of the baseline's dictionary; None where it has none.
    """

    def plain(value: Any) -> Any:
        """Return a value with each whole number as an int, so that 2 and 2.0 name the same job."""
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    content: dict[str, Any] = {
        key: OmegaConf.to_container(config[key], resolve=True) if OmegaConf.is_config(config[key]) else config[key]
        for key in (*PARTS, "layer", "seed", "dtype")
    }
    content = named(content) | {"identity": IDENTITY}
    data = cast("dict[str, Any]", OmegaConf.to_container(config.data, resolve=True))
    content["data"] = {key: data[key] for key in ("path", "root", "split", "resize", "size", "color") if key in data}
    if data.get("range") is not None:
        content["data"]["range"] = data["range"]
    if config.compute.precision != "float32":
        content["precision"] = config.compute.precision
    if weights is not None:
        content["rep"]["weights"] = weights  # the content of files, not their names
        content["rep"].pop("vocabulary", None)
        (content["rep"].get("descriptor") or {}).pop("weights", None)
    if codes:
        content["objective"]["path"] = list(codes)
    if config.baseline is not None:
        content["baseline"] = named(OmegaConf.to_container(config.baseline, resolve=True))
        if dictionary is not None:
            content["baseline"]["dictionary"] = dictionary
    digest = hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode(errors="surrogateescape")).hexdigest()[:8]
    parts = [config.name, layer_name(config.layer), baseline_name(config), digest]
    return "-".join(re.sub(r"[^\w.+]+", "_", part.replace(" + ", "+"))[:60] for part in parts if part)
