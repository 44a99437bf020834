"""Describe a descent: an optimiser of torch or of the authors, a schedule and a start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from invrep.errors import InvrepError
from invrep.optim.bases import FourierBasis, PixelBasis
from invrep.optim.optimizers import COUPLED, OURS, names
from invrep.optim.start_noise import amount_of, generator_of, noise_of
from invrep.priors.prior import FixedPrior
from invrep.priors.terms import BOUND, PIXEL_RMS
from invrep.representations.base import Representation
from invrep.stable_names import known_as
from invrep.validation import choice, number

FUSED = ("Adam", "AdamW")  # on a CPU, torch fuses their seven operations only where it is told to
EXCLUDE_FUSED = {"fused", "foreach", "capturable", "differentiable"}
# Checks of CUDA graphs in each step: on a machine without a GPU they look for its driver, for .7 ms each time.
GRAPH_CHECKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
SLOW, FAST = 0.03, 0.08  # learning rates that ``auto`` takes
QUARTER, STEEP = 0.25, 1.25  # decorrelation and slope that ``auto`` takes
SCHEDULES = ("constant", "linear", "cosine", "auto")


@known_as("descent")
@dataclass
class Descent:
    """Describe how an energy is descended.

    Attributes:
        name: class of ``torch.optim``, ``HeavyBall`` (CVPR) or ``ForgettingAdaGrad`` (IJCV).
        lr: learning rate of the optimised variable, above 0, see :attr:`scale`; ``auto``: .03 for a Φ that ignores
            contrast, else .08; for ``ForgettingAdaGrad`` in units of
            the paper's H·W·.05·80²/6. A schedule of stages ignores it.
        steps: passes (forward-backward evaluations), at least 1; None takes the sum of a schedule's stages.
        schedule: schedule of the learning rate. ``constant`` keeps it; ``linear`` and ``cosine`` fall to 0. A list of
            stages ``[[lr, passes], …]`` stretches to ``steps``. ``auto`` takes the paper's stages for this
            representation.
        start: amplitude of the start noise, at least 0, see ``noise``.
        noise: kind of the start noise. ``gaussian`` has the L2 norm ``start``·σ (CVPR: 1). ``uniform`` lies between
            ±``start``·80/√3 grey levels over its own 95 % quantile (IJCV: 1). ``natural`` is Gaussian of L2 norm
            ``start``·σ with the spectrum 1/f of photos.
        basis: basis of the optimised tensor, ``pixel`` or ``fourier`` (:mod:`invrep.optim.bases`).
        decorrelate: how far the basis ``fourier`` decorrelates RGB by the natural colour covariance, from 0, not at
            all, to 1, wholly (:class:`~invrep.optim.bases.FourierBasis`). ``auto`` is a quarter, and 0 for the basis
            ``pixel``, for grey images and for a Φ that ignores contrast.
        slope: exponent of the frequency by which the basis ``fourier`` scales its coefficients, at least 0. ``auto``: 1
            for a Φ that ignores contrast, else 1.25.
        warm_up: passes over which the rate rises to the schedule's.
        jitter: whether each pass sees the image shifted by up to a quarter of the layer's stride (IJCV). The optimised
            image is larger by this margin.
        polish: passes of a second stage, at most half of all, at a tenth of the rate and without jitter.
        tolerance: relative decrease of the energy, at least 0. An image has converged, and stops, when its remaining
            passes can lower its energy by no more (:mod:`invrep.inversion.convergence`). No image converges before
            :meth:`settled`. When an image stops, the batch shrinks and rounds differently, so other images' last bits
            depend on it. None: every image takes every pass.
        continuation: factor of the priors' weights in the first pass of a descent from noise, at least 1. It falls to 1
            over the first half of the passes. Reported energies use the weights without it.
        options: further keyword arguments of the optimiser's class.
        straight_through: whether the descent follows the gradient of a smoothed Φ (:mod:`~.surrogate`). HOG's hard
            binning takes the gradient of its bilinear binning. A network's ReLUs take the gradient of sigmoids that
            narrow to steps.

    Raises:
        InvrepError: a setting is out of its range, or two settings exclude each other.
    """

    name: str = "Adam"
    lr: float | str = 0.05
    steps: int | None = 400
    schedule: str | Sequence[Sequence[float]] = "cosine"
    start: float = 0.1
    noise: str = "gaussian"
    basis: str = "pixel"
    decorrelate: float | str = 0.0
    slope: float | str = 1.0
    warm_up: int = 0
    jitter: bool = False
    polish: int = 0
    tolerance: float | None = None
    continuation: float = 1.0
    options: Mapping[str, Any] | None = None
    straight_through: bool = True

    def __post_init__(self) -> None:
        choice("optim.name", self.name, names())
        self.lr = self.lr if self.lr == "auto" else number("optim.lr", self.lr, above=0, word="auto")
        self.start = number("optim.start", self.start, minimum=0)
        if self.steps is not None:
            self.steps = number("optim.steps", self.steps, minimum=1, whole=True)
        choice("optim.noise", self.noise, ("gaussian", "natural", "uniform"))
        choice("optim.basis", self.basis, ("pixel", "fourier"))
        self.warm_up = number("optim.warm_up", self.warm_up, minimum=0, whole=True)
        self.polish = number("optim.polish", self.polish, minimum=0, whole=True)
        if self.decorrelate != "auto":
            share = float(self.decorrelate) if isinstance(self.decorrelate, bool) else self.decorrelate
            self.decorrelate = number("optim.decorrelate", share, minimum=0, maximum=1, word="auto")
        self.slope = self.slope if self.slope == "auto" else number("optim.slope", self.slope, minimum=0, word="auto")
        if self.decorrelate not in (0, "auto") and self.basis == "pixel":
            raise InvrepError(
                "optim.decorrelate has no effect on the basis pixel: add basis=fourier, or optim.decorrelate=0."
            )
        if self.polish and (self.schedule == "auto" or not isinstance(self.schedule, str)):
            raise InvrepError(
                f"optim.polish={self.polish} takes a tenth of optim.lr, which a schedule of stages does not use: add "
                f"optim.polish=0, and a last stage to optim.schedule."
            )
        if self.tolerance is not None:
            self.tolerance = number("optim.tolerance", self.tolerance, minimum=0, word="null")
        self.continuation = number("optim.continuation", self.continuation, minimum=1)
        for key in ("jitter", "straight_through"):
            if not isinstance(getattr(self, key), bool):
                raise InvrepError(f"optim.{key}={getattr(self, key)} is not valid: expected true or false.")
        if isinstance(self.schedule, str):
            choice("optim.schedule", self.schedule, SCHEDULES)
        else:
            for stage in self.schedule:
                if not isinstance(stage, Sequence) or isinstance(stage, str) or len(stage) != 2:
                    raise InvrepError(f"optim.schedule has the stage {stage}: expected [learning rate, passes].")
                number("optim.schedule's learning rate", stage[0], above=0)
                number("optim.schedule's number of passes", stage[1], minimum=1, whole=True)
        if self.steps is None and self.schedule in SCHEDULES[:3]:
            raise InvrepError(f"optim.steps is missing: the schedule {self.schedule!r} needs a number of passes.")

    def stages(self, phi: Representation) -> list[Descent]:
        """Return the recipe's stages; each starts from the reconstruction of the stage before."""
        steps, _ = self.plan(phi)
        polish = min(self.polish, steps // 2)
        if not polish:
            return [self]
        first = replace(self, steps=steps - polish, polish=0)
        return [first, replace(first, steps=polish, lr=self.top(phi) / 10, schedule="constant", jitter=False)]

    def settled(self, phi: Representation) -> int | None:
        """Return the first pass with the rate and gradient of all later ones; None where the last two passes differ."""
        steps, rate = self.plan(phi)
        if self.straight_through:  # a smoothed gradient sharpens until the last pass
            return None
        rates = [rate(k) for k in range(steps)]
        first = next((k for k in range(steps - 1, 0, -1) if rates[k - 1] != rates[-1]), 0)
        return first if first < steps - 1 else None

    def top(self, phi: Representation) -> float:
        """Return the greatest learning rate of a schedule with a name."""
        if self.lr != "auto":
            return float(self.lr)
        return SLOW if phi.ignores_contrast else FAST

    def plan(self, phi: Representation) -> tuple[int, Callable[[int], float]]:
        """Return the number of passes, and the learning rate as a function of the passes done."""
        steps, rate = self._plan(phi)
        warm_up = self.warm_up
        return steps, (lambda p: rate(p) * min(1.0, (p + 1) / warm_up)) if warm_up else rate

    def _plan(self, phi: Representation) -> tuple[int, Callable[[int], float]]:
        """Return the plan without the warm-up."""
        if isinstance(self.schedule, str) and self.schedule != "auto":
            steps, lr = self.steps or 0, self.top(phi)  # never 0: __post_init__ asks for steps
            falls: dict[str, Callable[[int], float]] = {
                "constant": lambda p: 1.0,
                "linear": lambda p: 1 - p / steps,
                "cosine": lambda p: (1 + math.cos(math.pi * p / steps)) / 2,
            }
            fall = falls[self.schedule]
            return steps, lambda p: lr * fall(p)
        stages = phi.schedule if isinstance(self.schedule, str) else self.schedule
        total = int(sum(passes for _, passes in stages))
        steps = self.steps or total
        ends = [sum(p for _, p in stages[: k + 1]) * steps / total for k in range(len(stages))]
        # the last stage also serves an optimiser whose line search overruns
        return steps, lambda p: next((lr for (lr, _), end in zip(stages, ends, strict=True) if p < end), stages[-1][0])

    def prior_factor(self, progress: float) -> float:
        """Return the factor of the priors' weights after this share, in [0, 1), of the passes."""
        return 1 + (self.continuation - 1) * max(0.0, 1 - 2 * progress)

    @property
    def scale(self) -> float | str:
        """Return the grey levels per unit of the optimised variable; ``sigma`` is the prior's σ.

        A rate and the authors' constants hold in one unit only: σ for ``HeavyBall`` (CVPR), 1 for ``ForgettingAdaGrad``
        (IJCV), 255 for torch's optimisers. The unit follows the optimiser, so each descent fits every prior.
        """
        scales: dict[str, float | str] = {"HeavyBall": "sigma", "ForgettingAdaGrad": 1.0}
        return scales.get(self.name, 255.0)

    def optimiser(self, image: torch.nn.Parameter, lr: float) -> torch.optim.Optimizer:
        """Return the optimiser of the image tensor.

        Args:
            image: optimised tensor, (B, C, H, W) in its basis.
            lr: learning rate of the first pass.

        Raises:
            InvrepError: the class does not take ``options``, or couples the images of a batch of several.
        """
        if self.name in COUPLED and image.shape[0] > 1:
            raise InvrepError(
                f"optim.name={self.name} has one history for a whole batch, so images would depend on each other; "
                f"use it with data.batch_size=1 restarts=1, or choose another, such as Adam."
            )
        kind = OURS.get(self.name) or getattr(torch.optim, self.name)
        on_cpu = image.device.type == "cpu"
        fused = {"fused": True} if on_cpu and self.name in FUSED and not EXCLUDE_FUSED & set(self.options or {}) else {}
        try:
            made: torch.optim.Optimizer = kind([image], lr=lr, **fused, **(self.options or {}))
            if on_cpu:
                for check in GRAPH_CHECKS:
                    vars(made)[check] = lambda: None
            return made
        except (TypeError, ValueError) as error:
            name = self.name if self.name in OURS else f"torch.optim.{self.name}"
            raise InvrepError(f"optim.options={dict(self.options or {})} does not fit {name}: {error}.") from None

    def lr_unit(self, shape: tuple[int, ...]) -> float:
        """Return the factor of a rate for images (…, H, W): 1, or the IJCV paper's unit (paper.md §2)."""
        return math.prod(shape[-2:]) * 0.05 * BOUND**2 / 6 if self.name == "ForgettingAdaGrad" else 1.0

    def warnings(self, phi: Representation, prior: FixedPrior, shape: tuple[int, int, int]) -> list[str]:
        """Return sentences about settings that will fail, or have no effect, on images (C, H, W)."""
        found = [self._loud(phi, prior, shape)]
        if self.tolerance is not None and (prior.denoiser or self.stages(phi)[-1].settled(phi) is None):
            why = (
                "the denoiser's steps fade (prior.denoiser)"
                if prior.denoiser
                else "its smoothed gradient sharpens (optim.straight_through)"
                if self.straight_through
                else f"the rate falls (optim.schedule={self.schedule})"
            )
            found.append(
                f"optim.tolerance={self.tolerance:g} stops no image early: none has converged while {why}, here until "
                f"the last pass; to save time lower optim.steps."
            )
        if self.jitter and phi.jitter == 1:
            found.append(
                "optim.jitter=true shifts by a quarter of the layer's stride, which is less than a pixel here."
            )
        return [warning for warning in found if warning is not None]

    def _loud(self, phi: Representation, prior: FixedPrior, shape: tuple[int, int, int]) -> str | None:
        """Return why the heavy ball's start would diverge on images (C, H, W), or None.

        The largest of n Gaussian values of norm ``start``·σ is about start·σ·√(2 ln n / n). The descent is stable where
        the rate times the energy's curvature at this value is below 2(1 + momentum). The published σ is one number for
        all sizes, and diverges on small images.
        """
        if self.name != "HeavyBall" or self.noise != "gaussian":
            return None
        count = math.prod(shape)
        loudest = self.start * math.sqrt(2 * math.log(max(count, 2)) / count)  # in the paper's x
        curvature = sum(
            prior.factors[name] * term.power * (term.power - 1) * loudest ** (term.power - 2)
            for name, term in prior.terms.items()
            if term.power > 2
        )
        if self.plan(phi)[1](0) * curvature < 2 * (1 + (self.options or {}).get("momentum", 0)):
            return None
        return (
            f"noise of norm σ = {prior.sigma:.0f} is too loud for {shape[2]}×{shape[1]} px and will diverge, so that "
            f"the descent has to start anew with smaller steps; prior.sigma=auto takes {PIXEL_RMS * count**0.5:.0f}."
        )

    def make_basis(self, shape: tuple[int, int, int], phi: Representation) -> PixelBasis | FourierBasis:
        """Return the basis of images (C, H, W) for Φ.

        Raises:
            InvrepError: ``decorrelate`` is a number, and the images are grey.
        """
        if self.decorrelate not in (0, "auto") and shape[0] == 1:
            raise InvrepError("optim.decorrelate has no effect on grey images: leave it out, or add data.color=rgb.")
        if self.basis == "pixel":
            return PixelBasis()
        decorrelate, slope = (0.0, 1.0) if phi.ignores_contrast else (QUARTER, STEEP)
        if self.decorrelate != "auto":
            decorrelate = float(self.decorrelate)
        if self.slope != "auto":
            slope = float(self.slope)
        return FourierBasis(shape, decorrelate=decorrelate, slope=slope)

    def draw(self, shape: tuple[int, int, int], seed: int, image: str, restart: int, prior: FixedPrior) -> Tensor:
        """Return the start of one image, (C, H, W) float64, in units of the optimised variable.

        The start depends on the seed, the image's id and the restart alone, not on the device or the place in a batch.

        Args:
            shape: (C, H, W) of the image.
            seed: seed of the job.
            image: id of the image.
            restart: number of the restart.
            prior: prior, which knows σ and the unit.
        """
        amount = amount_of(self.noise, self.start, prior.sigma) / prior.scale
        return noise_of(self.noise, shape, generator_of(seed, image, restart), amount)
