"""Write a running job's curves and pictures to a logger, and its results at the end."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from invrep.inversion.curve import Curve
from invrep.inversion.module import Inversion
from invrep.tracking.destination import CURVES, Destination, Ending, LightningDestination
from invrep.tracking.live_grid import Picture, Shot, Visible
from invrep.tracking.wandb_run import WandbRun, is_wandb, unchanged

log = logging.getLogger(__name__)
R = TypeVar("R")
GRIDS = 30  # most live pictures of a job: with photos of 224 pixels, 50 MB, or 120 MB with four restarts


class Record(pl.Callback):
    """Write curves, pictures and results to a logger; a failing logger never fails the job.

    The logger is opened with the first values for it, since W&B takes seconds to start and no pass shall wait for it.
    The axis is ``pass``, the number of passes of the job: a second batch continues the count of the first.

    A picture is written with the values of its own pass, which the next pass measures. The picture of a batch's end
    waits for the next batch, since the job's last one gives way to the final picture.

    Args:
        config: config of the logger (``_target_`` and its arguments); None or empty: no logger.
        hyperparameters: resolved config of the job, which the logger gets when it is opened.
        folder: output folder of the job; the logger writes only below it.
        title: name of representation and layer, for captions.
        group: name of the run's sweep; None outside a sweep.
        every: number of passes between two pictures; None: no pictures, at the end neither.
        display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`.
    """

    def __init__(
        self,
        config: DictConfig | None,
        hyperparameters: Mapping[str, Any],
        *,
        folder: Path,
        title: str,
        group: str | None,
        every: int | None,
        display: str,
    ) -> None:
        super().__init__()
        self.every, self.display, self.title = every, display, title
        self.folder, self.group = folder, group
        self.destination: Destination | None = None
        self.offset = 0  # passes of earlier batches
        self.last = 0  # greatest value of the axis so far
        self.recorded = 0  # points of the curve that are written
        self._config = config if config and "_target_" in config else None
        self._hyperparameters = hyperparameters
        self._unopened = self._config is not None
        self._visible: Visible | None = None
        self._shot: Shot | None = None  # waits for the values of its pass
        self._end: tuple[int, Picture | None] | None = None  # waits for the next batch
        self._pictured, self._grids = 0, 0
        self._resumed = 0  # passes of the first batch that an earlier process did
        self._replayed: Sequence[tuple[int, Mapping[str, float]]] = ()

    def open(self) -> None:
        """Open the logger and write the job's config to it, unless that has been done."""
        if self._unopened:
            self._unopened = False
            self._guard(self._open)

    def _open(self) -> None:
        assert self._config is not None
        if is_wandb(self._config):
            run = WandbRun(self._config, self._hyperparameters, folder=self.folder, group=self.group)
            self.destination, self.last = run, run.passes
            self.offset = max(run.passes - self._resumed, 0)
        else:
            self.destination = LightningDestination(self._config, self.folder, self._hyperparameters)

    def _guard(self, act: Callable[[], R]) -> R | None:
        """Call ``act``; if it fails, warn and continue without the logger."""
        try:
            return act()
        except Exception as error:
            self._abandon()
            first = str(error).strip().splitlines()[:1]
            log.warning(
                "The logger failed and is switched off; the job goes on and its results are on disk (%s: %s).",
                type(error).__name__,
                "".join(first),
            )
            return None

    def _abandon(self) -> None:
        """Drop the logger, and close W&B's run: an open run would receive the next job of a sweep."""
        self.destination = None
        if "wandb" in sys.modules:
            with contextlib.suppress(Exception):
                sys.modules["wandb"].finish(exit_code=1)

    def begin(self, rows: Sequence[tuple[int, str, int]], photos: Tensor | None) -> None:
        """Begin a batch.

        Args:
            rows: triple for each row of the batch: index of the photo, id, number of the restart.
            photos: photos (n, C, H, W) in [0, 1]; None without photos.
        """
        self._write_end()
        self._visible, self._shot = Visible(rows, photos, self.title, self.display), None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the start of a batch; a further stage or a resumed descent has no start."""
        self.recorded, self._pictured = len(pl_module.curve), pl_module.passes
        if self._unopened:
            self._resumed = pl_module.passes
        if pl_module.passes == 0:
            self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write the points of the curve that a segment has added, and keep a picture every so many passes."""
        self._write(pl_module)
        if self.every and pl_module.passes - self._pictured >= self.every and pl_module.passes < pl_module.whole:
            self._pictured = pl_module.passes
            self._keep(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the last point of a stage, and keep the picture of the batch's end."""
        if pl_module.last and self._shot is not None and self._shot.passes == pl_module.passes:
            self._shot = None  # the end is a picture of its own
        self._write(pl_module)
        if pl_module.last:
            self._keep(pl_module)
            if self._shot is not None:
                self._end = self.offset + pl_module.passes, self._guard(partial(self._draw, pl_module))
            self.offset += pl_module.passes
            self._shot = None

    def _keep(self, inversion: Inversion) -> None:
        wanted = (
            self.every is not None
            and self._config is not None
            and (self._unopened or (self.destination and self.destination.pictures))
        )
        if wanted and self._visible is not None and self._grids < GRIDS:
            self._shot = self._guard(partial(self._visible.shot, inversion))

    def _write(self, inversion: Inversion) -> None:
        self.open()
        # a still image has a value but no curve: its batches would overwrite each other at pass 0
        drawn = self.destination is not None and not inversion.still
        points = inversion.curve[self.recorded :] if drawn else []
        for (passes, terms), means in zip(points, _means(points, inversion.counted), strict=True):
            if self.destination is None:
                break
            picture = None
            if self._shot is not None and self._shot.passes <= passes and self.destination.pictures:
                picture = self._guard(partial(self._draw, inversion, terms if self._shot.passes == passes else None))
                self._shot = None
            self._send(self.offset + passes, means, picture)
        self.recorded = len(inversion.curve)

    def _draw(self, inversion: Inversion, values: Mapping[str, Tensor] | None = None) -> Picture:
        assert self._visible is not None and self._shot is not None
        self._grids += 1
        return self._visible.draw(self._shot, inversion, values)

    def _send(self, at: int, means: Mapping[str, float], picture: Picture | None = None) -> None:
        named = {
            name if name.partition("/")[0] in CURVES else f"prior/{name}": value
            for name, value in means.items()
            if math.isfinite(value)
        }
        if self.destination is not None and (named or picture is not None):
            self.last = max(self.last, at)
            self._guard(partial(self.destination.write, at, named, picture))

    def _write_end(self) -> None:
        if self._end is not None:
            (at, picture), self._end = self._end, None
            self._send(at, {}, picture)

    def replay(self, curve: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Take the mean curve of pre-images that other processes have made; the job's end writes it.

        Args:
            curve: list of (pass, {name: mean}).
        """
        self._replayed = curve

    def close(self, ending: Ending) -> str | None:
        """Write the results and the final picture, end the logger's run, and return how to view it.

        A repeated command that has added nothing leaves W&B's finished run as it is.

        Args:
            ending: results of the job.

        Returns:
            A URL or a command; None without a logger.
        """
        held = self._unopened and self._config is not None and is_wandb(self._config)
        if held and (seen := unchanged(self.folder, ending, self.group)) is not None:
            return seen
        self.open()  # a job that ends before its first pass has a run too
        for at, values in self._replayed:
            self._send(self.offset + at, values)
        if not ending.rows:
            self._write_end()
        if self.destination is None:
            return None
        ending = ending if self.every else replace(ending, grid=None)
        return self._guard(partial(self.destination.close, ending, self.last, self.title))


def _means(points: Curve, counted: Tensor) -> list[dict[str, float]]:
    """Return the means of a curve's points over the images that count, a bool (B,), by one copy from the device."""
    values = [value for _, terms in points for value in terms.values()]
    means = iter(torch.stack(values)[:, counted].mean(1).tolist() if values else [])
    return [{name: next(means) for name in terms} for _, terms in points]
