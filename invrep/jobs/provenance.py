"""What else a result depends on: versions, commit, command, weights."""

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
from invrep.jobs.identity import PARTS, named
from invrep.jobs.job import Job
from invrep.messages import layer_name
from invrep.representations.geometry import Geometry

VERSIONS = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "pillow")


def provenance(job: Job, photo: Photo) -> DictConfig:
    """Return the resolved config with what else a result depends on: versions, commit, command, weights.

    The project's parts have their stable names in it (:func:`invrep.jobs.identity.named`), so that it is read alike
    however the code is arranged. ``used`` says which presets were chosen and what automatic values came to, for Φ and
    one of the photos.
    """
    plain = cast("dict[str, Any]", OmegaConf.to_container(job.config, resolve=True))
    resolved = OmegaConf.create(plain | {key: named(plain[key]) for key in (*PARTS, "compute")})
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
    """Return, by short names, what tells jobs apart: presets by name, the layer, and each λ and C as a number."""
    config, phi = job.config, job.phi
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    weight, seen = config.objective.get("weight"), Geometry((math.inf, math.inf), None)
    with suppress(InvrepError):  # other photos may well fit
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
        "objective_weight": weight,
        **{f"{name}_weight": value for name, value in job.prior.weights(phi).items()},
        "passes": job.descent.plan(phi)[0],
        "receptive_field": phi.receptive_field,  # of one position, in pixels; null: the whole image, or several layers
        "stride": phi.stride,
        "start": list(map(int, seen.start)) if local else None,  # top and left of what position (0, 0) sees
    }


def _commit() -> str | None:
    """Return the project's git commit, with ``-dirty`` where files differ from it; None outside a clone."""

    def git(arguments: Iterable[str]) -> str:
        place = Path(__file__).parent
        found = subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=True, timeout=10)
        return found.stdout.strip()

    try:
        return git(["rev-parse", "HEAD"]) + ("-dirty" if git(["status", "--porcelain", "-uno"]) else "")
    except (OSError, subprocess.SubprocessError):
        return None
