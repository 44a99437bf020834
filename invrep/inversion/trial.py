"""Try Φ before a descent uses it, and explain each failed check in one sentence.

For every batch, the codes must be finite. A gradient, finite and not zero, must reach each row at the start of its
descent. Once in a job, two forward passes over the same images must give the same code. The checks cost one forward
and backward pass for each batch and one forward pass for the job.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from invrep.errors import InvrepError, UnfitError, out_of_memory, words
from invrep.objectives.base import Objective
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, backward
from invrep.representations.tracing.wrapped import without_values

ALIKE = 1e-3  # greatest difference of two passes, relative to the code's norm, that passes for rounding
ROUNDING = torch.finfo(torch.float32).eps
NO_GRADIENT = (
    "no gradient reaches the image through it: its forward pass runs under no_grad or inference_mode, detaches its "
    "values, leaves torch, or is quantised; use a module that autograd can follow"
)
ZERO_GRADIENT = (
    "the gradient of its code toward the image is zero at the start of the descent: it rounds, compares or takes an "
    "index on the way, its values are too large or too small for float32 to hold their squares, or all that is asked "
    "for is behind a ReLU that is off; use the values before that"
)
ZERO_CODE = "its code is zero"
NEARLY_ZERO_CODE = "its code is zero but for rounding"


class Trial:
    """Check Φ at the start of each descent of a job.

    Attributes:
        repeated: bool; True once two passes have been compared.
        seconds: time of all checks, in seconds.
        draws: bool; True if a pass of Φ draws random numbers from the user's generator.
    """

    def __init__(self) -> None:
        self.repeated = False
        self.seconds = 0.0
        self.draws = False

    @contextmanager
    def undrawn(self) -> Iterator[None]:
        """Restore the user's random state on exit if Φ has drawn from it.

        Otherwise the state is left alone: other threads may have drawn, and must not draw the same numbers again.
        """
        before = torch.get_rng_state()
        try:
            yield
        finally:
            if self.draws:
                torch.set_rng_state(before)

    def __call__(
        self, phi: Representation, objective: Objective, start: Tensor, surrogate: Surrogate | None = None
    ) -> None:
        """Check Φ at the start of a descent.

        Args:
            phi: representation Φ.
            objective: objective of the B rows, on Φ's device.
            start: images (B, C, H, W) in [0, 1] at which the descent begins.
            surrogate: surrogate gradient of the first pass; None: the exact gradient.

        Raises:
            InvrepError: Φ is random, or no gradient reaches the images.
            UnfitError: the gradient of some or all rows is zero or not finite.
        """
        began = time.monotonic()
        name = named(phi)
        if phi.stepwise and surrogate is None:
            raise InvrepError(
                f"{name} is constant almost everywhere, so that its own gradient is zero; set "
                f"optim.straight_through=true for a smoothed one."
            )
        images = start.detach().clone().requires_grad_()
        with torch.enable_grad():
            code = phi(images, surrogate)
            gradient = _gradient(code, objective, images, surrogate, name)
        if not self.repeated:
            with _Drawing(self):
                _repeat(phi, images.detach(), code, name)
        self.repeated = True
        sizes = gradient.abs().flatten(1).amax(1)
        lost, dead = ~sizes.isfinite(), sizes == 0
        if bool(lost.any()):
            culprit = _culprit(phi, objective, images, surrogate)
            raise UnfitError(
                f"{name} has a gradient that is not finite{culprit}; add a small number below the root, norm, "
                f"logarithm or quotient that is zero there.",
                _unless_all(lost),
            )
        if bool((silent := dead & empty(objective, images) & _zero(code)).any()):
            raise UnfitError(
                f"The code of {name} is zero, as it is for the start noise: a dead layer has nothing to match; choose "
                f"another layer, region or channels.",
                _unless_all(silent),
            )
        if bool(dead.any()):
            raise UnfitError(f"{name} cannot be inverted: {ZERO_GRADIENT}.", _unless_all(dead))
        self.seconds += time.monotonic() - began


class _Drawing(TorchDispatchMode):
    """Set ``trial.draws`` when an operation of this thread draws random numbers."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.trial = trial

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.trial.draws |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def named(phi: Representation) -> str:
    """Return the name of a representation for messages: its ``name``, else its class."""
    return getattr(phi, "name", type(phi).__name__)


def ready(phi: Representation) -> None:
    """Check that every weight of Φ has a shape and values.

    Raises:
        InvrepError: a weight is lazy or on the meta device.
    """
    if lack := without_values(phi):
        raise InvrepError(f"{named(phi)} cannot be run: its weight {lack.removeprefix('module.')}.")


