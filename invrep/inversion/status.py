"""Track the status of each image of a batch: active, slowed down, converged or failed, and why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invrep.inversion.convergence import converged, look_back

SLOWER = 0.1  # factor on the steps of an image that diverges
RETRIES = 3  # slower attempts; an image that then diverges again has failed
MOST_RISE = 10.0  # greatest rise of an energy over its start E, in units of 1 + |E|: no descent recovers from there
DIVERGED = (
    "diverged, with smaller steps too: lower the learning rate (optim.lr) or the priors' weights, or use optim=adam"
)
FAULTS = (  # messages for faults of Φ at pixels in range, which are no divergence
    "",
    "failed: on the way its code became NaN or infinite, though its pixels were in range; mend Φ, which divides by "
    "zero or overflows there",
    "failed: on the way its gradient became NaN or infinite, though its code was not; add a small number below the "
    "root, norm, logarithm or quotient of Φ",
)
NO_LOWER = "ended with no lower energy than it began with: change the learning rate (optim.lr) or optim.steps"


class BatchStatus:
    """Track the status of each of the B images of a batch.

    An image diverges where its energy or a pixel is not finite, or its energy has risen far above its start
    (``MOST_RISE``). It returns to its last good state and resumes with a tenth of the step. After ``RETRIES`` slower
    attempts it has failed, and keeps its last good state. Its neighbours are not affected.

    Args:
        count: number of images B.
        active: bool (B,) at the end of the previous stage; None in the first stage.

    Attributes:
        active: bool (B,); False for an image that has failed.
        done: bool (B,); True for an image that has converged.
        ended: integer (B,), last pass of an image that has converged; 0 for others.
        pace: factor (B,) on the steps of each image; below 1 after it has diverged.
        fault: index (B,) into ``FAULTS`` of the first fault of Φ at each image; 0 for none.
        good: image tensor (B, C, H, W) with the last good state of every image.
        started: energies (B,) at the stage's start; None before its first pass.
        best: least energy (B,) of each image at any check; None before the first check.
        checks: energies, a list of (B,), at the checks since the recipe settled.
    """

    def __init__(self, count: int, active: Tensor | None = None) -> None:
        self.active = torch.ones(count, dtype=torch.bool) if active is None else active.clone()
        self.done = torch.zeros(count, dtype=torch.bool)
        self.ended = torch.zeros(count, dtype=torch.long)
        self.pace = torch.ones(count)
        self.fault = torch.zeros(count, dtype=torch.long)
        self.good: Tensor
        self.started: Tensor | None = None
        self.best: Tensor | None = None
        self.checks: list[Tensor] = []

    def begin(self, images: Tensor) -> None:
        """Move to the images' device and precision, and store the images as their last good state.

        Args:
            images: image tensor (B, C, H, W).
        """
        for name in ("active", "done", "ended", "fault"):
            setattr(self, name, getattr(self, name).to(images.device))
        self.pace = self.pace.to(images.device, images.dtype)
        self.good = images.detach().clone()

    def state(self) -> dict[str, Any]:
        """Return all attributes, as tensors and lists of tensors, for a checkpoint."""
        return dict(vars(self))

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the attributes that :meth:`state` returned; further entries of the dictionary are ignored."""
        vars(self).update({name: state[name] for name in vars(self)})

    @property
    def over(self) -> bool:
        """Return whether every image has converged or failed."""
        return not bool((self.active & ~self.done).any())

    @property
    def slowed(self) -> bool:
        """Return whether any image has diverged."""
        return bool((self.pace != 1).any())

    def ended_by(self, passes: int) -> Tensor:
        """Return which images had converged by the given pass, (B,) bool."""
        return self.done & (self.ended <= passes)

    def blame(self, code: Tensor, gradient: Tensor, in_range: Tensor) -> None:
        """Note the first fault of Φ at each image: a code or gradient that is not finite at pixels in range.

        Args:
            code: bool (B,), True where the objective's value of the code is finite.
            gradient: bool (B,), True where the image's gradient is finite.
            in_range: bool (B,), True where Φ has to accept the image's pixels.
        """
        at_fault = in_range & ~(code & gradient) & (self.fault == 0)
        self.fault[at_fault] = torch.where(code, 2, 1)[at_fault]

    def take_back(self, images: Tensor, energy: Tensor, optimiser: torch.optim.Optimizer, *, coupled: bool) -> Tensor:
        """Slow down the images that diverge, and return them to their last good state; called at a segment's end.

        Args:
            images: parameter (B, C, H, W); changed in place.
            energy: energies (B,) of the last pass.
            optimiser: optimiser; the history of images that diverge is erased.
            coupled: bool; True: the optimiser's history has its own shapes and is erased whole (one image a batch).

        Returns:
            Bool (B,); False for an image that diverges.
        """
        sound = images.isfinite().flatten(1).all(1) & energy.isfinite()
        started = energy if self.started is None else self.started
        sound &= ~(energy > started + MOST_RISE * (1 + started.abs()))
        diverged = self.active & ~self.done & ~sound
        if bool(diverged.any()):
            self.pace[diverged] *= SLOWER
            self.active &= ~(diverged & (self.pace < SLOWER**RETRIES / 2))
            if coupled:
                optimiser.state.clear()
            for history in optimiser.state.values():
                for value in history.values():
                    if isinstance(value, Tensor) and value.ndim and len(value) == len(images):
                        value[diverged] = 0
        back = diverged | self.done | ~self.active
        if bool(back.any()):
            images.copy_(torch.where(back[:, None, None, None], self.good, images))
        self.good.copy_(images)
        return sound

    def check(self, energy: Tensor, *, passes: int, left: float | None, tolerance: float) -> bool:
        """Mark the images that have converged, and return whether any is new; called at a segment's end.

        Args:
            energy: energies (B,), not finite for an image that has just diverged.
            passes: number of passes so far.
            left: number of checks in the remaining passes; None before the recipe has settled: no image converges.
            tolerance: allowed change, as a fraction of the energy.
        """
        least = self.started if self.best is None else self.best
        self.best = energy if least is None else torch.minimum(least, energy)
        if left is None:
            return False
        self.checks.append(energy)
        now = self.active & ~self.done & converged(self.checks, self.best, left=left, tolerance=tolerance)
        del self.checks[: -look_back(left) - 1]
        if not bool(now.any()):
            return False
        self.done |= now
        self.ended[now] = passes
        return True

    def whys(self) -> list[str | None]:
        """Return why each image has failed, as a sentence without its subject; None for an image that has not."""
        failed, slowed, faults = (~self.active).tolist(), (self.pace < 1).tolist(), self.fault.tolist()
        return [
            (FAULTS[fault] or (DIVERGED if slow else NO_LOWER)) if wrong else None
            for wrong, slow, fault in zip(failed, slowed, faults, strict=True)
        ]
