"""How the descent's passes compute Φ: their rounding, the layout of tensors, and whether compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from invrep.errors import InvrepError, choice
from invrep.representations.base import Representation

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

    def encoder(self, phi: Representation) -> Callable[[Tensor], list[Tensor]]:
        """Return Φ so computed: images (B, C, H, W) → a list of (B, …) in the images' precision.

        Args:
            phi: on its device; with ``channels_last`` its weights are laid out anew.

        Raises:
            InvrepError: when it is called: compiling would lose the gradient that Φ itself defines.
        """
        if self.channels_last:
            phi.to(memory_format=torch.channels_last)
        compiled: dict[tuple[int, ...], Callable[[Tensor], tuple[Tensor, ...]]] = {}

        def encode(images: Tensor) -> list[Tensor]:
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with self.rounding(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                if self.compile is None:
                    code = phi(images)
                else:
                    shape = tuple(images.shape)
                    if shape not in compiled:
                        # Φ stops within its network by an exception, which torch.compile cannot follow; what it does
                        # with one batch is a plain list of operations
                        graph = make_fx(lambda x: tuple(phi(x)))(images.detach().requires_grad_())
                        _compare(phi, graph, images)
                        compiled[shape] = torch.compile(graph, mode=self.compile)
                    code = compiled[shape](images)
            return [part.to(images.dtype) for part in code]

        return encode


def _compare(phi: Representation, graph: Callable[[Tensor], Sequence[Tensor]], images: Tensor) -> None:
    """Raise InvrepError unless a graph of Φ's operations has Φ's gradient: a graph knows no ``autograd.Function``."""
    x = images.detach().requires_grad_()

    def gradient(encode: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
        code = encode(x)
        weights = [torch.arange(part.numel(), device=part.device).cos().view_as(part) for part in code]
        return torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, code, strict=True)), x)[0]

    ours = gradient(phi)
    if not (ours - gradient(graph)).norm() <= ALIKE * ours.norm():  # it may be NaN, and a silent layer's is zero
        raise InvrepError(
            f"compute.compile would lose the gradient that {type(phi).__name__} defines; leave compute.compile out."
        )
