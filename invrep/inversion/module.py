"""The inversion itself: a LightningModule whose only parameter is the image tensor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invrep.errors import out_of_memory
from invrep.inversion.compute import Compute
from invrep.inversion.jitter import Jitter
from invrep.inversion.pixels import Pixels
from invrep.inversion.status import BatchStatus
from invrep.inversion.trial import NEARLY_ZERO_CODE, ROUNDING, ZERO_CODE, empty
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.optim.optimizers import COUPLED
from invrep.priors.prior import FixedPrior
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, backward

TICK = 0.25  # seconds between two calls of on_tick
FEWEST = 3  # passes of a descent that is judged by its end: a first step may overshoot
IN_RANGE = 10.0  # pixels beyond ± this, in units of black to white, have run away
KEPT = ("first", "steps", "passes", "curve", "latest")


class Inversion(pl.LightningModule):
    """A batch of pre-images, each found as if it were alone.

    One Lightning step is a segment of several passes: Lightning's own cost per step would otherwise be felt. The
    representation and the objective are not registered as submodules, so that they are neither parameters nor part of
    a checkpoint.

    An image that diverges is slowed down, and in the end given up; one that has converged is left alone
    (:class:`~invrep.inversion.status.BatchStatus`). An image that ends no lower than it began has failed.

    Args:
        start: (B, C, H, W), where the descent begins, in ``prior.scale`` grey levels; larger than the images by the
            jitter's margin.
        phi: the representation Φ.
        objective: codes (list of (B, …)) → (B,).
        prior: the priors with their constants.
        descent: the recipe of descent, one stage of it.
        segment: passes between two recorded points of the curve.
        jitter: from where each pass sees each image; None: Φ sees all of ``start``.
        compute: how the passes compute Φ.
        before: the stage before this one, whose passes and curve are gone on with.
        whole: passes of all stages together; None: of this one and those before it.

    Attributes:
        image: the optimised variable, (B, C, H, W), in the recipe's basis.
        passes: forward-backward evaluations so far.
        curve: (pass, {name: (B,)}) at the start, after every segment and at the end; the names are ``energy``,
            ``data``, those of the prior's terms, and what the objective shows, ``error`` or ``activation``. An image
            that has converged keeps the values of its end.
        status: of each image: whether it is active, converged or slowed down.
        latest: {name: (B,)} of the last pass.
        empty: (B,) bool, on the CPU; True for an image whose objective has nothing to compare with.
        on_tick: called with this module a few times a second, from inside a segment.
        compiling: whether the present pass may have to wait for torch.compile.
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
        jitter: Jitter | None = None,
        compute: Compute | None = None,
        before: Inversion | None = None,
        whole: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        channels, height, width = start.shape[1:]
        self.basis = descent.make_basis((channels, height, width)).to(start.device, start.dtype)
        self.image = nn.Parameter(self.basis.analyse(start.detach()).clone())
        self._unregistered = (phi, objective)
        self.prior = prior
        self.descent = descent
        steps, self._rate = descent.plan(phi)
        self.first = before.passes if before else 0
        self.steps = self.first + steps
        self.segment = segment
        self.jitter = jitter
        self.whole = whole or self.steps
        self.compute = compute or Compute()
        self.pixels = Pixels(phi.mean, prior.scale)
        self.passes: int = self.first
        self.curve: list[tuple[int, dict[str, Tensor]]] = list(before.curve) if before else []
        self.status: BatchStatus = BatchStatus(len(start), before.status.active if before else None)
        self.empty = empty(objective, start).cpu()
        self.on_tick: Callable[[Inversion], None] | None = None
        self.latest: dict[str, Tensor] = {}
        self._rows: Tensor | None = None  # those that still cost time, where they are not all
        self._settled = descent.settled(phi)
        self._slowed = False  # whether an image has diverged
        self._next_tick = 0.0
        self.compiling = False
        self._compiled = 0  # how many images the latest pass had

    @property
    def last(self) -> bool:
        """Whether no other stage follows."""
        return self.steps == self.whole

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of what Φ sees."""
        height, width = (side - (self.jitter.margin if self.jitter else 0) for side in self.image.shape[-2:])
        return height, width

    @property
    def phi(self) -> Representation:
        """The representation Φ."""
        return self._unregistered[0]

    @property
    def objective(self) -> Objective:
        """The objective, which holds what is asked of every row's code."""
        return self._unregistered[1]

    @property
    def bare(self) -> Tensor:
        """Which images have no relative error, (B,) bool: their code is zero, or zero but for rounding.

        Rounding it is where the start's relative error, of an ordinary code beside this one, is beyond float32's
        precision.
        """
        empty = self.empty.to(self.status.active.device)
        if not self.curve or self.objective.shows != "error":
            return empty
        return empty | (self.curve[0][1]["error"] > 1 / ROUNDING)

    @property
    def remarks(self) -> list[str]:
        """Why an image has no relative error; blank for one that has."""
        pairs = zip(self.empty.tolist(), self.bare.tolist(), strict=True)
        return [ZERO_CODE if empty else NEARLY_ZERO_CODE if bare else "" for empty, bare in pairs]

    @property
    def counted(self) -> Tensor:
        """Which images a mean is taken of, (B,) bool: those that have not failed and bear no remark."""
        return self.status.active & ~self.bare

    def points(self) -> list[tuple[int, dict[str, Tensor]]]:
        """Return the curve, with NaN for the error of an image that has none."""
        return [(at, bared(terms, self.bare)) for at, terms in self.curve]

    def reconstruction(self) -> Tensor:
        """Return the pre-images in [0, 1] (unclipped), (B, C, H, W), without the jitter's margin."""
        x = self.basis.synthesise(self.image)
        return self.pixels.to_rgb(x if self.jitter is None else self.jitter.centre(x))

    def forward(self, *, jitter: bool = False) -> dict[str, Tensor]:
        """Return the objective's value, ``energy``, ``data`` and every prior term of the present images, each (B,).

        Args:
            jitter: whether as the descent sees them: from this pass's offsets instead of the centre, and computed as
                ``compute`` says.
        """
        x = self.basis.synthesise(self.image if self._rows is None else self.image[self._rows])
        if self.jitter is None:
            seen = x
        elif jitter:
            seen = self.jitter.crop(x, self.passes - self.first, self._rows)
        else:
            seen = self.jitter.centre(x)
        objective = self.objective if self._rows is None else self._remaining
        images = self.pixels.to_rgb(seen)
        value = objective.value(self._encode(images, self.surrogate) if jitter else self.phi(images))
        terms = {"data": objective.energy(value), **self.prior(x)}
        return {objective.shows: value, "energy": torch.stack(list(terms.values())).sum(0), **terms}

    def setup(self, stage: str) -> None:
        """Bring what is not registered to the Trainer's device and the precision of the image tensor."""
        self.to(self.trainer.strategy.root_device)  # Lightning itself does so only after this
        device, dtype = self.device, self.image.dtype
        self._unregistered = (self.phi.private(device, dtype), self.objective.to(device, dtype))
        self._encode = self.compute.encoder(self.phi)
        self.pixels, self.basis = self.pixels.to(device, dtype), self.basis.to(device, dtype)
        self.status.begin(self.image)

    def cpu(self) -> Inversion:
        """Stay on the device when Lightning takes leave; what Lightning does not know would be left behind there."""
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the image tensor and its optimiser do not hold; tensors and numbers only."""
        del checkpoint["loops"]  # the passes that are left follow from those that are done
        checkpoint["inversion"] = {name: getattr(self, name) for name in KEPT} | self.status.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""

        def here(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(self.device)
            if isinstance(value, dict):
                return {name: here(part) for name, part in value.items()}
            return type(value)(map(here, value)) if isinstance(value, list | tuple) else value

        state = here(checkpoint["inversion"])
        for name in KEPT:
            setattr(self, name, state[name])
        self.status.restore(state)
        if bool(self.status.done.any()):
            self._go_on_with((~self.status.done).nonzero()[:, 0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the image tensor; its rate is set before every pass."""
        return self.descent.optimiser(self.image, self._rate(0) * self.descent.lr_unit(self.image.shape))

    def train_dataloader(self) -> DataLoader[int]:
        """Return the lengths of the segments: the loop's data are its own passes."""
        whole, rest = divmod(self.steps - self.passes, self.segment)
        # With a generator of its own, for it draws a number whatever it loads.
        lengths = cast("Dataset[int]", [self.segment] * whole + [rest] * (rest > 0))  # whose methods a list has
        return DataLoader(lengths, batch_size=None, generator=torch.Generator())

    def _evaluate(self) -> Tensor:
        self.image.grad = None
        terms = self(jitter=True)
        # the sum's gradient is every image's own; a mean would tie an image to how many stand beside it
        loss: Tensor = terms["energy"].sum()
        extra = self._prior_factor() - 1
        if extra and self.prior.terms:
            loss = loss + extra * torch.stack([terms[name] for name in self.prior.terms]).sum()
        with self.compute.rounding():
            backward(loss, self.surrogate)
        self._keep({name: value.detach() for name, value in terms.items()})
        if self._slowed:
            self._blame()
        self.passes += 1
        return loss.detach()

    @torch.no_grad()
    def _blame(self) -> None:
        """Note of images that are being slowed down whether it is Φ that is at fault in this pass, and how."""
        assert self.image.grad is not None  # after a pass
        code, gradient = self.latest["data"].isfinite(), self.image.grad.isfinite().flatten(1).all(1)
        in_range = (self.reconstruction().abs() <= IN_RANGE).flatten(1).all(1)
        for name in self.prior.terms:  # no overflow of theirs is Φ's
            in_range &= self.latest[name].abs() < torch.finfo(self.image.dtype).max ** 0.5
        self.status.blame(code, gradient, in_range)

    @property
    def surrogate(self) -> Surrogate | None:
        """The gradient of the coming pass: the descent begins soft and ends with the exact one."""
        return Surrogate(1 - self.passes / self.whole) if self.descent.straight_through else None

    def _prior_factor(self) -> float:
        """Return what the priors weigh in the coming pass over what they weigh in the energy."""
        return 1.0 if self.objective.starts_from_photo else self.descent.prior_factor(self.passes / self.whole)

    def _keep(self, terms: dict[str, Tensor]) -> None:
        """Take the values of a pass as the latest; images that cost no more time keep theirs."""
        if self._rows is None:
            self.latest = terms
        else:
            self.latest = {name: self.latest[name].index_copy(0, self._rows, value) for name, value in terms.items()}

    def training_step(self, passes: int, _: int) -> None:
        """Do a segment of passes."""
        optimiser = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        unit = self.descent.lr_unit(self.image.shape)
        end = min(self.passes + int(passes), self.steps)
        begin = self.passes
        self._slowed = self.status.slowed
        while self.passes < end:
            for group in optimiser.param_groups:
                group["lr"] = self._rate(self.passes - self.first) * unit
                if "max_eval" in group:
                    group["max_eval"] = min(25, self.steps - self.passes)
            first = self.passes == begin
            was = self.image.detach().clone() if self._slowed else None
            self._announce()
            optimiser.step(cast("Callable[[], float]", self._evaluate))  # torch hands the loss through as it is
            with torch.no_grad():
                if was is not None:
                    self.image.copy_(torch.lerp(was, self.image, self.status.pace[:, None, None, None]))
                if self.prior.ball is not None:
                    self.image.copy_(self.basis.analyse(self.prior.project(self.basis.synthesise(self.image))))
            if first:
                self._record(begin)
                if self.status.started is None:
                    self.status.started = self.latest["energy"]
            if self.on_tick is not None and (self.compiling or time.monotonic() >= self._next_tick):
                self.compiling = False
                self.on_tick(self)
                self._next_tick = time.monotonic() + TICK
        self._settle(optimiser)
        if self.status.over:
            self.trainer.should_stop = True

    def _announce(self) -> None:
        """Tell before a pass that torch.compile will work: of the first one with so many images."""
        count = len(self.image) if self._rows is None else len(self._rows)
        self.compiling = self.compute.compile is not None and count != self._compiled
        self._compiled = count
        if self.compiling and self.on_tick is not None:
            self.on_tick(self)

    def on_train_end(self) -> None:
        """Evaluate the final images once more, for the curve's last point, and give up those that are no lower."""
        self._rows = None
        with torch.no_grad():
            self.latest = self._final()
        self._record(self.passes)
        if self.last and self.passes >= FEWEST:
            self.status.active &= self.latest["energy"] < self.curve[0][1]["energy"]
        if bool(self.status.done.any()):
            self.curve = [(at, self._held(at, terms)) for at, terms in self.curve]

    def _held(self, at: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a point of the curve in which images that had ended by then have the values of their end."""
        over = self.status.ended_by(at)
        return {name: torch.where(over, self.latest[name], value) for name, value in terms.items()}

    def _final(self) -> dict[str, Tensor]:
        """Return the values of all images, of one after another where there is no memory for all at once."""
        try:
            terms: dict[str, Tensor] = self()
            return terms
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        single = []
        for row in range(len(self.image)):
            self._go_on_with(torch.tensor([row], device=self.device))
            single.append(self())
        self._rows = None
        return {name: torch.cat([terms[name] for terms in single]) for name in single[0]}

    def _record(self, passes: int) -> None:
        self.curve.append((passes, self.latest))

    def _go_on_with(self, rows: Tensor) -> None:
        """Pass only these rows of the image tensor from now on."""
        self._rows = rows
        self._remaining = self.objective.of(rows)

    @torch.no_grad()
    def _settle(self, optimiser: torch.optim.Optimizer) -> None:
        """At a segment's end, take back images that diverge, and leave out those that have converged."""
        energy, coupled = self.latest["energy"], self.descent.name in COUPLED
        sound = self.status.take_back(self.image, energy, optimiser, coupled=coupled)
        if self.descent.tolerance is None:
            return
        settled = self._settled is not None and self.passes - self.first > self._settled
        judged = settled and self.last and self._prior_factor() == 1 and self.passes < self.steps
        left = (self.steps - self.passes) / self.segment if judged else None
        energy = torch.where(sound, energy, torch.inf)
        if self.status.check(energy, passes=self.passes, left=left, tolerance=self.descent.tolerance):
            self._go_on_with((~self.status.done).nonzero()[:, 0])


def bared(terms: Mapping[str, Tensor], bare: Tensor) -> dict[str, Tensor]:
    """Return values with NaN for the relative errors of images that have none."""
    relative = [name for name in terms if name == "root_error" or name.partition("/")[0] == "error"]
    return {**terms, **{name: terms[name].masked_fill(bare, math.nan) for name in relative}}
