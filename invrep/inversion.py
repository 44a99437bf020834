"""The inversion itself: a LightningModule whose only parameter is the image tensor."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from invrep.errors import InvrepError, UnfitError
from invrep.images import Pixels
from invrep.metrics import psnr, ssim
from invrep.objectives import Match, Objective
from invrep.optimisers import Descent
from invrep.priors import FixedPrior, Prior
from invrep.representations.base import Representation

TICK = 0.25  # seconds between two calls of on_tick


class Inversion(pl.LightningModule):
    """A batch of pre-images, each found as if it were alone.

    One Lightning step is a segment of several passes: Lightning's own cost per step would otherwise be felt. The
    representation and the objective are not registered as submodules, so that they are neither parameters nor part of
    a checkpoint.

    Args:
        start: (B, C, H, W), where the descent begins, in the units of ``prior.scale``.
        phi: the representation Φ.
        objective: codes (list of (B, …)) → (B,).
        prior: the priors with their constants.
        descent: the recipe of descent.
        segment: passes between two recorded points of the curve.

    Attributes:
        image: the optimised variable, (B, C, H, W).
        passes: forward-backward evaluations so far.
        curve: (pass, {name: (B,)}) at the start, after every segment and at the end; the names are ``energy``,
            ``data``, those of the prior's terms, and what the objective shows, ``error`` or ``activation``.
        active: (B,) bool; False for an image that has failed (its energy or pixels were not finite), which then
            keeps the last state that was.
        latest: {name: (B,)} of the last pass.
        on_tick: called with this module a few times a second, from inside a segment.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        phi: Representation,
        objective: Objective,
        prior: FixedPrior,
        descent: Descent,
        segment: int = 20,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.image = nn.Parameter(start.detach().clone())
        self._unregistered = (phi, objective)
        self.prior = prior
        self.descent = descent
        self.steps, self._rate = descent.plan(phi)
        self.segment = segment
        self.pixels = Pixels(phi.mean, prior.scale)
        self.passes = 0
        self.curve: list[tuple[int, dict[str, Tensor]]] = []
        self.active = torch.ones(len(start), dtype=torch.bool)
        self.on_tick: Callable[[Inversion], None] | None = None
        self.latest: dict[str, Tensor] = {}
        self._next_tick = 0.0

    @property
    def phi(self) -> Representation:
        """The representation Φ."""
        return self._unregistered[0]

    @property
    def objective(self) -> Objective:
        """The objective, which holds what is asked of every row's code."""
        return self._unregistered[1]

    def reconstruction(self) -> Tensor:
        """Return the pre-images in [0, 1] (unclipped), (B, C, H, W)."""
        return self.pixels.to_rgb(self.image)

    def forward(self) -> dict[str, Tensor]:
        """Return the objective's value, ``energy``, ``data`` and every prior term of the present images, each (B,)."""
        value = self.objective.value(self.phi(self.reconstruction()))
        terms = {"data": self.objective.energy(value), **self.prior(self.image)}
        return {self.objective.shows: value, "energy": torch.stack(list(terms.values())).sum(0), **terms}

    def setup(self, stage: str) -> None:
        """Bring what is not registered to the device and precision of the image tensor."""
        device, dtype = self.device, self.image.dtype
        self._unregistered = tuple(part.to(device, dtype) for part in self._unregistered)
        self.pixels = self.pixels.to(device, dtype)
        self.active = self.active.to(device)
        self._good = self.image.detach().clone()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the image tensor; its rate is set before every pass."""
        return self.descent.optimiser(self.image, self._rate(0) * self.descent.lr_unit(self.prior))

    def train_dataloader(self) -> DataLoader:
        """Return the lengths of the segments: the loop's data are its own passes."""
        whole, rest = divmod(self.steps, self.segment)
        return DataLoader([self.segment] * whole + [rest] * (rest > 0), batch_size=None)

    def _evaluate(self) -> Tensor:
        self.image.grad = None
        terms = self()
        # the sum's gradient is every image's own; a mean would tie an image to how many stand beside it
        loss = terms["energy"].sum()
        loss.backward()
        self.latest = {name: value.detach() for name, value in terms.items()}
        self.passes += 1
        return loss.detach()

    def training_step(self, passes: int, _: int) -> None:
        """Do a segment of passes."""
        optimiser = self.optimizers(use_pl_optimizer=False)
        unit = self.descent.lr_unit(self.prior)
        end = min(self.passes + int(passes), self.steps)
        begin = self.passes
        while self.passes < end:
            for group in optimiser.param_groups:
                group["lr"] = self._rate(self.passes) * unit
                if "max_eval" in group:
                    group["max_eval"] = min(25, self.steps - self.passes)
            first = self.passes == begin
            optimiser.step(self._evaluate)
            if first:
                self._record(begin)
            if self.on_tick is not None and time.monotonic() >= self._next_tick:
                self.on_tick(self)
                self._next_tick = time.monotonic() + TICK
        self._freeze()
        if not self.active.any():
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Evaluate the final images once more for the curve's last point."""
        with torch.no_grad():
            self.latest = self()
        self._record(self.passes)

    def _record(self, passes: int) -> None:
        self.curve.append((passes, self.latest))

    def _freeze(self) -> None:
        """Take back to the last good state every image that has failed, now or before."""
        finite = self.image.detach().isfinite().flatten(1).all(1) & self.latest["energy"].isfinite()
        self.active &= finite
        if bool(self.active.all()):
            self._good.copy_(self.image.detach())
            return
        keep = self.active[:, None, None, None]
        with torch.no_grad():
            self._good = torch.where(keep, self.image, self._good)
            self.image.copy_(self._good)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks for people who train networks (workers, tips, devices) from every batch of photos."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)


