"""What the jobs of a multirun leave word of: ``<sweep folder>/jobs/<number>.yaml``, one file for each job."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Multirun(Callback):
    """Hydra's callback that remembers the multirun which this process runs, for :mod:`invrep.sweeps.completion`.

    Attributes:
        config: composed for the whole multirun, with its ``hydra`` node; None where there is none.
    """

    config: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remember it; nothing else in this process is told."""
        Multirun.config = config
