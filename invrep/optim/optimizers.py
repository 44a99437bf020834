"""Optimizers of the image tensor: torch's, and those that the papers' authors used."""

from __future__ import annotations

import math
from typing import Any

import torch

COUPLED = ("Adafactor", "LBFGS")  # one step length or history for the whole tensor, hence for all images of a batch
UNFIT = ("Optimizer", "SparseAdam", "Muon")  # an image is neither sparse nor a matrix


class HeavyBall(torch.optim.SGD):
    """The authors' descent, v ← momentum·v − lr·∇E, x ← x + v, with v = 0 at each change of lr (paper.md §2).

    At a constant rate this is torch's SGD with momentum; only the reset is added.
    """

    def step(self, closure: Any = None) -> Any:  # as torch has it, in overloads that ask for a float
        """Do one pass; a rate that differs from the last pass's empties the momentum first."""
        for group in self.param_groups:
            if group.setdefault("last_lr", group["lr"]) != group["lr"]:
                group["last_lr"] = group["lr"]
                for parameter in group["params"]:
                    self.state[parameter].pop("momentum_buffer", None)
        return super().step(closure)


class ForgettingAdaGrad(torch.optim.RMSprop):
    """The IJCV descent: G ← decay·G + g², v ← momentum·v − g/(1/lr + √G), x ← x + v (nnpreimage.m:130-232).

    This is torch's RMSprop, whose mean of squares is (1 − decay)·G, with lr √(1 − decay) and eps √(1 − decay)/lr.

    Args:
        params: the image tensor.
        lr: the greatest step per unit of gradient.
        decay: what is kept of the sum of squared gradients, below 1.
        momentum: what is kept of the last step.
    """

    def __init__(self, params: Any, lr: float, *, decay: float = 0.9, momentum: float = 0.9) -> None:
        if decay >= 1:
            raise ValueError(f"decay is {decay}; expected a number below 1")
        super().__init__(params, lr=lr, alpha=decay, momentum=momentum)

    def step(self, closure: Any = None) -> Any:  # as torch has it, in overloads that ask for a float
        """Do one pass."""
        (group,) = self.param_groups
        rate, root = group["lr"], math.sqrt(1 - group["alpha"])
        group.update(lr=root, eps=root / rate)
        loss = super().step(closure)
        group["lr"] = rate
        return loss


OURS = {"HeavyBall": HeavyBall, "ForgettingAdaGrad": ForgettingAdaGrad}


def names() -> list[str]:
    """Return the names that ``optim.name`` takes."""
    found = [
        n
        for n, c in vars(torch.optim).items()
        if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and n not in UNFIT
    ]
    return [*OURS, *sorted(found)]
