"""Write curves and pictures to a logger: what every logger is asked for, and any logger of Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from invrep.messages import printable
from invrep.tracking.live_grid import Picture
from invrep.tracking.progress import worded

GRID = "grid"  # key of all pictures
SAID = 128  # rows whose photos the final caption names; the picture has no more
CURVES = ("error", "activation", "energy", "data")  # every other curve is the term of a prior


@dataclass(frozen=True)
class Ending:
    """Hold what a logger gets at the end of a job.

    Attributes:
        rows: first rows of ``metrics.csv``.
        means: means of the columns of ``metrics.csv`` and ``spread.csv``, by name.
        counts: number of ``photos`` and of ``pre_images``.
        grid: path of the final picture.
        failed: bool; True: the job failed.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    means: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    grid: Path | None = None
    failed: bool = False

    @property
    def pictured(self) -> Path | None:
        """Return the path of the final picture if it is of these results."""
        return self.grid if self.rows and self.grid is not None and self.grid.exists() else None

    def caption(self, title: str) -> str:
        """Return the final picture's caption.

        Args:
            title: name of representation and layer.
        """
        shows = "activation" if "activation" in self.means else "error"
        value = f", mean {shows} {worded(shows, self.means[shows])}" if shows in self.means else ""
        return f"{title}, end{value} | {', '.join(dict.fromkeys(printable(row['image']) for row in self.rows[:SAID]))}"


class Destination(Protocol):
    """Receive a job's curves and pictures, in the order of the passes."""

    pictures: bool  # False: the destination takes no pictures

    def write(self, at: int, values: Mapping[str, float], picture: Picture | None = None) -> None:
        """Write the values of a pass, by name, and a picture."""

    def close(self, ending: Ending, at: int, title: str) -> str | None:
        """Write the end of a job, and return a URL or a command that shows it."""


class LightningDestination:
    """Write to a logger of Lightning, or of the user.

    Args:
        config: config of the logger (``_target_`` and its arguments).
        folder: output folder of the job.
        hyperparameters: config of the job.
    """

    def __init__(self, config: DictConfig, folder: Path, hyperparameters: Mapping[str, Any]) -> None:
        target = str(config["_target_"])
        told = {"save_dir": folder, "name": "", "version": target.rpartition(".")[2]}
        takes = inspect.signature(get_class(target)).parameters
        self.logger = instantiate(config, **{key: value for key, value in told.items() if key in takes})
        self.folder = folder
        log_image = getattr(self.logger, "log_image", None)  # Lightning's name for it
        self.pictures = isinstance(self.logger, TensorBoardLogger) or log_image is not None
        taken = {} if log_image is None else inspect.signature(log_image).parameters
        self._captions = "caption" in taken or any(part.kind == part.VAR_KEYWORD for part in taken.values())
        self.logger.log_hyperparams(dict(hyperparameters))

    def write(self, at: int, values: Mapping[str, float], picture: Picture | None = None) -> None:
        """Write the values of a pass, by name, and a picture."""
        if values:
            self.logger.log_metrics(dict(values), step=at)
        if picture is None or not self.pictures:
            return
        if isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image(GRID, np.asarray(picture.image.convert("RGB")), at, dataformats="HWC")
        else:
            captions = {"caption": [picture.caption]} if self._captions else {}
            self.logger.log_image(GRID, [picture.image], step=at, **captions)

    def close(self, ending: Ending, at: int, title: str) -> str | None:
        """Write the final picture, and return a command that shows the job in TensorBoard."""
        if self.pictures and (path := ending.pictured) is not None:
            with Image.open(path) as image:
                self.write(at, {}, Picture(image, ending.caption(title)))
        self.logger.finalize("failed" if ending.failed else "success")
        return f"tensorboard --logdir {self.folder}" if isinstance(self.logger, TensorBoardLogger) else None
