"""Write a job to W&B, as one run for each folder of results."""

from __future__ import annotations

import hashlib
import json
import netrc
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from invrep.evaluation.certificate.columns import HEADINGS
from invrep.results.atomic_files import atomic
from invrep.results.rows import SPREADS
from invrep.results.store import Results
from invrep.tracking.destination import CURVES, GRID, Ending
from invrep.tracking.live_grid import Picture
from invrep.tracking.wandb_values import plain, short, tags, utf8

GRID_SIDE = 4096  # pixels; longest side of the final picture, whose file in the artifact has all of them
MEASURES = ("error", "root_error", "pairwise_error", "activation", "psnr", "ssim", "energy")
MEANS = (*MEASURES, "class_kept", "still_falling", *SPREADS)
CERTIFIED = tuple(name for name in HEADINGS if name not in MEASURES)  # columns of certificates alone
LIGHTNING = ("save_dir", "dir", "version", "log_model", "prefix", "checkpoint_name", "add_file_policy", "experiment")


@dataclass
class Told:
    """Hold what a folder's run has been told, kept in ``wandb/run.json`` of the folder.

    Attributes:
        id: id of the run.
        passes: last value of the axis.
        digest: hash of the results that the run holds; empty: a failed job.
        group: name of the sweep.
        url: address of the run; None offline.
    """

    id: str
    passes: int = 0
    digest: str = ""
    group: str | None = None
    url: str | None = None

    @classmethod
    def of(cls, folder: Path) -> Told | None:
        """Return what a folder's run has been told; None without a run, or with a damaged file."""
        with suppress(OSError, ValueError, TypeError):
            told = cls(**json.loads(_file(folder).read_text("utf-8")))
            if re.fullmatch(r"[\w-]+", told.id) and isinstance(told.passes, int):
                return told
        return None

    def save(self, folder: Path) -> None:
        """Write the file."""
        atomic(_file(folder), lambda path: path.write_text(json.dumps(asdict(self)), "utf-8"))


def _file(folder: Path) -> Path:
    return folder / "wandb" / "run.json"


def is_wandb(config: DictConfig) -> bool:
    """Return whether a logger's config names W&B: Lightning's class for it, from either of Lightning's packages."""
    return str(config["_target_"]).endswith("WandbLogger")


def unchanged(folder: Path, ending: Ending, group: str | None) -> str | None:
    """Return how to view the finished run of a folder that already holds these results; None if there is none."""
    told = Told.of(folder)
    if told is None or ending.failed or os.environ.get("WANDB_SWEEP_ID") or os.environ.get("WANDB_RUN_ID"):
        return None
    same = (told.digest, told.group) == (_digest(ending), group)
    return told.url or _sync(folder, told.id) if same else None


def _digest(ending: Ending) -> str:
    """Return a hash of a job's results."""
    told = [[{k: v for k, v in row.items() if k != "seconds"} for row in ending.rows], ending.means, ending.counts]
    return hashlib.sha256(repr(told).encode(errors="surrogateescape")).hexdigest()


def _sync(folder: Path, run: str) -> str | None:
    """Return the command that uploads what has been written of a run offline; None where nothing is left to upload."""
    parts = sorted((folder / "wandb").glob(f"offline-run-*-{run}"))  # in the order of their time
    left = [os.path.relpath(part) for part in parts if not list(part.glob("*.wandb.synced"))]
    return f"wandb sync {shlex.join(left)}" if left else None


