"""How the descent's passes compute Φ: their rounding, the layout of tensors, and whether compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from invrep.errors import InvrepError, choice
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, softness_of

PRECISIONS = ("float32", "tf32", "bf16")
ALIKE = 0.1  # part of a gradient by which rounding may change it at most
MODES = ("default", "reduce-overhead", "max-autotune")


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Let a GPU's float32 convolutions and matrix products be exact inside, or round their factors.

    torch itself rounds those of convolutions to TF32 unless told not to.

    Args:
        precision: ``ieee`` or ``tf32``.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@dataclass(frozen=True)
class Compute:
    """How a pass computes Φ. The image, its prior and its optimiser, Φ0 and all results are never rounded.

    Attributes:
        precision: ``float32``; ``tf32``, float32 whose products a GPU takes of factors with 10 bits; ``bf16``, torch's
            automatic bfloat16, in which activations have 8.
        channels_last: whether images and weights lie in memory with their channels last.
        compile: a mode of ``torch.compile``, of which ``reduce-overhead`` uses CUDA graphs; None: not compiled.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: str | None = None

    def __post_init__(self) -> None:
        choice("compute.precision", self.precision, PRECISIONS)
        if self.compile is not None:
            choice("compute.compile", self.compile, MODES)
        if not isinstance(self.channels_last, bool):
            raise InvrepError(f"compute.channels_last={self.channels_last} is not valid: expected true or false.")

    def rounding(self) -> object:
        """Return the context for Φ and for the gradient."""
        return rounding("tf32" if self.precision == "tf32" else "ieee")

    def encoder(self, phi: Representation) -> Callable[[Tensor, Surrogate | None], list[Tensor]]:
        """Return Φ so computed: images (B, C, H, W) and a surrogate → a list of (B, …) in the images' precision.

        Args:
            phi: on its device; with ``channels_last`` its weights are laid out anew.

        Raises:
            InvrepError: when it is called: compiling would lose the gradient that Φ itself defines.
        """
        if self.channels_last:
            phi.to(memory_format=torch.channels_last)
        compiled: dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]] = {}

        def encode(images: Tensor, surrogate: Surrogate | None = None) -> list[Tensor]:
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with self.rounding(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                if self.compile is None:
                    code = phi(images, surrogate)
                else:
                    # The softness is an input, since a constant would be compiled anew in every pass.
                    inputs = (images, *(() if surrogate is None else (softness_of(surrogate, images),)))
                    key = (tuple(images.shape), surrogate is None)
                    if key not in compiled:
                        # Φ stops within its network by an exception, which torch.compile cannot follow; what it does
                        # with one batch is a plain list of operations
                        graph = make_fx(partial(_plain, phi))(images.detach().requires_grad_(), *inputs[1:])
                        _compare(phi, graph, *inputs)
                        compiled[key] = torch.compile(graph, mode=self.compile)
                    code = compiled[key](*inputs)
            return [part.to(images.dtype) for part in code]

        return encode


def _plain(phi: Representation, images: Tensor, softness: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return Φ's code as a function of tensors alone."""
    return tuple(phi(images, None if softness is None else Surrogate(softness)))


def _compare(phi: Representation, graph: Callable[..., Sequence[Tensor]], images: Tensor, *softness: Tensor) -> None:
    """Raise InvrepError unless a graph of Φ's operations has Φ's gradient: a graph knows no ``autograd.Function``."""
    x = images.detach().requires_grad_()

    def gradient(encode: Callable[..., Sequence[Tensor]]) -> Tensor:
        code = encode(x, *softness)
        weights = [torch.arange(part.numel(), device=part.device).cos().view_as(part) for part in code]
        return torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, code, strict=True)), x)[0]

    ours = gradient(partial(_plain, phi))
    if not (ours - gradient(graph)).norm() <= ALIKE * ours.norm():  # it may be NaN, and a silent layer's is zero
        raise InvrepError(
            f"compute.compile would lose the gradient that {type(phi).__name__} defines; leave compute.compile out."
        )
