"""Reading the config: what each value may be, presets by name, and what a result depends on."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from invrep.data import MOST_RESTARTS
from invrep.errors import InvrepError, choice, nearest, number, words

PACKAGE = Path(__file__).parent
# beside the package in a clone, inside it in an installed wheel
FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def preset(group: str, name: str) -> DictConfig:
    """Return a preset of a config group, such as ``preset("prior", "cvpr15")``, with its defaults merged in.

    Raises:
        InvrepError: the group has no such preset; the message names the nearest.
    """
    path = FOLDER / group / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in (FOLDER / group).glob("*.yaml"))
        raise InvrepError(f"There is no {group} {name!r}; {nearest(name, names)}.")
    own = OmegaConf.load(path)
    merged = OmegaConf.create({})
    for parent in own.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":  # what is overridden in another group is no part of it
            merged = OmegaConf.merge(merged, preset(group, parent))
    return OmegaConf.merge(merged, own)


def find_here() -> None:
    """Let the working folder's modules be imported; an installed package of the same name comes first."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()


def build(config: DictConfig | Mapping[str, Any], **kwargs: Any) -> Any:
    """Instantiate a config node by its ``_target_``; a user's mistake inside comes out as it is.

    A ``_target_`` may be a class in a file of the working folder.

    Raises:
        InvrepError: an argument is wrong or unknown.
    """
    find_here()
    try:
        return instantiate(config, _convert_="object", **kwargs)
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InvrepError):
            cause = cause.__cause__
        if isinstance(cause, InvrepError):
            raise cause from None
        raise InvrepError(f"The config's {dict(config).get('_target_')} cannot be built: {words(cause)}") from error


# whole numbers, and the word that each may be instead
WHOLE = {"restarts": None, "log_every": None, "images_every": None, "seed": None}
WHOLE |= {"data.batch_size": "auto", "data.limit": "null", "checkpoint.every": "null"}


def check(config: DictConfig) -> None:
    """Check the values that no part of the program checks for itself; a whole number becomes an int (2.0 is 2).

    Raises:
        InvrepError: the first that is wrong, with what was expected.
    """
    missing = OmegaConf.missing_keys(config)
    if missing:
        names, verb = sorted(missing), "is" if len(missing) == 1 else "are"
        given = " ".join(f"{name}=VALUE" for name in names)
        raise InvrepError(f"{' and '.join(names)} {verb} missing; give {given}.")
    for key, word in WHOLE.items():
        value = OmegaConf.select(config, key)
        if word is None or value not in (None, word):
            least, most = {"seed": (0, 2**63 - 1), "restarts": (1, MOST_RESTARTS)}.get(key, (1, None))
            OmegaConf.update(config, key, number(key, value, minimum=least, maximum=most, whole=True, word=word))
    if "path" in config.data:  # data=none has none
        check_range(config.data.get("range"))
        choice("data.resize", config.data.resize or "none", ("model", "squash", "none"))
    build(config.compute)
    if config.dtype != "float32" and config.compute.precision != "float32":
        raise InvrepError(f"compute.precision={config.compute.precision} goes with dtype=float32, not {config.dtype}.")
    choice("dtype", config.dtype, ("float32", "float64"))
    choice("display", config.display, ("rescale", "clip"))
    choice("data.color", config.data.color or "rgb", ("rgb", "gray"))
    for key in ("dry_run", "save_codes"):
        if not isinstance(config[key], bool):
            raise InvrepError(f"{key}={config[key]} is not valid: expected true or false.")
    for key in ("data.path", "output", "name") if "path" in config.data else ("output", "name"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, str) or not value:
            raise InvrepError(f"{key}={value} is not valid: expected text; give it as \"{key}='NAME'\".")
    if config.layer is not None and "layer" not in config.rep:
        raise InvrepError(f"rep={config.name} is one code and has no layers; leave layer={config.layer} out.")
    _check_rate(config.optim)


def _check_rate(optim: DictConfig) -> None:
    """Refuse a learning rate that was given although the schedule has its own.

    Raises:
        InvrepError: so it was.
    """
    staged = optim.schedule == "auto" or OmegaConf.is_list(optim.schedule)
    choice = HydraConfig.get().runtime.choices.get("optim") if HydraConfig.initialized() else None
    if not staged or choice is None or not (FOLDER / "optim" / f"{choice}.yaml").is_file():
        return
    usual = preset("optim", choice)
    if not OmegaConf.is_missing(usual, "lr") and optim.lr != usual.lr:
        raise InvrepError(
            f"optim.lr={optim.lr} has no effect: optim.schedule={optim.schedule} has its own rates; give them as "
            f"'optim.schedule=[[RATE,PASSES],…]', or add optim.schedule=constant and optim.steps."
        )


def check_range(given: Any) -> None:
    """Check ``data.range``.

    Raises:
        InvrepError: it is neither null nor two numbers, the lower first.
    """
    good = given is None or ((OmegaConf.is_list(given) or isinstance(given, list | tuple)) and len(given) == 2)
    if good and given is not None:
        low, high = (number("data.range", value) for value in given)
        good = low < high
    if not good:
        raise InvrepError(f"data.range={given} is not valid: expected [LOW,HIGH], the values of black and white.")


NAMED_BY = {"torchvision": "model", "timm": "model", "module": "target", "matconvnet": "weights"}


def name_of(config: DictConfig) -> str:
    """Return what a job is called, in its folder's name and above its pictures.

    That is ``name``, by default the preset of ``rep``; of a preset that stands for many networks, the network.
    """
    key = NAMED_BY.get(config.name)
    network = key and config.rep.get(key)
    if not isinstance(network, str):
        return config.name
    if config.name == "matconvnet":
        return Path(network).stem
    return network.rpartition("." if config.name == "module" else "/")[2]


def layer_name(layer: Any) -> str | None:
    """Return what a layer is called, or several, ``relu2 + relu3``; None for none."""
    if isinstance(layer, Mapping | list | ListConfig):
        return " + ".join(map(str, layer))
    return None if layer is None else str(layer)


def result_name(config: DictConfig, weights: str | None, codes: Sequence[str] = ()) -> str:
    """Return the name of the job's folder, ``<rep>-<layer>-<hash>``.

    The hash is over what changes a result, so that the same command finds its folder again and another one never
    writes into it. Photos, restarts and everything that only changes how a job runs or is shown stay out.

    Args:
        config: the composed config.
        weights: what identifies the weights; None for a representation without.
        codes: what identifies the files in ``objective.path``.
    """

    def plain(value: Any) -> Any:
        """Return a value with each whole number as an int, so that 2 and 2.0 are one job."""
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    keys = ("rep", "layer", "objective", "prior", "optim", "seed", "dtype")
    content = {
        key: OmegaConf.to_container(config[key], resolve=True) if OmegaConf.is_config(config[key]) else config[key]
        for key in keys
    }
    data = OmegaConf.to_container(config.data, resolve=True)
    content["data"] = {key: data[key] for key in ("path", "root", "split", "resize", "size", "color") if key in data}
    if data.get("range") is not None:
        content["data"]["range"] = data["range"]
    if config.compute.precision != "float32":
        content["precision"] = config.compute.precision
    if weights is not None:
        content["rep"]["weights"] = weights
    if codes:
        content["objective"]["path"] = list(codes)
    digest = hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode(errors="surrogateescape")).hexdigest()[:8]
    parts = [config.name, layer_name(config.layer), digest]
    return "-".join(re.sub(r"[^\w.+]+", "_", part.replace(" + ", "+"))[:60] for part in parts if part)
