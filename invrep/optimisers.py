"""How the energy is descended: an optimiser of torch or the authors' heavy ball, a schedule and a start."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invrep.errors import InvrepError, choice, number
from invrep.priors import FixedPrior
from invrep.representations.base import Representation

COUPLED = ("Adafactor", "LBFGS")  # one step length or history for the whole tensor, hence for all images of a batch
UNFIT = ("Optimizer", "SparseAdam", "Muon")  # an image is neither sparse nor a matrix
SCHEDULES = ("constant", "linear", "cosine", "auto")


class HeavyBall(torch.optim.SGD):
    """The authors' descent, v ← momentum·v − lr·∇E, x ← x + v, with v = 0 at each change of lr (paper.md §2).

    At a constant rate this is torch's SGD with momentum; only the reset is added.
    """

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Do one pass; a rate that differs from the last pass's empties the momentum first."""
        for group in self.param_groups:
            if group.setdefault("last_lr", group["lr"]) != group["lr"]:
                group["last_lr"] = group["lr"]
                for parameter in group["params"]:
                    self.state[parameter].pop("momentum_buffer", None)
        return super().step(closure)


def names() -> list[str]:
    """Return the names that ``optim.name`` takes."""
    found = [
        n
        for n, c in vars(torch.optim).items()
        if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and n not in UNFIT
    ]
    return ["HeavyBall", *sorted(found)]


@dataclass
class Descent:
    """A recipe of descent.

    Attributes:
        name: a class of ``torch.optim``, or ``HeavyBall``.
        lr: learning rate in units of the optimised variable (of the paper's x for ``HeavyBall``); not used where the
            schedule is a list.
        steps: passes (forward-backward evaluations); None takes the sum of a schedule's stages.
        schedule: ``constant``, ``linear`` (to 0), ``cosine`` (to 0), a list of stages ``[[lr, passes], …]``, which
            stretches to ``steps``, or ``auto``: the stages that the paper used with this representation.
        start: L2 norm of the Gaussian start noise in units of σ; the authors' is 1.
        options: further keyword arguments of the optimiser's class.
        straight_through: for HOG's hard binning, descend along the gradient of its bilinear binning.
    """

    name: str = "Adam"
    lr: float = 0.05
    steps: int | None = 400
    schedule: str | Sequence[Sequence[float]] = "cosine"
    start: float = 0.1
    options: Mapping[str, Any] | None = None
    straight_through: bool = True

    def __post_init__(self) -> None:
        choice("optim.name", self.name, names())
        self.lr = number("optim.lr", self.lr, above=0)
        self.start = number("optim.start", self.start, minimum=0)
        if self.steps is not None:
            self.steps = number("optim.steps", self.steps, minimum=1, whole=True)
        if not isinstance(self.straight_through, bool):
            raise InvrepError(f"optim.straight_through={self.straight_through} is not valid: expected true or false.")
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

    def plan(self, phi: Representation) -> tuple[int, Callable[[int], float]]:
        """Return the number of passes and the learning rate as a function of the passes done."""
        if isinstance(self.schedule, str) and self.schedule != "auto":
            steps, schedule, lr = self.steps, self.schedule, self.lr
            if schedule == "cosine":
                return steps, lambda p: lr * (1 + math.cos(math.pi * p / steps)) / 2
            return steps, (lambda p: lr) if schedule == "constant" else (lambda p: lr * (1 - p / steps))
        stages = phi.schedule if self.schedule == "auto" else self.schedule
        total = sum(passes for _, passes in stages)
        steps = self.steps or total
        ends = [sum(p for _, p in stages[: k + 1]) * steps / total for k in range(len(stages))]
        # the last stage also serves an optimiser whose line search overruns
        return steps, lambda p: next((lr for (lr, _), end in zip(stages, ends, strict=True) if p < end), stages[-1][0])

    def optimiser(self, image: torch.nn.Parameter, lr: float) -> torch.optim.Optimizer:
        """Return the optimiser of the image tensor.

        Raises:
            InvrepError: the class does not take ``options``, or couples the images of a batch of several.
        """
        if self.name in COUPLED and image.shape[0] > 1:
            raise InvrepError(
                f"optim.name={self.name} has one history for a whole batch, so images would depend on each other; "
                f"use it with data.batch_size=1 restarts=1, or choose another, such as Adam."
            )
        kind = HeavyBall if self.name == "HeavyBall" else getattr(torch.optim, self.name)
        try:
            return kind([image], lr=lr, **(self.options or {}))
        except (TypeError, ValueError) as error:
            raise InvrepError(
                f"optim.options={dict(self.options or {})} does not fit torch.optim.{self.name}: {error}."
            ) from None

    def lr_unit(self, prior: FixedPrior) -> float:
        """Return what a learning rate is multiplied by: 1, or for the heavy ball the change from x to our variable."""
        return (prior.sigma / prior.scale) ** 2 if self.name == "HeavyBall" else 1.0

    def noise(self, shape: tuple[int, int, int], seed: int, image: str, restart: int, prior: FixedPrior) -> Tensor:
        """Return the start of one image, (C, H, W): Gaussian noise of L2 norm ``start``·σ grey levels.

        It depends on the seed, the image's id and the restart and on nothing else: not on its place in a batch, nor
        on the device.
        """
        key = hashlib.sha256(f"{seed}\0{image}\0{restart}".encode(errors="surrogateescape")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise * (self.start * prior.sigma / prior.scale / noise.norm())