def finite(phi: Representation, code: Sequence[Tensor]) -> None:
    """Check that the codes of photos are finite.

    Args:
        phi: representation Φ.
        code: codes, a list of (B, …).

    Raises:
        InvrepError: a weight of Φ is not finite.
        UnfitError: some codes are not finite although all weights are.
    """
    good = torch.stack([part.isfinite().flatten(1).all(1) for part in code]).all(0)
    if bool(good.all()):
        return
    whose = named(phi)
    held = _unsound_weight(phi)
    if held is not None:
        source = f" of {phi.weights_file}" if phi.weights_file else ""
        raise InvrepError(f"The weight {held}{source} holds NaN or infinity, and so does the code of {whose}.")
    raise UnfitError(
        f"The code of {whose} holds NaN or infinity, though its weights do not: it divides by zero, or a number "
        f"overflows.",
        _unless_all(~good),
    )


def empty(objective: Objective, like: Tensor) -> Tensor:
    """Return which rows have a zero target code and so no relative error, (B,) bool.

    Args:
        objective: objective of the B rows.
        like: tensor (B, …) that gives B and the device.
    """
    blank = getattr(objective, "empty", None)
    return torch.zeros(len(like), dtype=torch.bool, device=like.device) if blank is None else blank


def _gradient(
    code: Sequence[Tensor], objective: Objective, images: Tensor, surrogate: Surrogate | None, name: str
) -> Tensor:
    if not any(part.requires_grad for part in code):
        raise InvrepError(f"{name} cannot be inverted: {NO_GRADIENT}.")
    try:
        backward(objective(code).sum(), surrogate)
    except Exception as error:  # the user's function may raise any exception in its backward pass
        if isinstance(error, InvrepError) or out_of_memory(error):
            raise
        raise InvrepError(f"{name} cannot be inverted: its backward pass failed ({words(error)}).") from error
    if images.grad is None:
        raise InvrepError(f"{name} cannot be inverted: {NO_GRADIENT}.")
    return images.grad


def _repeat(phi: Representation, images: Tensor, code: Sequence[Tensor], name: str) -> None:
    """Check that two forward passes over the same images give the same code up to rounding.

    Raises:
        InvrepError: Φ is random.
    """
    with torch.no_grad():
        again = phi(images)
        if _alike(code, again):
            return
        if _alike(again, phi(images)):  # a pass without autograd may use other kernels than one with
            return
    raise InvrepError(
        f"{name} is random: two passes over the same images give different codes, so that no error means anything; "
        f"the usual cause is dropout in forward (F.dropout has training=True by default: write "
        f"F.dropout(x, training=self.training)); others are added noise and a state that each pass changes."
    )


def _alike(code: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(
        a.shape == b.shape and float((a - b).detach().norm()) <= ALIKE * float(a.detach().norm())
        for a, b in zip(code, other, strict=True)
    )


def _zero(code: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.detach().flatten(1).abs().amax(1) == 0 for part in code]).all(0)


def _unless_all(rows: Tensor) -> list[int]:
    """Return the indices of the rows that are True; an empty list if all are, which UnfitError reads as "all"."""
    return [] if bool(rows.all()) else rows.nonzero()[:, 0].tolist()


def _culprit(phi: Representation, objective: Objective, images: Tensor, surrogate: Surrogate | None) -> str:
    """Return a clause that names the first function with a derivative that is not finite; an empty text without one."""
    found: list[str] = []

    def watch(node: Any) -> None:
        def look(after: Sequence[Tensor | None], before: Sequence[Tensor | None]) -> None:
            if not found and _sound(before) and not _sound(after):
                found.append(re.sub(r"Backward\d*$", "", node.name()).lower())

        node.register_hook(look)

    with torch.enable_grad():
        energy = objective(phi(images, surrogate)).sum()
    pending, seen = [energy.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            watch(node)
            pending += [following for following, _ in node.next_functions]
    backward(energy, surrogate)
    return f", from the derivative of {found[0]} on" if found else ""


def _sound(values: Sequence[Tensor | None]) -> bool:
    return all(value is None or bool(value.isfinite().all()) for value in values)


def _unsound_weight(phi: Representation) -> str | None:
    """Return the name of the first weight or buffer with NaN, else of the first weight with infinity, else None.

    Infinity is legitimate in a buffer, such as an attention mask.
    """
    weights = {name: value for name, value in phi.named_parameters() if value.is_floating_point()}
    buffers = {name: value for name, value in phi.named_buffers() if value.is_floating_point()}
    for name, value in (weights | buffers).items():
        if bool(value.isnan().any()):
            return name.removeprefix("module.")
    return next((n.removeprefix("module.") for n, value in weights.items() if not bool(value.isfinite().all())), None)
