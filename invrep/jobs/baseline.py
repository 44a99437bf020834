"""Assemble a job's baseline from its config."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from invrep.baselines.coding import chosen, hoggle
from invrep.baselines.gallery import photos_at
from invrep.baselines.regression import linear
from invrep.errors import InvrepError
from invrep.objectives.base import Objective
from invrep.objectives.match import Match
from invrep.presets import build
from invrep.representations.base import Representation
from invrep.validation import check_kind


def assemble_baseline(
    config: DictConfig, kind: type[Objective], phi: Representation
) -> tuple[Callable[..., Tensor] | None, str | None]:
    """Return a job's baseline, and the identifier of its dictionary; None where it has none.

    Args:
        config: config of the job, with automatic values of ``data`` filled in.
        kind: class of the objective.
        phi: representation Φ.

    Raises:
        InvrepError: the baseline cannot be built, or does not go with the objective, Φ or the photos.
    """
    if config.baseline is None:
        return None, None
    baseline = build(config.baseline)
    check_kind("baseline", baseline, callable(baseline), "a function from codes to pictures, with _partial_: true")
    if not issubclass(kind, Match) or any(config.objective.get(key) is not None for key in ("region", "channels")):
        raise InvrepError(
            "A baseline makes a picture of a whole code: take objective=match without region and channels."
        )
    made: Any = getattr(baseline, "func", baseline)
    if made is hoggle:
        if config.data.color != "gray":
            raise InvrepError("baseline=hoggle makes grey pictures; add data.color=gray.")
        pairs = chosen(phi, config.baseline.dictionary)
        return partial(hoggle, dictionary=pairs), pairs.id
    if "path" not in config.baseline:
        return baseline, None
    path = config.baseline.path
    photos_at(path, config.baseline.get("limit"))  # an error costs no batch
    if made is linear and "path" in config.data and Path(path).resolve() == Path(config.data.path).resolve():
        raise InvrepError(
            "baseline=linear would learn from the photos that it predicts; give other photos by baseline.path."
        )
    return baseline, None
