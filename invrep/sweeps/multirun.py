"""Remember the multirun that this process runs, and say how many jobs it has."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from invrep.jobs.ranks import launched
from invrep.results.sweep_journal import announce

SWEEPER, LAUNCHER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "hydra._internal.core_plugins"


class Multirun(Callback):
    """Remember the multirun of this process for :mod:`invrep.sweeps.completion`, as a callback of Hydra.

    Attributes:
        config: config of the whole multirun, with its ``hydra`` node; None outside a multirun.
    """

    config: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Store the config; Hydra hands it to callbacks only."""
        Multirun.config = config
        # each job prints its number itself; a launcher of jobs elsewhere keeps its lines, unless quiet=true
        level = logging.WARNING if config.quiet is True else logging.NOTSET
        for name in ("hydra", "hydra_plugins"):
            logging.getLogger(name).setLevel(level)
        logging.getLogger(f"{LAUNCHER}.basic_launcher").setLevel(logging.WARNING)
        if "layout" not in config:  # an experiment's callback may still change the sweep
            count_jobs(config)


def count_jobs(config: DictConfig) -> None:
    """Write the number of a multirun's jobs for the jobs to read, where it is known.

    Args:
        config: config of the whole multirun, with its ``hydra`` node.
    """
    rank = launched()
    if rank is not None and rank.index > 0:
        return
    sweeper = config.hydra.sweeper
    given = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    given += config.hydra.overrides.task
    try:
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        values = {override.get_key_element(): override for override in parser.parse_overrides(given)}
        swept = {key: value for key, value in values.items() if value.is_sweep_override()}
        if sweeper._target_ == SWEEPER:
            jobs = math.prod(len(list(override.sweep_string_iterator())) for override in swept.values())
        else:
            jobs = int(sweeper.n_trials)
    except (HydraException, ValueError, AttributeError):  # Hydra tells the user what is wrong with an override
        return
    announce(Path(config.hydra.sweep.dir), jobs, sorted(key.lstrip("+") for key in swept))
