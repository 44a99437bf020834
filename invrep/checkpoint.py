"""A long inversion's state on disk, to go on from after its process has been killed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from invrep.files import atomic

log = logging.getLogger(__name__)


class Checkpoint(pl.Callback):
    """Writes a Lightning checkpoint of an inversion after every so many passes, at the end of the segment.

    There is one file for each stage of the recipe, whole or not at all. Its name is made from the rows, so that other
    photos or restarts never go on from it; the folder is that of one job's results, which is named by the rest of what
    a result depends on.

    Args:
        folder: where the files lie.
        every: passes between two of them.
        rows: of each row of the image tensor the photo's index, its id and the restart.
        photos: (n, C, H, W), whose values count.
        segment: passes between two points of the curve.
    """

    def __init__(
        self, folder: Path, every: int, rows: Sequence[tuple[int, str, int]], photos: Tensor, segment: int
    ) -> None:
        super().__init__()
        name = hashlib.sha256(json.dumps([list(rows), list(photos.shape), segment]).encode(errors="surrogateescape"))
        name.update(photos.contiguous().numpy().tobytes())
        self.name = name.hexdigest()[:16]
        self.folder, self.every = folder, every
        self.stage = 0
        self._last = 0

    @property
    def path(self) -> Path:
        """The file of the present stage."""
        return self.folder / f"{self.name}.{self.stage}.ckpt"

    def reached(self) -> int:
        """Return the latest stage of which there is a file; 0 where there is none. What is damaged is removed."""
        found = {int(path.suffixes[-2][1:]): path for path in self.folder.glob(f"{self.name}.*.ckpt")}
        for stage in sorted(found, reverse=True):
            try:
                torch.load(found[stage], map_location="cpu", weights_only=True)["inversion"]
                return stage
            except (RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError):
                log.warning("The checkpoint %s is damaged; its images go on from an earlier one or anew.", found[stage])
                found[stage].unlink()
        return 0

    def remove(self) -> None:
        """Remove the files, once what they were kept for is finished."""
        for path in self.folder.glob(f"{self.name}.*.ckpt"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count from where the stage begins or goes on."""
        self._last = pl_module.passes

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write the state where it is time to."""
        if pl_module.passes - self._last >= self.every and pl_module.passes < pl_module.steps:
            self._last = pl_module.passes
            atomic(self.path, trainer.save_checkpoint)
