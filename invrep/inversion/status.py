"""The status of each image of a batch: which images the descent goes on with, and why not with the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invrep.inversion.convergence import converged, look_back

SLOWER = 0.1  # what the steps of an image that diverges are multiplied by
RETRIES = 3  # before it has failed
MOST_RISE = 10.0  # of an energy, over one and its start: no descent comes back from there
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
NO_LOWER = "ended with no lower energy than it began with: change the learning rate (optim.lr) or optim.steps"


class BatchStatus:
    """The status of each of the B images of a batch.

    An image diverges where its energy or a pixel is not finite, or its energy has left its start far behind. It returns
    to its last good state and resumes with a tenth of the step. After three times it has failed, and stays there.
    Its neighbours do not notice.

    Args:
        count: B.
        active: (B,) bool, at the end of the stage before; None in the first stage.

    Attributes:
        active: (B,) bool; False for an image that has failed, which keeps its last good state.
        done: (B,) bool; True for an image that has converged.
        ended: (B,), the pass after which an image that has converged was left alone; 0 for others.
        pace: (B,), what the steps of each image are multiplied by; below 1 after it has diverged.
        fault: (B,), the fault of Φ that an image has met, by its place in ``FAULTS``.
        good: the image tensor at the last segment's end, with the last good state of images that have diverged since.
        started: (B,), the energies at the stage's start; None before its first pass.
        best: (B,), the least energy of each image at any check; None before the first.
        checks: (B,) each, the energies at the checks since the recipe has settled.
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
        """Go to the images' device and precision, and take them for good."""
        for name in ("active", "done", "ended", "fault"):
            setattr(self, name, getattr(self, name).to(images.device))
        self.pace = self.pace.to(images.device, images.dtype)
        self.good = images.detach().clone()

    def state(self) -> dict[str, Any]:
        """Return all attributes, for a checkpoint; tensors and lists of them."""
        return dict(vars(self))

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned, from a dictionary that may hold more."""
        vars(self).update({name: state[name] for name in vars(self)})

    @property
    def over(self) -> bool:
        """Whether every image has converged or failed."""
        return not bool((self.active & ~self.done).any())

    @property
    def slowed(self) -> bool:
        """Whether an image has diverged."""
        return bool((self.pace != 1).any())

    def ended_by(self, passes: int) -> Tensor:
        """Return which images had converged by a pass, (B,) bool."""
        return self.done & (self.ended <= passes)

    def blame(self, code: Tensor, gradient: Tensor, in_range: Tensor) -> None:
        """Note the fault of Φ that images have met in a pass, where it is their first.

        Args:
            code: (B,) bool, whether the value that is taken of the image's code is finite.
            gradient: (B,) bool, whether its gradient is.
            in_range: (B,) bool, whether its pixels were such as Φ has to take.
        """
        at_fault = in_range & ~(code & gradient) & (self.fault == 0)
        self.fault[at_fault] = torch.where(code, 2, 1)[at_fault]

    def take_back(self, images: Tensor, energy: Tensor, optimiser: torch.optim.Optimizer, *, coupled: bool) -> Tensor:
        """At a segment's end, slow down the images that diverge, and return them to their last good state.

        Args:
            images: (B, C, H, W), the parameter; changed in place.
            energy: (B,), of the last pass.
            optimiser: its history of images that diverge is erased.
            coupled: whether the optimiser's history is that of a single image, in shapes of its own.

        Returns:
            (B,) bool; False for an image that diverges.
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
                    if isinstance(value, Tensor) and value.shape == images.shape:
                        value[diverged] = 0
        back = diverged | self.done | ~self.active
        if bool(back.any()):
            images.copy_(torch.where(back[:, None, None, None], self.good, images))
        self.good.copy_(images)
        return sound

    def check(self, energy: Tensor, *, passes: int, left: float | None, tolerance: float) -> bool:
        """At a segment's end, find the images that have converged, and return whether there are new ones.

        Args:
            energy: (B,), not finite for an image that has just diverged.
            passes: so far.
            left: how many checks' passes are left; None while the recipe has yet to settle, and none can converge.
            tolerance: of the descent.
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
        """Return why each image has failed, as the rest of a sentence that begins with its name; None if it has not."""
        failed, slowed, faults = (~self.active).tolist(), (self.pace < 1).tolist(), self.fault.tolist()
        return [
            (FAULTS[fault] or (DIVERGED if slow else NO_LOWER)) if wrong else None
            for wrong, slow, fault in zip(failed, slowed, faults, strict=True)
        ]
