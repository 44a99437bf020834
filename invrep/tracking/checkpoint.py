"""Save the state of an inversion on disk, so that an interrupted job resumes."""

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
    """Write a Lightning checkpoint of an inversion regularly, at the end of a segment.

    When a signal ends the process, it writes the state at the last segment's end.

    Each stage of the recipe has one file, written whole or not at all. Its name is a hash of rows, photos and segment,
    so that other photos or restarts never resume from it. Everything else that a result depends on is in the name of
    the job's folder.

    Args:
        folder: folder of the files.
        every: number of passes between two checkpoints.
        rows: triple for each row of the image tensor: index of the photo, id, number of the restart.
        photos: tensor (n, C, H, W) in [0, 1].
        segment: most passes between two points of the curve.
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
        self._state: tuple[dict[str, Any], ...] | None = None  # latest state that no file holds

    @property
    def path(self) -> Path:
        """Return the file of the current stage."""
        return self.folder / f"{self.name}.{self.stage}.ckpt"

    def reached(self) -> int:
        """Return the number of the latest stage with a readable file; 0 without one. Damaged files are removed."""
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
        """Remove the files of a finished inversion, and their folder if it is empty."""
        for path in self.folder.glob(f"{self.name}.*.ckpt"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Count passes from the start of the stage, or from its checkpoint."""
        self._last = pl_module.passes
        self._state = _state(trainer, pl_module) if self.stage and not self.path.exists() else None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write a checkpoint if ``every`` passes have gone by; otherwise keep the state in memory."""
        if pl_module.passes >= pl_module.steps:
            return
        if pl_module.passes - self._last >= self.every:
            self._last, self._state = pl_module.passes, None
            atomic(self.path, trainer.save_checkpoint)
        else:
            self._state = _state(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write the state of the last segment's end when a signal interrupts a pass."""
        if self._state is None or not isinstance(exception, KeyboardInterrupt | SystemExit):
            return
        module, optimiser, kept = self._state
        pl_module.load_state_dict(module)
        trainer.optimizers[0].load_state_dict(optimiser)
        pl_module.on_load_checkpoint({"inversion": kept})
        atomic(self.path, trainer.save_checkpoint)


def _state(trainer: pl.Trainer, inversion: Any) -> tuple[dict[str, Any], ...]:
    """Return copies of the module's state, the optimiser's state and the inversion's own entries of a checkpoint."""
    checkpoint: dict[str, Any] = {"loops": None}
    inversion.on_save_checkpoint(checkpoint)
    return (
        copy.deepcopy(inversion.state_dict()),
        copy.deepcopy(trainer.optimizers[0].state_dict()),
        {  # a shallow copy suffices for a curve: the list grows, but its points do not change
            name: list(value) if isinstance(value, list) else copy.deepcopy(value)
            for name, value in checkpoint["inversion"].items()
        },
    )
