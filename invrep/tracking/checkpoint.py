"""A long inversion's state on disk, to resume from after its process has ended."""

from __future__ import annotations

import copy
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

from invrep.results.atomic_files import atomic

log = logging.getLogger(__name__)


class Checkpoint(pl.Callback):
    """Writes a Lightning checkpoint of an inversion after every so many passes, at the end of the segment.

    Where a signal ends the process it writes the state of the last segment's end.

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
        self._state: tuple[dict[str, Any], ...] | None = None  # the latest that is not in a file

    @property
    def path(self) -> Path:
        """The file of the present stage."""
        return self.folder / f"{self.name}.{self.stage}.ckpt"

    def reached(self) -> int:
        """Return the latest stage of which there is a file; 0 where there is none. What is damaged is removed."""
        stages = {int(path.suffixes[-2][1:]): path for path in self.folder.glob(f"{self.name}.*.ckpt")}
        for stage in sorted(stages, reverse=True):
            try:
                torch.load(stages[stage], map_location="cpu", weights_only=True)["inversion"]
                return stage
            except (RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError):
                log.warning(
                    "The checkpoint %s is damaged; its images go on from an earlier one or anew.", stages[stage]
                )
                stages[stage].unlink()
        return 0

    def remove(self) -> None:
        """Remove the files, once what they were kept for is finished."""
        for path in self.folder.glob(f"{self.name}.*.ckpt"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count from where the stage begins or resumes."""
        self._last = pl_module.passes
        self._state = _state(trainer, pl_module) if self.stage and not self.path.exists() else None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write the state where it is time to, else remember it."""
        if pl_module.passes >= pl_module.steps:
            return
        if pl_module.passes - self._last >= self.every:
            self._last, self._state = pl_module.passes, None
            atomic(self.path, trainer.save_checkpoint)
        else:
            self._state = _state(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write the last segment's state where a signal ends the process, in the middle of a pass."""
        if self._state is None or not isinstance(exception, KeyboardInterrupt | SystemExit):
            return
        module, optimiser, kept = self._state
        pl_module.load_state_dict(module)
        trainer.optimizers[0].load_state_dict(optimiser)
        pl_module.on_load_checkpoint({"inversion": kept})
        atomic(self.path, trainer.save_checkpoint)


def _state(trainer: pl.Trainer, inversion: Any) -> tuple[dict[str, Any], ...]:
    """Return a copy of what a checkpoint holds of the module and its optimiser."""
    checkpoint: dict[str, Any] = {"loops": None}
    inversion.on_save_checkpoint(checkpoint)
    return (
        copy.deepcopy(inversion.state_dict()),
        copy.deepcopy(trainer.optimizers[0].state_dict()),
        {  # a curve grows, but its points do not change
            name: list(value) if isinstance(value, list) else copy.deepcopy(value)
            for name, value in checkpoint["inversion"].items()
        },
    )
