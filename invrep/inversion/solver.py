"""Run the stages of a descent on one batch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from invrep.errors import InvrepError, UnfitError
from invrep.inversion.compute import Compute, exact
from invrep.inversion.jitter import Jitter
from invrep.inversion.module import Inversion
from invrep.inversion.pixels import Pixels
from invrep.inversion.trainer import make_trainer, quiet
from invrep.inversion.trial import Trial, finite, ready
from invrep.objectives.base import Objective
from invrep.objectives.match import Match
from invrep.optim.descent import Descent
from invrep.optim.start_noise import generator_of
from invrep.priors.prior import FixedPrior, Prior
from invrep.representations.base import Representation
from invrep.validation import check_kind

# settings of a descent that a baseline's picture does not have
PLAIN: dict[str, Any] = {"basis": "pixel", "decorrelate": 0.0, "jitter": False, "polish": 0}


@runtime_checkable
class Resumable(Protocol):
    """Describe a Lightning callback that saves the state of a descent, one file for each stage.

    Attributes:
        stage: number of the current stage, from 0.
        path: file of the current stage.
    """

    stage: int

    @property
    def path(self) -> Path:
        """Return the file of the current stage."""

    def reached(self) -> int:
        """Return the number of the latest stage that has a file; 0 without files."""


@exact()
def solve(
    photos: Float[Tensor, "photo channel row column"],
    rows: Sequence[tuple[int, str, int]],
    *,
    phi: Representation,
    prior: Prior,
    descent: Descent,
    objective: Callable[..., Objective] = Match,
    seed: int = 0,
    segment: int = 20,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    checkpoint: Resumable | None = None,
    compute: Compute | None = None,
    trial: Trial | None = None,
    baseline: Callable[..., Tensor] | None = None,
) -> Inversion:
    """Invert a batch of photos, each with one or several restarts, and return the fitted :class:`Inversion`.

    Args:
        photos: tensor (n, C, H, W) in [0, 1], on the CPU.
        rows: triple for each of the B rows of the image tensor: index of the photo in 0…n−1, id, number of the
            restart.
        phi: representation Φ.
        prior: preset of priors.
        descent: recipe of descent.
        objective: function (codes Φ0, a list of (B, …); ``phi=Φ``, ``shape=(C, H, W)``) → :class:`Objective`.
        seed: seed of the start noise, combined with id and restart.
        segment: number of passes in a Lightning step, and most passes between two points of the curve.
        trainer: keyword arguments of Lightning's Trainer (accelerator, devices).
        callbacks: Lightning callbacks.
        checkpoint: callback that resumes from its file, if it exists, and writes it; None: no checkpoints.
        compute: precision, memory layout and compilation of the passes; everything else is exact.
        trial: record of the checks that the job has made of Φ; None: a new one.
        baseline: function (codes Φ0, a list of (B, …); Φ; ``shape=(C, H, W)``; ``draws``, a generator for each row) →
            images (B, C, H, W), whose measures are taken in place of a descent (:mod:`invrep.baselines`); None: a
            descent.

    Raises:
        UnfitError: Φ does not accept these photos, or no gradient reaches some rows.
        InvrepError: Φ cannot be inverted, or the optimiser or the Trainer rejects its arguments.
    """
    owner = torch.tensor([index for index, _, _ in rows])
    stages = descent.stages(phi) if baseline is None else [replace(descent, **PLAIN)]
    inversion: Inversion | None = None
    reached = checkpoint.reached() if checkpoint else 0
    ready(phi)
    compute = compute or Compute()
    with _signals():
        for number, stage in enumerate(stages):
            if number < reached:
                continue
            margin = phi.jitter - 1 if stage.jitter else 0
            shape = (photos.shape[1], photos.shape[2] + margin, photos.shape[3] + margin)
            fixed = prior.for_shape(shape, phi, scale=stage.scale)
            runner = make_trainer(trainer or {}, [*callbacks, *([cast(pl.Callback, checkpoint)] if checkpoint else [])])
            device = runner.strategy.root_device
            phi = compute.lay_out(phi.private(device, photos.dtype), device)
            if inversion is not None:
                start = inversion.pixels.from_rgb(inversion.reconstruction()).detach()
            else:
                asked = _asked(phi, photos, owner, device, objective)
                if baseline is not None:
                    start = _pictures(asked, baseline, rows, seed, shape, phi, fixed)
                elif number == 0:
                    start = _start(asked, photos[owner], rows, seed, shape, phi, fixed, stage)
                else:  # the checkpoint holds the images
                    start = torch.zeros(len(rows), *shape, dtype=photos.dtype)
            inversion = Inversion(
                start,
                phi=phi,
                objective=asked,
                prior=fixed,
                descent=stage,
                segment=segment,
                jitter=Jitter.draw(rows, seed, margin, stage.plan(phi)[0]) if margin else None,
                compute=compute,
                before=inversion,
                whole=descent.plan(phi)[0],
                still=baseline is not None,
            )
            if number == 0 and baseline is None:
                begun = inversion.reconstruction().detach().to(device)
                (trial or Trial())(phi, asked, begun, inversion.surrogate)
            _fit(runner, inversion, checkpoint, number)
            if inversion.stopping:
                break
    assert inversion is not None  # every recipe has at least one stage
    return inversion


def _fit(runner: pl.Trainer, inversion: Inversion, checkpoint: Resumable | None, stage: int) -> None:
    """Run one stage; resume from its checkpoint if the file exists."""
    saved = None
    if checkpoint is not None:
        checkpoint.stage = stage
        saved = checkpoint.path if checkpoint.path.exists() else None
    with quiet():
        runner.fit(inversion, ckpt_path=saved, weights_only=True)


@contextmanager
def _signals() -> Iterator[None]:
    """Raise for a signal the exception that Python raises without Lightning."""
    try:
        yield
    except SIGTERMException:  # Lightning's exception for SIGTERM without another handler
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as error:  # Lightning's exception for Ctrl-C; Lightning also ignores further ones
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise error.__context__ from None


def _asked(
    phi: Representation, photos: Tensor, owner: Tensor, device: torch.device, objective: Callable[..., Objective]
) -> Objective:
    """Return the objective for the photos' codes Φ0, with one copy of its photo's code for every row.

    Raises:
        UnfitError: Φ does not accept the photos, or some codes are not finite.
        InvrepError: a weight of Φ is not finite, or ``objective`` returns no Objective.
    """
    try:
        with torch.no_grad():
            code = phi(photos.to(device))
    except InvrepError as error:
        raise UnfitError(str(error)) from None
    code = [part[owner.to(device)] for part in code]
    finite(phi, code)
    asked = objective(code, phi=phi, shape=tuple(photos.shape[1:]))
    check_kind("What the objective's function returns", asked, isinstance(asked, Objective), "an Objective")
    return asked


def _pictures(
    asked: Objective,
    baseline: Callable[..., Tensor],
    rows: Sequence[tuple[int, str, int]],
    seed: int,
    shape: tuple[int, int, int],
    phi: Representation,
    prior: FixedPrior,
) -> Tensor:
    """Return a baseline's pictures of the target codes as a start, (B, C, H, W).

    Raises:
        InvrepError: the objective has no target code, or the pictures have another shape or are not finite.
    """
    assert isinstance(asked, Match)  # a job with another objective is refused
    draws = [generator_of(seed, image, restart, "baseline") for _, image, restart in rows]
    images = baseline(asked.target, phi, shape=shape, draws=draws)
    if images.shape != (len(rows), *shape) or not bool(images.isfinite().all()):
        raise InvrepError(
            f"The baseline's pictures have the shape {tuple(images.shape)} or values that are not finite; expected "
            f"{(len(rows), *shape)}."
        )
    return Pixels(phi.mean.to(images), prior.scale).from_rgb(images)


def _start(
    asked: Objective,
    photos: Tensor,
    rows: Sequence[tuple[int, str, int]],
    seed: int,
    shape: tuple[int, int, int],
    phi: Representation,
    prior: FixedPrior,
    stage: Descent,
) -> Tensor:
    """Return the start of the descent, (B, C, H, W): noise, or the photos with their edge pixels repeated.

    Args:
        asked: objective; it decides between noise and photos.
        photos: tensor (B, C, H, W) in [0, 1], the photo of every row.
        rows: triple for each row: index of the photo, id, number of the restart.
        seed: seed of the noise.
        shape: (C, H, W) of the start, with the jitter's margin.
        phi: representation Φ, for its mean.
        prior: priors with their constants, for the scale of the noise.
        stage: first stage of the recipe.
    """
    if not asked.starts_from_photo:
        draws = [stage.draw(shape, seed, image, restart, prior) for _, image, restart in rows]
        return torch.stack(draws).to(photos.dtype)
    x = Pixels(phi.mean.to(photos), prior.scale).from_rgb(photos)
    extra = shape[1] - photos.shape[2]
    return nn.functional.pad(x, (extra // 2, extra - extra // 2) * 2, mode="replicate")
