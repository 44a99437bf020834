"""Optimizers of the image tensor: torch's, and those that the papers' authors used."""

from __future__ import annotations

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


class ForgettingAdaGrad(torch.optim.Optimizer):
    """The IJCV descent: G ← decay·G + g², v ← momentum·v − g/(1/lr + √G), x ← x + v (nnpreimage.m:130-232).

    Args:
        params: the image tensor.
        lr: the greatest step per unit of gradient.
        decay: what is kept of the sum of squared gradients.
        momentum: what is kept of the last step.
    """

    def __init__(self, params: Any, lr: float, *, decay: float = 0.9, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # as torch has it, in overloads that ask for a float
        """Do one pass."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["squares"], state["step"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                gradient = parameter.grad
                state["squares"].mul_(group["decay"]).addcmul_(gradient, gradient)
                push = gradient / (state["squares"].sqrt() + 1 / group["lr"])
                state["step"].mul_(group["momentum"]).sub_(push)
                parameter.add_(state["step"])
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
