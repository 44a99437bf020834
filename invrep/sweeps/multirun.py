"""Remember the multirun that this process runs."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Multirun(Callback):
    """Remember the multirun of this process for :mod:`invrep.sweeps.completion`, as a callback of Hydra.

    Attributes:
        config: config of the whole multirun, with its ``hydra`` node; None outside a multirun.
    """

    config: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Store the config; Hydra hands it to callbacks only."""
        Multirun.config = config
