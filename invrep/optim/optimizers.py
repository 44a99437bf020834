"""Optimise the image tensor: by torch's optimizers, by Adam with a rate for each image, or as the papers' authors."""

from __future__ import annotations

import math
from typing import Any

import torch

COUPLED = ("Adafactor", "LBFGS")  # one step length or history for the whole batch
ENOUGH = 300  # passes from which on Adam's rate is not raised
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


def strength(passes: int | None) -> float:
    """Return how strongly a descent of so many passes follows its hypergradients: 0 from 300 passes on, at most 10."""
    return min(10.0, max(0.0, 2 * (ENOUGH / passes - 1))) if passes else 0.0


class HypergradientAdam(torch.optim.Adam):
    """Descend as Adam, and raise an image's rate while its gradients agree with its steps, if the passes are few.

    Let c be the cosine between an image's last step and its new descent direction, both in Adam's scaling, and ĉ its
    mean, which forgets a tenth in each pass. The image's rate is multiplied by exp(:func:`strength` · (ĉ + .15)), from
    1 to 4. A step that the new gradient would repeat was too short. At the best of constant rates c is about -.15. HOG,
    which ignores contrast, is there from the start; early layers of networks have a longer way. A rate below the
    recipe's would be lower than deep layers need, whose c is small throughout. With enough passes nothing is gained,
    so the factor is 1. (After Baydin et al., Online Learning Rate Adaptation with Hypergradient Descent, ICLR 2018.)

    Args:
        params: image tensor (B, C, H, W).
        lr: learning rate at a factor of 1.
        passes: number of passes of the whole descent; None: enough of them.
        options: further arguments of torch's Adam.
    """

    def __init__(self, params: Any, lr: float, *, passes: int | None = None, **options: Any) -> None:
        super().__init__(params, lr=lr, **options)
        self.strength = strength(passes)

    def step(self, closure: Any = None) -> Any:  # untyped, since torch overloads this method
        """Do one pass."""
        if not self.strength:
            return super().step(closure)
        loss = None if closure is None else torch.enable_grad()(closure)()
        (group,) = self.param_groups
        (image,) = group["params"]
        state, before = self.state[image], image.detach().clone()
        agreement = image.new_full((len(image), *[1] * (image.ndim - 1)), 0.0)  # ĉ + .15
        if state:
            size = state["exp_avg_sq"].sqrt().add_(group["eps"])
            new, last = ((way / size).flatten(1) for way in (image.grad, state["exp_avg"]))
            lengths = new.square().sum(1) * last.square().sum(1)
            cosine = (new * last).sum(1) / lengths.sqrt().clamp(min=torch.finfo(image.dtype).tiny)
            agreement = torch.lerp(state["agreement"], cosine.view_as(agreement) + 0.15, 0.1)
        super().step()
        state["agreement"] = agreement
        with torch.no_grad():
            image.copy_(torch.lerp(before, image, (self.strength * agreement).exp().clamp(1, 4)))
        return loss


OURS = {"HeavyBall": HeavyBall, "ForgettingAdaGrad": ForgettingAdaGrad, "HypergradientAdam": HypergradientAdam}


def names() -> list[str]:
    """Return the valid values of ``optim.name``."""
    found = [
        n
        for n, c in vars(torch.optim).items()
        if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and n not in UNFIT
    ]
    return [*OURS, *sorted(found)]
