"""Check the values of a job's config."""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from invrep.data.batching import MOST_RESTARTS
from invrep.errors import InvrepError
from invrep.presets import FOLDER, build, preset
from invrep.validation import choice, number

# keys of whole numbers, and the word accepted instead of a number
WHOLE: dict[str, str | None] = {"restarts": None, "log_every": None, "images_every": "null", "seed": None}
WHOLE |= {"data.batch_size": "auto", "data.limit": "null", "checkpoint.every": "null"}


def check(config: DictConfig) -> None:
    """Check the values that no part of the program checks itself; whole numbers become int in place (2.0 → 2).

    Args:
        config: composed config of a job.

    Raises:
        InvrepError: a value is missing or wrong; the message names the first one and what was expected.
    """
    missing = OmegaConf.missing_keys(config)
    if missing:
        names, verb = sorted(missing), "is" if len(missing) == 1 else "are"
        given = " ".join(f"{name}=VALUE" for name in names)
        raise InvrepError(f"{' and '.join(names)} {verb} missing; give {given}.")
    if config.layer is not None and "layer" not in config.rep and "layer" not in (config.rep.get("descriptor") or {}):
        raise InvrepError(f"rep={config.name} is one code and has no layers; leave layer={config.layer} out.")
    for key, word in WHOLE.items():
        value = OmegaConf.select(config, key)
        if word is None or value not in (None, word):
            least, most = {"seed": (0, 2**63 - 1), "restarts": (1, MOST_RESTARTS)}.get(key, (1, None))
            OmegaConf.update(config, key, number(key, value, minimum=least, maximum=most, whole=True, word=word))
    if "path" in config.data:  # data=none has no path
        check_range(config.data.get("range"))
        choice("data.resize", config.data.resize or "none", ("model", "squash", "none"))
    if config.dtype != "float32" and config.compute.precision != "float32":
        raise InvrepError(f"compute.precision={config.compute.precision} goes with dtype=float32, not {config.dtype}.")
    choice("dtype", config.dtype, ("float32", "float64"))
    choice("display", config.display or "clip", ("rescale", "clip"))
    choice("data.color", config.data.color or "rgb", ("rgb", "gray"))
    for key in ("dry_run", "quiet", "save_codes"):
        if not isinstance(config[key], bool):
            raise InvrepError(f"{key}={config[key]} is not valid: expected true or false.")
    for key in ("data.path", "output", "name") if "path" in config.data else ("output", "name"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, str) or not value:
            raise InvrepError(f"{key}={value} is not valid: expected text; give it as \"{key}='NAME'\".")
    _check_rate(config.optim)
    build(config.compute)  # last, since it imports torch


def _check_rate(optim: DictConfig) -> None:
    """Check that no learning rate is given where the schedule has its own rates.

    Raises:
        InvrepError: ``optim.lr`` differs from its preset although the schedule ignores it.
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
    """Check ``data.range``, the values of black and white.

    Raises:
        InvrepError: ``given`` is neither None nor two numbers, the lower first.
    """
    good = given is None or ((OmegaConf.is_list(given) or isinstance(given, list | tuple)) and len(given) == 2)
    if good and given is not None:
        low, high = (number("data.range", value) for value in given)
        good = low < high
    if not good:
        raise InvrepError(f"data.range={given} is not valid: expected [LOW,HIGH], the values of black and white.")
