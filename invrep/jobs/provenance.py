"""Record the provenance of a job's results: versions, commit, command, weights."""

from __future__ import annotations

import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from invrep.data.photo import Photo
from invrep.errors import InvrepError
from invrep.jobs.identity import NAMED, baseline_name, named
from invrep.jobs.job import Job
from invrep.messages import layer_name
from invrep.representations.geometry import Geometry

VERSIONS = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "pillow")


def provenance(job: Job, photo: Photo) -> DictConfig:
    """Return the resolved config with the nodes ``used`` and ``provenance``, for the job's ``config.yaml``.

    ``provenance`` has versions, commit, command and weights. ``used`` has the chosen presets and the numbers that
    automatic values stand for. The project's parts have their stable names (:func:`invrep.jobs.identity.named`), so
    that moving code changes nothing.

    Args:
        job: parts of the job.
        photo: photo for which the automatic values are computed.
    """
    plain = cast("dict[str, Any]", OmegaConf.to_container(job.config, resolve=True))
    resolved = OmegaConf.create(plain | {key: named(plain[key]) for key in NAMED})
    resolved.used = _used(job, photo)
    resolved.provenance = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "weights": job.phi.weights_id,
        "versions": {"invrep": version("invrep"), "python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
    }
    return resolved


def _used(job: Job, photo: Photo) -> dict[str, Any]:
    """Return the values that distinguish jobs, by short names: presets, the layer, and each λ and C as a number."""
    config, phi = job.config, job.phi
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    weight, seen = config.objective.get("weight"), Geometry((math.inf, math.inf), None)
    with suppress(InvrepError):  # Φ may reject this photo and accept others
        if weight == "auto":
            read = job.read(photo)
            weight = None if read is None else job.asked_of(read.pixels).weight
        if (size := job.size(photo)) is not None and len(parts := phi.geometry(*size)) == 1:
            seen = parts[0]
    local = seen.stride is not None and math.inf not in seen.field
    return {
        "rep": config.name,
        "layer": layer_name(config.layer),
        **{group: choices.get(group) for group in ("objective", "prior", "optim")},
        "baseline": baseline_name(config),
        "objective_weight": weight,
        **{f"{name}_weight": value for name, value in job.prior.weights(phi).items()},
        "denoiser_noise": job.prior.noise(phi),  # in grey levels, at first; null: no denoiser
        "passes": job.passes,
        "receptive_field": phi.receptive_field,  # of one position, in pixels; null: whole image or several layers
        "stride": phi.stride,
        "start": list(map(int, seen.start)) if local else None,  # top and left of position (0, 0)'s field
        "start_noise": _start_noise(job),
    }


def _start_noise(job: Job) -> dict[str, Any] | None:
    """Return what draws the start of each descent again; None where the objective may start it from the photo.

    It is None too for a baseline, and where Φ's mean is an image, which the config would have to hold.
    """
    made, mean = getattr(job.objective, "func", None), job.phi.mean
    if (
        job.baseline is not None
        or not isinstance(made, type)
        or getattr(made, "starts_from_photo", True)
        or mean.shape[-2:] != (1, 1)
    ):
        return None
    stage = job.descent.stages(job.phi)[0]
    return {
        "noise": stage.noise,
        "start": stage.start,
        "sigma": job.prior.sigma,  # in grey levels, or auto
        "margin": job.phi.jitter - 1 if stage.jitter else 0,  # pixels by which the start exceeds the photo
        "mean": mean.flatten().tolist(),  # Φ's mean pixel, in [0, 1]
    }


def _commit() -> str | None:
    """Return the project's git commit, followed by ``-dirty`` if tracked files differ; None outside a clone."""

    def git(arguments: Iterable[str]) -> str:
        place = Path(__file__).parent
        found = subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=True, timeout=10)
        return found.stdout.strip()

    try:
        return git(["rev-parse", "HEAD"]) + ("-dirty" if git(["status", "--porcelain", "-uno"]) else "")
    except (OSError, subprocess.SubprocessError):
        return None
