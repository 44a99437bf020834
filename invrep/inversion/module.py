"""Define the inversion: a LightningModule whose only parameter is the image tensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invrep.errors import out_of_memory
from invrep.inversion.compute import Compute, laid, multiplies_bfloat16
from invrep.inversion.curve import Curve, bared, held, point_follows, undo
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
FEWEST = 3  # passes; a shorter descent is not judged by its last energy, since a first step may overshoot
IN_RANGE = 10.0  # in units of black to white; pixels beyond ± this have diverged
KEPT = ("first", "steps", "passes", "curve", "latest")


class Inversion(pl.LightningModule):
    """Invert a batch of images, each independently of its neighbours.

    One Lightning step is a segment of several passes, which makes Lightning's own cost per step negligible. The
    representation and the objective are not registered as submodules. So they are neither parameters nor part of a
    checkpoint.

    An image that diverges resumes with smaller steps, and fails after several attempts. An image that has converged
    takes no further passes (:class:`~invrep.inversion.status.BatchStatus`). An image whose energy ends no lower than
    it began has failed.

    Args:
        start: image tensor (B, C, H, W) at which the descent begins, in units of ``prior.scale`` grey levels; the
            jitter's margin makes it larger than the images.
        phi: representation Φ.
        objective: map from codes, a list of (B, …), to (B,) values.
        prior: priors with their constants.
        descent: one stage of the recipe of descent.
        segment: number of passes in a Lightning step, and most passes between two points of the curve.
        jitter: offsets at which each pass sees each image; None: Φ sees all of ``start``.
        compute: precision, memory layout and compilation of the passes.
        before: previous stage; this stage continues its count of passes and its curve.
        whole: number of passes of all stages together; None: of the stages up to this one.
        still: bool; True for a start that is the result: it takes no pass, and its curve is one point.

    Attributes:
        image: optimised variable, (B, C, H, W), in the recipe's basis.
        passes: number of forward and backward passes so far.
        curve: list of (pass, {name: (B,)}): each of a stage's first passes, then passes a 40th apart, the first pass of
            each segment, and the end. The names are ``energy``, ``data``, the prior's terms, and the objective's
            ``error`` or ``activation``. A converged image keeps its final values. An image that diverges has, for the
            passes that are undone, the values to which it returns.
        status: status of each image: active, converged or slowed down.
        latest: values of the last pass, {name: (B,)}.
        empty: bool (B,), on the CPU; True where the target code is zero, so that no relative error exists.
        on_tick: function of this module, called a few times a second within a segment.
        compiling: bool; True while the current pass may wait for torch.compile.
        stopping: bool; True ends the descent, and further stages of it, after the current pass.
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
        still: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        channels, height, width = start.shape[1:]
        self.basis = descent.make_basis((channels, height, width), phi).to(start.device, start.dtype)
        self.image = nn.Parameter(self.basis.analyse(start.detach()).clone())
        self._unregistered = (phi, objective)
        self.prior = prior
        self.descent = descent
        steps, self._rate = descent.plan(phi)
        self.still, steps = still, 0 if still else steps
        self.first = before.passes if before else 0
        self.steps = self.first + steps
        self.segment = segment
        self.jitter = jitter
        self.whole = self.steps if still else whole or self.steps
        self.compute = compute or Compute()
        self.pixels = Pixels(phi.mean, prior.scale)
        self.passes: int = self.first
        self.curve: Curve = list(before.curve) if before else []
        self.status: BatchStatus = BatchStatus(len(start), before.status.active if before else None)
        self.empty = empty(objective, start).cpu()
        self.on_tick: Callable[[Inversion], None] | None = None
        self.latest: dict[str, Tensor] = {}
        self._rows: Tensor | None = None  # rows that still take passes; None: all
        # a denoiser's steps fade until the last pass
        self._settled = None if prior.denoiser else descent.settled(phi)
        self._slowed = False  # True once an image of this stage has diverged
        self._next_tick = 0.0
        self._due = False  # True while the next pass is to be a point of the curve
        self.compiling = False
        self.stopping = False
        self._compiled = (0, False)  # number of images in the latest pass, and whether it was in bfloat16

    @property
    def last(self) -> bool:
        """Return whether this stage is the recipe's last one."""
        return self.steps == self.whole

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and width, in pixels, of the images that Φ sees."""
        height, width = (side - (self.jitter.margin if self.jitter else 0) for side in self.image.shape[-2:])
        return height, width

    @property
    def phi(self) -> Representation:
        """Return the representation Φ."""
        return self._unregistered[0]

    @property
    def objective(self) -> Objective:
        """Return the objective, which holds the target code of every image."""
        return self._unregistered[1]

    @property
    def bare(self) -> Tensor:
        """Return which images have no relative error, (B,) bool: their target code is zero up to rounding.

        A target code counts as zero where the relative error of the start exceeds 1/ε of float32. The start's code is
        of ordinary size, so the target code is then smaller than float32 can resolve beside it.
        """
        empty = self.empty.to(self.status.active.device)
        if not self.curve or self.objective.shows != "error":
            return empty
        return empty | (self.curve[0][1]["error"] > 1 / ROUNDING)

    @property
    def remarks(self) -> list[str]:
        """Return for each image why it has no relative error; an empty text where it has one."""
        pairs = zip(self.empty.tolist(), self.bare.tolist(), strict=True)
        return [ZERO_CODE if empty else NEARLY_ZERO_CODE if bare else "" for empty, bare in pairs]

    @property
    def counted(self) -> Tensor:
        """Return which images enter a mean, (B,) bool: images without a failure and without a remark."""
        return self.status.active & ~self.bare

    def points(self) -> Curve:
        """Return the curve, with NaN for the relative error of an image that has none."""
        bare = self.bare
        return [(at, bared(terms, bare)) for at, terms in self.curve] if bool(bare.any()) else list(self.curve)

    def reconstruction(self) -> Tensor:
        """Return the pre-images, (B, C, H, W), without the jitter's margin; 0 to 1 is black to white, unclipped."""
        x = self.basis.synthesise(self.image)
        return self.pixels.to_rgb(x if self.jitter is None else self.jitter.centre(x))

    def forward(self, *, jitter: bool = False) -> dict[str, Tensor]:
        """Return the objective's value, ``energy``, ``data`` and every prior term of the current images, each (B,).

        Args:
            jitter: bool; True: the crop at this pass's offsets, with the precision, layout and compilation of
                ``compute``; False: the centre crop, computed exactly.
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
        value = objective.value(self._encode(images, self.surrogate, self._progress) if jitter else self.phi(images))
        terms = {"data": objective.energy(value), **self.prior(x)}
        return {objective.shows: value, "energy": torch.stack(list(terms.values())).sum(0), **terms}

    def setup(self, stage: str) -> None:
        """Move unregistered parts to the Trainer's device and to the precision of the image tensor."""
        self.to(self.trainer.strategy.root_device)  # Lightning moves the module only after this hook
        device, dtype = self.device, self.image.dtype
        phi = self.phi.private(device, dtype)
        # Codes and target codes in different layouts would cost several times the arithmetic between them.
        layout = self.compute.layout(phi, device)
        self._unregistered = (phi, laid(self.objective.to(device, dtype), layout))
        self._encode = self.compute.encoder(phi)
        self.pixels, self.basis = self.pixels.to(device, dtype), self.basis.to(device, dtype)
        self.status.begin(self.image)

    def cpu(self) -> Inversion:
        """Keep the module on its device.

        After a fit, Lightning moves registered state to the CPU, and unregistered state would stay behind.
        """
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curve, the counts of passes and the status of each image; tensors and numbers only."""
        del checkpoint["loops"]  # the count of passes determines which segments remain
        checkpoint["inversion"] = {name: getattr(self, name) for name in KEPT} | self.status.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of an interrupted descent."""

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
        """Return the optimiser of the image tensor; ``training_step`` sets its learning rate before every pass."""
        return self.descent.optimiser(self.image, self._rate(0) * self.descent.lr_unit(self.image.shape))

    def train_dataloader(self) -> DataLoader[int]:
        """Return the lengths of the segments: Lightning's batches are numbers of passes here."""
        whole, rest = divmod(self.steps - self.passes, self.segment)
        # A DataLoader draws a random number even here; its own generator leaves the user's random state untouched.
        # still images take one segment without a pass, since Lightning calls no callback where there is none
        segments = [0] if self.still else [self.segment] * whole + [rest] * (rest > 0)
        lengths = cast("Dataset[int]", segments)  # a list has a Dataset's methods
        return DataLoader(lengths, batch_size=None, generator=torch.Generator())

    def _evaluate(self) -> Tensor:
        self.image.grad = None
        terms = self(jitter=True)
        # a sum gives every image its own gradient; a mean would divide it by the number of images in the batch
        loss: Tensor = terms["energy"].sum()
        extra = self._prior_factor() - 1
        if extra and self.prior.terms:
            loss = loss + extra * torch.stack([terms[name] for name in self.prior.terms]).sum()
        with self.compute.rounding():
            backward(loss, self.surrogate)
        self._keep({name: value.detach() for name, value in terms.items()})
        if self._due:  # the first pass of an optimiser's step sees the images as the last step left them
            self._record(self.passes)
            self._due = False
        if self._slowed:
            self._blame()
        self.passes += 1
        return loss.detach()

    @torch.no_grad()
    def _blame(self) -> None:
        """Note for slowed images whether Φ returned NaN or infinity in this pass although their pixels were in range.

        The distinction matters for the message: a fault of Φ needs another mend than a learning rate.
        """
        assert self.image.grad is not None  # a pass has set it
        code, gradient = self.latest["data"].isfinite(), self.image.grad.isfinite().flatten(1).all(1)
        in_range = (self.reconstruction().abs() <= IN_RANGE).flatten(1).all(1)
        for name in self.prior.terms:  # an overflow of a prior is no fault of Φ
            in_range &= self.latest[name].abs() < torch.finfo(self.image.dtype).max ** 0.5
        self.status.blame(code, gradient, in_range)

    @property
    def surrogate(self) -> Surrogate | None:
        """Return the surrogate gradient of the next pass, softest at the start and exact at the end; None: exact."""
        return Surrogate(1 - self.passes / self.whole) if self.descent.straight_through else None

    @property
    def _progress(self) -> float:
        """Return the share of all passes that are done after the next one, in (0, 1]."""
        return (self.passes + 1) / self.whole

    def _prior_factor(self) -> float:
        """Return the factor on the priors' weights in the next pass; 1 leaves them as in the energy."""
        return 1.0 if self.objective.starts_from_photo else self.descent.prior_factor(self.passes / self.whole)

    def _keep(self, terms: dict[str, Tensor]) -> None:
        """Store the values of this pass. Inactive images keep their previous values."""
        if self._rows is None:
            self.latest = terms
        else:
            self.latest = {name: self.latest[name].index_copy(0, self._rows, value) for name, value in terms.items()}

    def training_step(self, passes: int, _: int) -> None:
        """Run one segment of passes."""
        if self.still:
            return
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
            self._due = self.passes == begin or point_follows(self.curve, self.passes, self.first)
            was = self.image.detach().clone() if self._slowed else None
            self._announce()
            optimiser.step(cast("Callable[[], float]", self._evaluate))  # torch returns the closure's loss unchanged
            with torch.no_grad():
                if was is not None:
                    self.image.copy_(torch.lerp(was, self.image, self.status.pace[:, None, None, None]))
                if self.prior.ball is not None:
                    self.image.copy_(self.basis.analyse(self.prior.project(self.basis.synthesise(self.image))))
                self._denoise()
            if self.status.started is None:
                self.status.started = self.curve[-1][1]["energy"]
            if self.on_tick is not None and (self.compiling or time.monotonic() >= self._next_tick):
                self.compiling = False
                self.on_tick(self)
                self._next_tick = time.monotonic() + TICK
            if self.stopping:
                break
        self._settle(optimiser, begin)
        if self.status.over or self.stopping:
            self.trainer.should_stop = True

    def _denoise(self) -> None:
        """Take the denoiser's step of the images that still take passes, where one follows this pass."""
        denoiser = self.prior.denoiser
        if denoiser is None or self.passes % denoiser.every:
            return
        rows = slice(None) if self._rows is None else self._rows
        x = self.basis.synthesise(self.image[rows])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=multiplies_bfloat16(self.device)):
            x = self.prior.denoised(x, self.passes / self.whole)
        self.image[rows] = self.basis.analyse(x)

    def _announce(self) -> None:
        """Call ``on_tick`` before a pass that torch.compile delays: the first of this batch size and rounding."""
        if self.compute.compile is None:
            return
        count = len(self.image) if self._rows is None else len(self._rows)
        graph = (count, self.compute.rounds(self.phi, self.device, self._progress))
        self.compiling = graph != self._compiled
        self._compiled = graph
        if self.compiling and self.on_tick is not None:
            self.on_tick(self)

    def on_train_end(self) -> None:
        """Evaluate the final images for the curve's last point, and fail images whose energy is no lower."""
        self._rows = None
        with torch.no_grad():
            self.latest = self._final()
        self._record(self.passes)
        if self.last and self.passes >= FEWEST:
            self.status.active &= self.latest["energy"] < self.curve[0][1]["energy"]
        if bool(self.status.done.any()):
            first = int(self.status.ended[self.status.done].min())
            for k, (at, terms) in enumerate(self.curve):
                if at >= first:
                    self.curve[k] = at, held(self.status.ended_by(at), self.latest, terms)

    def _final(self) -> dict[str, Tensor]:
        """Return the values of all images; where memory is short, compute them one image at a time."""
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
        """Restrict further passes to these rows of the image tensor."""
        self._rows = rows
        self._remaining = self.objective.of(rows)

    @torch.no_grad()
    def _settle(self, optimiser: torch.optim.Optimizer, begin: int) -> None:
        """End a segment: reset images that diverge to their last good state, and exclude converged images.

        Args:
            optimiser: optimiser of the image tensor.
            begin: number of passes before the segment.
        """
        energy, coupled = self.latest["energy"], self.descent.name in COUPLED
        sound = self.status.take_back(self.image, energy, optimiser, coupled=coupled)
        if self.passes > begin and not bool(sound.all()):  # L-BFGS may have used up a segment's passes before it
            undo(self.curve, ~sound, begin)
        if self.descent.tolerance is None:
            return
        settled = self._settled is not None and self.passes - self.first > self._settled
        judged = settled and self.last and self._prior_factor() == 1 and self.passes < self.steps
        left = (self.steps - self.passes) / self.segment if judged else None
        energy = torch.where(sound, energy, torch.inf)
        if self.status.check(energy, passes=self.passes, left=left, tolerance=self.descent.tolerance):
            self._go_on_with((~self.status.done).nonzero()[:, 0])
