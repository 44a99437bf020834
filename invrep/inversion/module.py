"""The inversion itself: a LightningModule whose only parameter is the image tensor."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from invrep.errors import out_of_memory
from invrep.inversion.compute import Compute
from invrep.inversion.convergence import converged, look_back
from invrep.inversion.pixels import Pixels
from invrep.inversion.trial import NEARLY_ZERO_CODE, ROUNDING, ZERO_CODE, empty
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.optim.optimizers import COUPLED
from invrep.priors.prior import FixedPrior
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, backward

log = logging.getLogger(__name__)
TICK = 0.25  # seconds between two calls of on_tick
SLOWER = 0.1  # what the steps of an image that diverges are multiplied by
RETRIES = 3  # before it has failed
DIVERGED = (
    "diverged, with smaller steps too: lower the learning rate (optim.lr) or the priors' weights, or use optim=adam"
)
FAULTS = (  # of Φ, met on the way with pixels that are in range: no divergence
    "",
    "failed: on the way its code became NaN or infinite, though its pixels were in range; mend Φ, which divides by "
    "zero or overflows there",
    "failed: on the way its gradient became NaN or infinite, though its code was not; add a small number below the "
    "root, norm, logarithm or quotient of Φ",
)
FEWEST = 3  # passes of a descent that is judged by its end: a first step may overshoot
IN_RANGE = 10.0  # pixels beyond ± this, in units of black to white, have run away
NO_LOWER = "ended with no lower energy than it began with: change the learning rate (optim.lr) or optim.steps"
MOST_RISE = 10.0  # of an energy, over one and its start: no descent comes back from there
KEPT = ("first", "steps", "passes", "curve", "active", "done", "ended", "pace", "latest")
KEPT += ("_good", "_started", "_rows", "_best", "_checks")


class Inversion(pl.LightningModule):
    """A batch of pre-images, each found as if it were alone.

    One Lightning step is a segment of several passes: Lightning's own cost per step would otherwise be felt. The
    representation and the objective are not registered as submodules, so that they are neither parameters nor part of
    a checkpoint.

    An image that diverges (its energy or a pixel is not finite, or the energy has left its start far behind) goes back
    to its last good state, the end of a segment, and on from there with a tenth of the step; after three times it has
    failed and stays there. So has one that ends no lower than it began. Its neighbours do not notice.

    Args:
        start: (B, C, H, W), where the descent begins, in ``prior.scale`` grey levels; with offsets larger than the
            images by the jitter's margin.
        phi: the representation Φ.
        objective: codes (list of (B, …)) → (B,).
        prior: the priors with their constants.
        descent: the recipe of descent, one stage of it.
        segment: passes between two recorded points of the curve.
        offsets: (B, passes, 2), the row and column from which each pass of each image sees it; None without jitter.
        margin: rows and columns by which ``start`` is larger than what Φ sees.
        compute: how the passes compute Φ.
        before: the stage before this one, whose passes and curve are gone on with.
        whole: passes of all stages together; None: of this one and those before it.

    Attributes:
        image: the optimised variable, (B, C, H, W), in the recipe's basis.
        passes: forward-backward evaluations so far.
        curve: (pass, {name: (B,)}) at the start, after every segment and at the end; the names are ``energy``,
            ``data``, those of the prior's terms, and what the objective shows, ``error`` or ``activation``. An image
            that has converged keeps the values of its end.
        active: (B,) bool; False for an image that has failed, which keeps its last good state.
        done: (B,) bool; True for an image that has converged (``descent.tolerance``).
        ended: (B,), the pass after which an image that has converged was left alone; 0 for others.
        pace: (B,), what the steps of each image are multiplied by; below 1 after it has diverged.
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
        offsets: Tensor | None = None,
        margin: int = 0,
        compute: Compute | None = None,
        before: Inversion | None = None,
        whole: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.basis = descent.make_basis(tuple(start.shape[1:])).to(start.device, start.dtype)
        self.image = nn.Parameter(self.basis.analyse(start.detach()).clone())
        self._unregistered = (phi, objective)
        self.prior = prior
        self.descent = descent
        steps, self._rate = descent.plan(phi)
        self.first = before.passes if before else 0
        self.steps = self.first + steps
        self.segment = segment
        self.offsets, self.margin = offsets, margin
        self.whole = whole or self.steps
        self.compute = compute or Compute()
        self.pixels = Pixels(phi.mean, prior.scale)
        self.passes = self.first
        self.curve: list[tuple[int, dict[str, Tensor]]] = list(before.curve) if before else []
        self.active = before.active.clone() if before else torch.ones(len(start), dtype=torch.bool)
        self.done = torch.zeros(len(start), dtype=torch.bool)
        self.ended = torch.zeros(len(start), dtype=torch.long)
        self.pace = torch.ones(len(start))
        self._fault = torch.zeros(len(start), dtype=torch.long)  # of Φ, by its place in FAULTS
        self.empty = empty(objective, start).cpu()
        self.on_tick: Callable[[Inversion], None] | None = None
        self.latest: dict[str, Tensor] = {}
        self._rows: Tensor | None = None  # those that still cost time, where they are not all
        self._settled = descent.settled(phi)
        self._best: Tensor | None = None  # energy of each image at any check
        self._checks: list[Tensor] = []  # energies since the recipe has settled
        self._slowed = False  # whether an image has diverged
        self._next_tick = 0.0
        self.compiling = False
        self._compiled = 0  # how many images the latest pass had

    @property
    def last(self) -> bool:
        """Whether no other stage follows."""
        return self.steps == self.whole

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
        empty = self.empty.to(self.active.device)
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
        return self.active & ~self.bare

    def points(self) -> list[tuple[int, dict[str, Tensor]]]:
        """Return the curve, with NaN for the error of an image that has none."""
        return [(at, bared(terms, self.bare)) for at, terms in self.curve]

    def reconstruction(self) -> Tensor:
        """Return the pre-images in [0, 1] (unclipped), (B, C, H, W), without the jitter's margin."""
        return self.pixels.to_rgb(self._cropped(self.basis.synthesise(self.image), None))

    def _cropped(self, x: Tensor, offsets: Tensor | None) -> Tensor:
        """Return what Φ sees of x: from each image's offset (B, 2), or the centre."""
        if not self.margin:
            return x
        height, width = (side - self.margin for side in x.shape[-2:])
        corners = [[self.margin // 2] * 2] * len(x) if offsets is None else offsets.tolist()
        crops = [image[:, i : i + height, j : j + width] for image, (i, j) in zip(x, corners, strict=True)]
        return torch.stack(crops)

    def forward(self, *, jitter: bool = False) -> dict[str, Tensor]:
        """Return the objective's value, ``energy``, ``data`` and every prior term of the present images, each (B,).

        Args:
            jitter: whether as the descent sees them: from this pass's offsets instead of the centre, and computed as
                ``compute`` says.
        """
        x = self.basis.synthesise(self.image if self._rows is None else self.image[self._rows])
        offsets = None
        if jitter and self.offsets is not None:
            offsets = self.offsets[:, self.passes - self.first]
            offsets = offsets if self._rows is None else offsets[self._rows.cpu()]
        objective = self.objective if self._rows is None else self._remaining
        images = self.pixels.to_rgb(self._cropped(x, offsets))
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
        self.active, self.done, self.ended = (part.to(device) for part in (self.active, self.done, self.ended))
        self.pace, self._fault = self.pace.to(device, dtype), self._fault.to(device)
        self._good = self.image.detach().clone()
        self._started: Tensor | None = None

    def cpu(self) -> Inversion:
        """Stay on the device when Lightning takes leave; what Lightning does not know would be left behind there."""
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the image tensor and its optimiser do not hold; tensors and numbers only."""
        del checkpoint["loops"]  # the passes that are left follow from those that are done
        checkpoint["inversion"] = {name: getattr(self, name) for name in KEPT}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""

        def here(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(self.device)
            if isinstance(value, dict):
                return {name: here(part) for name, part in value.items()}
            return type(value)(map(here, value)) if isinstance(value, list | tuple) else value

        for name, value in checkpoint["inversion"].items():
            setattr(self, name, here(value))
        if self._rows is not None:
            self._remaining = self.objective.of(self._rows)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the image tensor; its rate is set before every pass."""
        return self.descent.optimiser(self.image, self._rate(0) * self.descent.lr_unit(self.image.shape))

    def train_dataloader(self) -> DataLoader:
        """Return the lengths of the segments: the loop's data are its own passes."""
        whole, rest = divmod(self.steps - self.passes, self.segment)
        # With a generator of its own, for it draws a number whatever it loads.
        return DataLoader([self.segment] * whole + [rest] * (rest > 0), batch_size=None, generator=torch.Generator())

    def _evaluate(self) -> Tensor:
        self.image.grad = None
        terms = self(jitter=True)
        # the sum's gradient is every image's own; a mean would tie an image to how many stand beside it
        loss = terms["energy"].sum()
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
        code, gradient = self.latest["data"].isfinite(), self.image.grad.isfinite().flatten(1).all(1)
        in_range = (self.reconstruction().abs() <= IN_RANGE).flatten(1).all(1)
        for name in self.prior.terms:  # no overflow of theirs is Φ's
            in_range &= self.latest[name].abs() < torch.finfo(self.image.dtype).max ** 0.5
        at_fault = in_range & ~(code & gradient) & (self._fault == 0)
        self._fault[at_fault] = torch.where(code, 2, 1)[at_fault]

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
        optimiser = self.optimizers(use_pl_optimizer=False)
        unit = self.descent.lr_unit(self.image.shape)
        end = min(self.passes + int(passes), self.steps)
        begin = self.passes
        self._slowed = bool((self.pace != 1).any())
        while self.passes < end:
            for group in optimiser.param_groups:
                group["lr"] = self._rate(self.passes - self.first) * unit
                if "max_eval" in group:
                    group["max_eval"] = min(25, self.steps - self.passes)
            first = self.passes == begin
            was = self.image.detach().clone() if self._slowed else None
            self._announce()
            optimiser.step(self._evaluate)
            with torch.no_grad():
                if was is not None:
                    self.image.copy_(torch.lerp(was, self.image, self.pace[:, None, None, None]))
                if self.prior.ball is not None:
                    self.image.copy_(self.basis.analyse(self.prior.project(self.basis.synthesise(self.image))))
            if first:
                self._record(begin)
                self._started = self.latest["energy"] if self._started is None else self._started
            if self.on_tick is not None and (self.compiling or time.monotonic() >= self._next_tick):
                self.compiling = False
                self.on_tick(self)
                self._next_tick = time.monotonic() + TICK
        self._settle(optimiser)
        if not (self.active & ~self.done).any():
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
            self.active &= self.latest["energy"] < self.curve[0][1]["energy"]
        if bool(self.done.any()):
            self.curve = [(at, self._held(at, terms)) for at, terms in self.curve]

    def _held(self, at: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a point of the curve in which images that had ended by then have the values of their end."""
        over = self.done & (self.ended <= at)
        return {name: torch.where(over, self.latest[name], value) for name, value in terms.items()}

    def _final(self) -> dict[str, Tensor]:
        """Return the values of all images, of one after another where there is no memory for all at once."""
        try:
            return self()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        found = []
        for row in range(len(self.image)):
            self._rows = torch.tensor([row], device=self.device)
            self._remaining = self.objective.of(self._rows)
            found.append(self())
        self._rows = None
        return {name: torch.cat([terms[name] for terms in found]) for name in found[0]}

    def _record(self, passes: int) -> None:
        self.curve.append((passes, self.latest))

    @torch.no_grad()
    def _settle(self, optimiser: torch.optim.Optimizer) -> None:
        """At a segment's end, take back images that diverge, and leave out those that have converged."""
        energy, started = self.latest["energy"], self._started
        sound = self.image.isfinite().flatten(1).all(1) & energy.isfinite()
        sound &= ~(energy > started + MOST_RISE * (1 + started.abs()))
        diverged = self.active & ~self.done & ~sound
        if bool(diverged.any()):
            self.pace[diverged] *= SLOWER
            self.active &= ~(diverged & (self.pace < SLOWER**RETRIES / 2))
            if self.descent.name in COUPLED:  # of one image; its history has other shapes
                optimiser.state.clear()
            for state in optimiser.state.values():
                for value in state.values():
                    if isinstance(value, Tensor) and value.shape == self.image.shape:
                        value[diverged] = 0
        back = diverged | self.done | ~self.active
        if bool(back.any()):
            self.image.copy_(torch.where(back[:, None, None, None], self._good, self.image))
        self._good.copy_(self.image)
        if self.descent.tolerance is not None:
            self._leave_out(torch.where(sound, energy, torch.inf), self.descent.tolerance)

    def _leave_out(self, energy: Tensor, tolerance: float) -> None:
        """At a segment's end, leave out images that have converged; none has while the descent is still to change.

        Args:
            energy: (B,), not finite for an image that has just diverged.
            tolerance: of the descent.
        """
        self._best = torch.minimum(self._started if self._best is None else self._best, energy)
        unsettled = self._settled is None or self.passes - self.first <= self._settled
        if unsettled or not self.last or self._prior_factor() != 1 or self.passes >= self.steps:
            return
        self._checks.append(energy)
        left = (self.steps - self.passes) / self.segment
        now = self.active & ~self.done & converged(self._checks, self._best, left=left, tolerance=tolerance)
        del self._checks[: -look_back(left) - 1]
        if bool(now.any()):
            self.done |= now
            self.ended[now] = self.passes
            self._rows = (~self.done).nonzero()[:, 0]
            self._remaining = self.objective.of(self._rows)

    def whys(self) -> list[str | None]:
        """Return why each image has failed, as the rest of a sentence that begins with its name; None if it has not."""
        failed, slowed, faults = (~self.active).tolist(), (self.pace < 1).tolist(), self._fault.tolist()
        return [
            (FAULTS[fault] or (DIVERGED if slow else NO_LOWER)) if wrong else None
            for wrong, slow, fault in zip(failed, slowed, faults, strict=True)
        ]


def bared(terms: Mapping[str, Tensor], bare: Tensor) -> dict[str, Tensor]:
    """Return values with NaN for the relative errors of images that have none."""
    relative = [name for name in terms if name == "root_error" or name.partition("/")[0] == "error"]
    return {**terms, **{name: terms[name].masked_fill(bare, math.nan) for name in relative}}