def _logged_in() -> bool:
    """Return whether a key for W&B's server is in the environment or in the netrc file; never prompt for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class WandbRun:
    """Write to a run of W&B.

    A folder of results has one run: a resumed or extended job continues the run of the earlier one. A run that W&B's
    agent or the user names is its own.

    Args:
        config: config of the logger: its ``_target_``, and arguments of ``wandb.init``.
        hyperparameters: config of the job.
        folder: output folder of the job.
        group: name of the run's sweep; None outside a sweep.

    Attributes:
        passes: value of the axis at which the run continues.
    """

    pictures = True
    place: str | None = None  # W&B's folder for the previous job of this process

    def __init__(
        self, config: DictConfig, hyperparameters: Mapping[str, Any], *, folder: Path, group: str | None
    ) -> None:
        import wandb

        self.folder, self.group = folder, group
        self._keep_below(folder)
        told = Told.of(folder)
        given: dict[str, Any] = {"project": "invrep", "name": folder.name, "group": group, "job_type": "inversion"}
        given |= {"id": None if told is None or os.environ.get("WANDB_RUN_ID") else told.id, "resume": "allow"}
        given |= _given(config)
        given["tags"] = tags(hyperparameters, given.get("tags") or ())
        given |= {key: short(given[key], 128) for key in ("name", "group", "job_type") if given[key]}
        settings = {"silent": True, "console": "off"} | (given.pop("settings", None) or {})
        try:
            self.run = wandb.init(
                dir=str(folder.resolve()),  # W&B's process keeps its first working folder
                config=plain(hyperparameters),
                settings=wandb.Settings(**settings),
                **given,
            )
        except Exception:
            _file(folder).unlink(missing_ok=True)  # a run that was deleted on the server cannot be resumed: begin anew
            raise
        self.passes = told.passes if told is not None and told.id == self.run.id else 0
        for name in CURVES:
            best = {"error": "min", "energy": "min", "activation": "max"}.get(name, "none")
            self.run.define_metric(name, step_metric="pass", summary=best)
        self.run.define_metric("prior/*", step_metric="pass", summary="none")
        self.run.define_metric("error/*", step_metric="pass", summary="none")
        for name in (GRID, "results"):
            self.run.define_metric(name, step_metric="pass")

    @staticmethod
    def _keep_below(folder: Path) -> None:
        """Let W&B write below the job's folder only, instead of the home folder, and say nothing of its own."""
        place = str(folder.resolve() / "wandb")
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            if os.environ.get(variable) in (None, WandbRun.place):  # keep a folder that the user has set
                os.environ[variable] = place
        WandbRun.place = place
        os.environ.setdefault("WANDB_SILENT", "true")  # the job's summary names the run

    def write(self, at: int, values: Mapping[str, float], picture: Picture | None = None) -> None:
        """Write the values of a pass, by name, and a picture, as one row of the run's history."""
        import wandb

        row: dict[str, Any] = {**values, "pass": at}
        if picture is None or self.run.disabled:
            self.run.log(row)
            return
        path = self.folder / "wandb" / "live.png"
        picture.image.save(path, compress_level=1)  # a fifth of the time of W&B's own level, and as small: it is noise
        self.run.log({**row, GRID: wandb.Image(str(path), caption=utf8(picture.caption))})  # W&B copies the file
        path.unlink()

    def close(self, ending: Ending, at: int, title: str) -> str | None:
        """Write the table of results, the final picture, the summary and the files, and end the run.

        Returns:
            A URL or a command that shows the run; None where W&B is disabled.
        """
        import wandb

        run, seen = self.run, None
        try:
            if ending.rows:
                self._results(ending, at, title)
            run.summary.update({f"mean/{name}": ending.means[name] for name in MEANS if name in ending.means})
            certified = {name: mean for name, mean in ending.means.items() if name.partition("/")[0] in CERTIFIED}
            run.summary.update({f"certificate/{name}": mean for name, mean in certified.items()})
            run.summary.update(dict(ending.counts))
        finally:
            wandb.finish(exit_code=int(ending.failed))
        if not run.disabled:  # WANDB_MODE=disabled keeps no files
            url = None if run.offline else run.url
            seen = url or _sync(self.folder, run.id)
            Told(run.id, at, "" if ending.failed else _digest(ending), self.group, url).save(self.folder)
        return seen

    def _results(self, ending: Ending, at: int, title: str) -> None:
        import wandb

        from invrep.tracking.wandb_table import picture, table

        results = Results(self.folder)
        row: dict[str, Any] = {
            "pass": at,
            "results": table(results, ending.rows, title, pictures=ending.grid is not None),
        }
        if (path := ending.pictured) is not None:
            row[GRID] = picture(path, ending.caption(title), GRID_SIDE)
        self.run.log(row)
        name = re.sub(r"[^\w.-]", "_", short(self.folder.name, 128), flags=re.ASCII)  # W&B accepts no other character
        artifact = wandb.Artifact(name, type="results", metadata={"folder": utf8(str(self.folder))})
        for path in (
            *([results.grid] if ending.grid else []),
            results.metrics,
            results.curves,
            results.spread,
            results.certificate,
            results.config,
        ):
            if path.is_file():
                artifact.add_file(str(path))
        self.run.log_artifact(artifact)


def _given(config: DictConfig) -> dict[str, Any]:
    """Return the user's arguments of ``wandb.init``, with the mode: offline unless the user is logged in."""
    arguments = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    given = {key: value for key, value in arguments.items() if key not in LIGHTNING and not key.startswith("_")}
    if given.pop("offline", False) or not ("mode" in given or os.environ.get("WANDB_MODE") or _logged_in()):
        given["mode"] = "offline"
    return given
