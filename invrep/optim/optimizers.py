"""Optimise the image tensor: by torch's optimizers, or as the papers' authors."""

from __future__ import annotations

import math
from typing import Any

import torch

COUPLED = ("Adafactor", "LBFGS")  # one step length or history for the whole batch
UNFIT = ("Optimizer", "SparseAdam", "Muon")  # an image is neither sparse nor a matrix


class HeavyBall(torch.optim.SGD):
    """Descend as the CVPR authors: v ← momentum·v − lr·∇E, x ← x + v, with v = 0 at each change of lr (paper.md §2).

    At a constant rate this class is torch's SGD with momentum; it adds the reset only.
    """

    def step(self, closure: Any = None) -> Any:  # untyped, since torch overloads this method
        """Do one pass; a change of the rate since the last pass first empties the momentum."""
        for group in self.param_groups:
            if group.setdefault("last_lr", group["lr"]) != group["lr"]:
                group["last_lr"] = group["lr"]
                for parameter in group["params"]:
                    self.state[parameter].pop("momentum_buffer", None)
        return super().step(closure)


class ForgettingAdaGrad(torch.optim.RMSprop):
    """Descend as IJCV: G ← decay·G + g², v ← momentum·v − g/(1/lr + √G), x ← x + v (nnpreimage.m:130-232).

    This class is torch's RMSprop with lr √(1 − decay) and eps √(1 − decay)/lr: its mean of squares is (1 − decay)·G.

    Args:
        params: image tensor.
        lr: largest step per unit of gradient.
        decay: share of the sum of squared gradients that each pass keeps, below 1.
        momentum: share of the last step that each pass keeps.

    Raises:
        ValueError: decay is 1 or more.
    """

    def __init__(self, params: Any, lr: float, *, decay: float = 0.9, momentum: float = 0.9) -> None:
        if decay >= 1:
            raise ValueError(f"decay is {decay}; expected a number below 1")
        super().__init__(params, lr=lr, alpha=decay, momentum=momentum)

    def step(self, closure: Any = None) -> Any:  # untyped, since torch overloads this method
        """Do one pass."""
        (group,) = self.param_groups
        rate, root = group["lr"], math.sqrt(1 - group["alpha"])
        group.update(lr=root, eps=root / rate)
        loss = super().step(closure)
        group["lr"] = rate
        return loss


OURS = {"HeavyBall": HeavyBall, "ForgettingAdaGrad": ForgettingAdaGrad}


def names() -> list[str]:
    """Return the valid values of ``optim.name``."""
    found = [
        n
        for n, c in vars(torch.optim).items()
        if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and n not in UNFIT
    ]
    return [*OURS, *sorted(found)]
