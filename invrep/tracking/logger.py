"""Write a job's curves, pictures and final table to a logger."""

from __future__ import annotations

import contextlib
import inspect
import logging
import netrc
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torchvision.utils import make_grid

from invrep.data.display import shown, to_pil
from invrep.inversion.module import Inversion
from invrep.results.rows import SPREADS
from invrep.results.store import Results

log = logging.getLogger(__name__)
R = TypeVar("R")
CURVES = ("error", "activation", "energy", "data")  # every other curve is the term of a prior
MEANS = ("error", "root_error", "pairwise_error", "activation", "psnr", "ssim", "energy")  # columns for W&B's summary
GRID_IMAGES = 8  # photos in a live grid; the final grid has its own limit


def _logged_in() -> bool:
    """Return whether a key for W&B's server is in the environment or in the netrc file; never prompt for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Record(pl.Callback):
    """Write curves, pictures and the final table to a Lightning logger; a failing logger never fails the job.

    The logger is opened with the first values for it, since W&B takes seconds to start and no pass shall wait for it.
    The axis is ``pass``, the number of passes of the job: a second batch continues the count of the first.

    Args:
        config: config of the logger (``_target_`` and its arguments); None or empty: no logger.
        hyperparameters: resolved config of the job, which the logger gets when it is opened.
        folder: output folder of the job; the logger writes only below it.
        name: name of the run.
        group: name of the run's sweep; None outside a sweep.
        every: number of passes between two pictures.
        display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`.

    Attributes:
        photos: photos (n, C, H, W) of the current batch, in [0, 1]; None without photos.
        restarts: number of restarts of each photo in the current batch; None where the photos differ: no picture.
    """

    place: str | None = None  # W&B's folder for the previous job of this process

    def __init__(
        self,
        config: DictConfig | None,
        hyperparameters: Mapping[str, Any],
        *,
        folder: Path,
        name: str,
        group: str | None,
        every: int,
        display: str,
    ) -> None:
        super().__init__()
        self.every = every
        self.display = display
        self.folder = folder
        self.logger: Logger | None = None
        self.offset = 0
        self.recorded = 0
        self.pictured = -1
        self.photos: Tensor | None = None
        self.restarts: int | None = 1
        self._unopened = partial(self._open, config, name, group) if config and "_target_" in config else None
        self._hyperparameters = hyperparameters

    def open(self) -> None:
        """Open the logger and write the job's config to it, unless that has been done."""
        if self._unopened is not None:
            begin, self._unopened = self._unopened, None
            self._guard(begin)
            if self.logger is not None:
                self._guard(partial(self.logger.log_hyperparams, dict(self._hyperparameters)))

    def _open(self, config: DictConfig, name: str, group: str | None) -> None:
        target = str(config["_target_"])
        if not target.endswith("WandbLogger"):
            told = {"save_dir": self.folder, "name": "", "version": target.rpartition(".")[2]}
            takes = inspect.signature(get_class(target)).parameters
            self.logger = instantiate(config, **{key: value for key, value in told.items() if key in takes})
            return
        import wandb

        place = str(self.folder.resolve() / "wandb")
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # W&B's default is below the home folder
            if os.environ.get(variable) in (None, Record.place):  # keep a folder that the user has set
                os.environ[variable] = place
        Record.place = place
        os.environ.setdefault("WANDB_SILENT", "true")  # the job's summary names the run
        offline = {} if os.environ.get("WANDB_MODE") else {"offline": not _logged_in()}
        logger = instantiate(
            config,
            save_dir=str(self.folder.resolve()),  # W&B's process keeps its first working folder
            name=name,
            group=group,
            settings=wandb.Settings(silent=True, console="off"),
            **offline,
        )
        asked = getattr(logger, "_wandb_init", {})
        if asked.get("anonymous", "") is None:  # Lightning always passes it, and W&B warns
            del asked["anonymous"]
        run = logger.experiment
        run.define_metric("pass")
        for metric in (*CURVES, "prior/*", "reconstructions"):
            run.define_metric(metric, step_metric="pass")
        self.logger = logger

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
        self.logger = None
        if "wandb" in sys.modules:
            with contextlib.suppress(Exception):
                sys.modules["wandb"].finish(exit_code=1)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start a batch, or a further stage of a batch."""
        self.recorded, self.pictured = len(pl_module.curve), -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write the points of the curve that a segment has added."""
        self._write(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the last point and picture of the batch."""
        self.pictured = -1
        self._write(pl_module)
        self.offset += pl_module.passes if pl_module.last else 0

    def _write(self, inversion: Inversion) -> None:
        self.open()
        if self.logger is None:
            self.recorded = len(inversion.curve)
            return
        for passes, terms in inversion.curve[self.recorded :]:
            counted = inversion.counted
            values = {
                name if name in CURVES else f"prior/{name}": float(value[counted].mean())
                for name, value in terms.items()
                if bool(counted.any())
            }
            self._guard(partial(self._scalars, values, self.offset + passes))
        self.recorded = len(inversion.curve)
        if self.pictured < 0 or inversion.passes - self.pictured >= self.every:
            self.pictured = inversion.passes
            self._guard(lambda: self._picture(inversion))

    def _scalars(self, values: dict[str, float], at: int) -> None:
        if self.logger is None:
            return
        if isinstance(self.logger, WandbLogger):
            self.logger.experiment.log({**values, "pass": at})
        else:
            self.logger.log_metrics(values, step=at)

    def _picture(self, inversion: Inversion) -> None:
        shows = isinstance(self.logger, TensorBoardLogger) or hasattr(self.logger, "log_image")
        if self.restarts is None or not shows:
            return
        columns = self.restarts + (self.photos is not None)
        tiles = []
        for k, image in enumerate(inversion.reconstruction().detach()[: self.restarts * GRID_IMAGES]):
            if self.photos is not None and k % self.restarts == 0:
                tiles.append(shown(self.photos[k // self.restarts], "clip"))
            tiles.append(shown(image, self.display))
        at = self.offset + inversion.passes
        self._image("reconstructions", make_grid(tiles, nrow=columns, pad_value=1.0), at)

    def _image(self, key: str, image: Tensor, at: int) -> None:
        if isinstance(self.logger, WandbLogger):
            import wandb

            self.logger.experiment.log({key: wandb.Image(to_pil(image)), "pass": at})
        elif isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image(key, image, at)
        elif (log_image := getattr(self.logger, "log_image", None)) is not None:  # Lightning's name for it
            log_image(key, [to_pil(image)], step=at)

    def replay(self, curve: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Write a mean curve from disk, of pre-images that other processes have made.

        Args:
            curve: list of (pass, {name: mean}).
        """
        self.open()
        usual = ("error", "activation", "energy", "data")
        for at, values in curve if self.logger is not None else ():
            named = {name if name in usual else f"prior/{name}": value for name, value in values.items()}
            self._guard(partial(self._scalars, named, at))

    def close(
        self,
        rows: Sequence[Mapping[str, Any]],
        grid: Path | None,
        failed: bool,
        means: Mapping[str, float],
    ) -> str | None:
        """Write the final table and grid, end the logger's run, and return how to view it.

        Args:
            rows: rows of ``metrics.csv`` for the logger's table.
            grid: path of the final picture.
            failed: bool; True: the job failed, and W&B marks the run so.
            means: means of the columns of ``metrics.csv`` and ``spread.csv``, by name.

        Returns:
            A URL or a command; None without a logger.
        """
        self.open()  # a job that ends before its first pass has a run too
        if self.logger is None:
            return None
        return self._guard(partial(self._close, self.logger, rows, grid, failed, means))

    def _close(
        self,
        logger: Logger,
        rows: Sequence[Mapping[str, Any]],
        grid: Path | None,
        failed: bool,
        means: Mapping[str, float],
    ) -> str | None:
        if isinstance(logger, TensorBoardLogger):
            logger.finalize("failed" if failed else "success")
            return f"tensorboard --logdir {self.folder}"
        if not isinstance(logger, WandbLogger):
            logger.finalize("failed" if failed else "success")
            return None
        import wandb

        run = logger.experiment
        try:
            if rows:
                names = list(dict.fromkeys(name for row in rows for name in row))
                run.log({"results": wandb.Table(columns=[*names], data=[[row.get(n) for n in names] for row in rows])})
            for name in (*MEANS, *SPREADS):
                if name in means:
                    run.summary[f"mean/{name}"] = means[name]
            if grid is not None and grid.exists():
                run.log({"grid": wandb.Image(str(grid))})
            if rows:
                results = Results(self.folder)
                named = re.sub(r"[^\w.-]", "_", self.folder.name, flags=re.ASCII)  # W&B accepts no other character
                artifact = wandb.Artifact(named, type="results", metadata={"folder": str(self.folder)})
                for path in (results.grid, results.metrics, results.curves, results.spread, results.config):
                    if path.is_file():
                        artifact.add_file(str(path))
                run.log_artifact(artifact)
            place, url = Path(run.dir).parent, None if run.offline else run.url
        finally:
            wandb.finish(exit_code=int(failed))
        if run.disabled:  # WANDB_MODE=disabled keeps no files
            return None
        return url or f"wandb sync {os.path.relpath(place)}"