def _trainer(options: Mapping[str, Any], callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    try:
        with _quiet():
            return pl.Trainer(
                **{"accelerator": "auto", "devices": 1, **options},
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=list(callbacks),
            )
    except (MisconfigurationException, TypeError, ValueError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in options.items())
        raise InvrepError(f"Lightning's Trainer does not take {given}: {' '.join(str(error).split())}") from None


def solve(
    photos: Tensor,
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
) -> Inversion:
    """Invert a batch of photos, some of them several times, and return the fitted :class:`Inversion`.

    Args:
        photos: (n, C, H, W) in [0, 1], on the CPU.
        rows: for each row of the image tensor the photo's index, its id and the number of the restart.
        phi: the representation.
        prior: a preset of priors.
        descent: a recipe of descent.
        objective: makes the :class:`Objective` from each row's Φ0, with Φ as ``phi`` and (C, H, W) as ``shape``.
        seed: of the start noise, together with id and restart.
        segment: passes between two recorded points of the curve.
        trainer: keyword arguments of Lightning's Trainer (accelerator, devices, precision).
        callbacks: Lightning callbacks.

    Raises:
        UnfitError: the representation does not take these photos.
        InvrepError: the optimiser or the Trainer does not take its arguments.
    """
    shape = tuple(photos.shape[1:])
    fixed = prior.for_shape(shape, phi)
    start = torch.stack([descent.noise(shape, seed, image, restart, fixed) for _, image, restart in rows])
    runner = _trainer(trainer or {}, callbacks)
    device = runner.strategy.root_device
    phi.to(device, photos.dtype)
    try:
        with torch.no_grad():
            code = phi(photos.to(device))
    except InvrepError as error:
        raise UnfitError(str(error)) from None
    owner = torch.tensor([index for index, _, _ in rows], device=device)
    asked = objective([part[owner] for part in code], phi=phi, shape=shape)
    if asked.starts_from_photo:
        start = Pixels(phi.mean, fixed.scale).from_rgb(photos.to(device)[owner])
    inversion = Inversion(
        start.to(photos.dtype),
        phi=phi,
        objective=asked,
        prior=fixed,
        descent=descent,
        segment=segment,
    )
    before = getattr(phi, "straight_through", None)
    try:
        if before is not None:
            phi.straight_through = before or descent.straight_through
        with _quiet():
            runner.fit(inversion)
    except SystemExit:  # what Lightning makes of Ctrl-C, with further ones ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    finally:
        if before is not None:
            phi.straight_through = before
    return inversion


@torch.no_grad()
def measure(inversion: Inversion, photos: Tensor | None) -> dict[str, Tensor]:
    """Return what is known of the final pre-images, each (B,) on the CPU.

    What the objective measures (of a match ``error`` ‖Φ−Φ0‖²/‖Φ0‖², ``root_error``, ``distance`` ‖Φ−Φ0‖² and
    ``code_norm`` ‖Φ0‖², else ``activation``); ``psnr`` and ``ssim`` against the photos, on values clipped to [0, 1];
    ``energy`` and its terms.

    Args:
        inversion: a fitted inversion.
        photos: (B, C, H, W) in [0, 1], the photo of every row; None where there is none.
    """
    images = inversion.reconstruction()
    found = inversion.objective.measures(inversion.phi(images))
    if photos is not None:
        photos = photos.to(images)
        found |= {"psnr": psnr(images, photos), "ssim": ssim(images, photos)}
    found |= inversion()
    return {name: value.double().cpu() for name, value in found.items()}
