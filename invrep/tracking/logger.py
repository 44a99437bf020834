"""What is seen of a job in a logger: curves, pictures and the final table."""

from __future__ import annotations

import contextlib
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
from hydra.utils import instantiate
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
CURVES = ("error", "activation", "energy", "data")  # every other curve is a prior's
MEANS = ("error", "root_error", "pairwise_error", "activation", "psnr", "ssim", "energy")  # of the table, for W&B
GRID_IMAGES = 8  # photos in a live grid; the final one has its own limit


def _logged_in() -> bool:
    """Return whether W&B has a key for its server, without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Record(pl.Callback):
    """Writes curves, pictures and the final table to a Lightning logger; its failure never fails the job.

    The axis is ``pass``, the passes that the job has done: for a second batch it goes on where the first one ended.

    Args:
        config: the logger's config (``_target_`` and its arguments), or an empty one for no logger.
        folder: the job's output folder; everything that the logger writes lies below it.
        name: the run's name.
        group: the sweep to which the run belongs, or None.
        every: passes between two pictures.
        display: how pictures are shown, see :func:`invrep.data.display.shown`.
    """

    place: str | None = None  # where the last job of this process let W&B write

    def __init__(
        self, config: DictConfig | None, *, folder: Path, name: str, group: str | None, every: int, display: str
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
        if config and "_target_" in config:
            self._guard(lambda: self._open(config, name, group))

    def _open(self, config: DictConfig, name: str, group: str | None) -> None:
        target = str(config["_target_"])
        if not target.endswith("WandbLogger"):
            self.logger = instantiate(config, save_dir=self.folder, name="", version=target.rpartition(".")[2])
            return
        import wandb

        place = str(self.folder.resolve() / "wandb")
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # else W&B writes below the home folder
            if os.environ.get(variable) in (None, Record.place):  # not the user's own
                os.environ[variable] = place
        Record.place = place
        os.environ.setdefault("WANDB_SILENT", "true")  # the summary says how to see the run
        offline = {} if os.environ.get("WANDB_MODE") else {"offline": not _logged_in()}
        logger = instantiate(
            config,
            save_dir=str(self.folder.resolve()),  # W&B's process keeps the working folder it began in
            name=name,
            group=group,
            settings=wandb.Settings(silent=True, console="off"),
            **offline,
        )
        asked = getattr(logger, "_wandb_init", {})
        if asked.get("anonymous", "") is None:  # Lightning passes it unasked, and W&B warns of it
            del asked["anonymous"]
        run = logger.experiment
        run.define_metric("pass")
        for metric in (*CURVES, "prior/*", "reconstructions"):
            run.define_metric(metric, step_metric="pass")
        self.logger = logger

    def _guard(self, act: Callable[[], R]) -> R | None:
        """Do it; where that fails say so once and go on without the logger."""
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
        """Drop the logger; an open W&B run would swallow the next job of a sweep."""
        self.logger = None
        if "wandb" in sys.modules:
            with contextlib.suppress(Exception):
                sys.modules["wandb"].finish(exit_code=1)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Hand the resolved config to the logger."""
        if self.logger is not None:
            self._guard(partial(self.logger.log_hyperparams, dict(config)))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin a batch, or a further stage of one."""
        self.recorded, self.pictured = len(pl_module.curve), -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write what a segment has added."""
        self._write(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the batch's last point and picture."""
        self.pictured = -1
        self._write(pl_module)
        self.offset += pl_module.passes if pl_module.last else 0

    def _write(self, inversion: Inversion) -> None:
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
        if self.restarts is None or not isinstance(self.logger, WandbLogger | TensorBoardLogger):
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

    def replay(self, curve: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Write the mean curve of what other processes have done, as it lies on disk: (pass, {name: mean})."""
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
        """Write the final table and grid, end the logger's run, and return how to see it.

        Args:
            rows: of ``metrics.csv``, as many as the logger shall show.
            grid: the final picture.
            failed: whether the job failed, which W&B then shows.
            means: of the numbers of all rows, and of those of ``spread.csv``.
        """
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
                named = re.sub(r"[^\w.-]", "_", self.folder.name, flags=re.ASCII)  # all that W&B takes
                artifact = wandb.Artifact(named, type="results", metadata={"folder": str(self.folder)})
                for path in (results.grid, results.metrics, results.curves, results.spread, results.config):
                    if path.is_file():
                        artifact.add_file(str(path))
                run.log_artifact(artifact)
            place, url = Path(run.dir).parent, None if run.offline else run.url
        finally:
            wandb.finish(exit_code=int(failed))
        if run.disabled:  # WANDB_MODE=disabled: nothing is kept
            return None
        return url or f"wandb sync {os.path.relpath(place)}"
