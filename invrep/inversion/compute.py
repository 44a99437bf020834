"""How the descent's passes compute Φ: their rounding, the layout of tensors, and whether compiled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, backward, softness_of
from invrep.stable_names import known_as
from invrep.validation import choice

PRECISIONS = ("float32", "tf32", "bf16")
ALIKE = 0.1  # part of a gradient by which rounding may change it at most
MODES = ("default", "reduce-overhead", "max-autotune")


@contextmanager
def exact() -> Iterator[None]:
    """Let nothing be rounded inside but to its own type: the context of all that is measured.

    Φ0, final errors, spreads, classes and codes are computed in it, whatever the caller has set: TF32, autocast, or
    inference mode, of which no gradient could be taken. A descent's passes may round within it (:class:`Compute`).
    """
    # By default MKL rounds a product by how its operands lie in memory on some processors, so that an image's last bits
    # would depend on its place in a batch. MKL reads this at its first product.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    accelerator = torch.accelerator.current_accelerator()
    kinds = {"cpu"} if accelerator is None else {"cpu", accelerator.type}
    with ExitStack() as stack:
        stack.enter_context(rounding("ieee"))
        for kind in filter(torch.amp.is_autocast_available, kinds):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        yield


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Let float32 convolutions and matrix products be exact inside, or let a GPU round their factors.

    torch itself rounds those of convolutions to TF32 unless told not to. Its setting is the process's: of threads that
    ask for different ones all are exact meanwhile, and the last to leave gives back what the first has found.

    Args:
        precision: ``ieee`` or ``tf32``.
    """
    _rounding.enter(precision)
    try:
        yield
    finally:
        _rounding.leave()


class _Rounding:
    """Sets every backend to what the threads ask for, and only where that changes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: dict[int, list[str]] = {}  # by thread, the innermost last
        self.found: list[str] = []
        self.now: str | None = None

    def enter(self, precision: str) -> None:
        with self.lock:
            if not self.asked:
                self.found = [backend.fp32_precision for backend in _backends()]
            self.asked.setdefault(threading.get_ident(), []).append(precision)
            self.set()

    def leave(self) -> None:
        with self.lock:
            thread = threading.get_ident()
            self.asked[thread].pop()
            if not self.asked[thread]:
                del self.asked[thread]
            self.set()

    def set(self) -> None:
        wanted = None
        if self.asked:
            wanted = "tf32" if all(asked[-1] == "tf32" for asked in self.asked.values()) else "ieee"
        if wanted == self.now:
            return
        precisions = self.found if wanted is None else [wanted] * 3 + ["ieee"] * 3
        for backend, precision in zip(_backends(), precisions, strict=True):
            backend.fp32_precision = precision
        self.now = wanted


_rounding = _Rounding()


def _backends() -> list[Any]:
    """Return what has a setting of its own: a GPU's first, a processor's last."""
    backends: Any = torch.backends  # whose settings torch makes at run time
    cuda, cudnn, cpu = backends.cuda, backends.cudnn, backends.mkldnn
    return [cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]


@known_as("compute")
@dataclass(frozen=True)
class Compute:
    """How a pass computes Φ. The image, its prior and its optimiser, Φ0 and all results are never rounded.

    Attributes:
        precision: ``float32``; ``tf32``, float32 whose products a GPU takes of factors with 10 bits; ``bf16``, torch's
            automatic bfloat16, in which activations have 8.
        channels_last: whether images and weights lie in memory with their channels last.
        compile: a mode of ``torch.compile``, of which ``reduce-overhead`` uses CUDA graphs; None: not compiled. One
            Compute compiles a private Φ once for each shape of its images.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: str | None = None
    _compiled: WeakKeyDictionary[Representation, dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        choice("compute.precision", self.precision, PRECISIONS)
        if self.compile is not None:
            choice("compute.compile", self.compile, MODES)
        if not isinstance(self.channels_last, bool):
            raise InvrepError(f"compute.channels_last={self.channels_last} is not valid: expected true or false.")

    def rounding(self) -> AbstractContextManager[None]:
        """Return the context for Φ and for the gradient."""
        return rounding("tf32" if self.precision == "tf32" else "ieee")

    def encoder(self, phi: Representation) -> Callable[[Tensor, Surrogate | None], list[Tensor]]:
        """Return Φ so computed: images (B, C, H, W) and a surrogate → a list of (B, …) in the images' precision.

        Args:
            phi: on its device; with ``channels_last`` the weights of a private one are laid out anew.

        Raises:
            InvrepError: when it is called: compiling would lose the gradient that Φ itself defines.
        """
        phi = phi.private()
        if self.channels_last:
            phi.to(memory_format=torch.channels_last)
        compiled = self._compiled.setdefault(phi, {})

        def encode(images: Tensor, surrogate: Surrogate | None = None) -> list[Tensor]:
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with self.rounding(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                if self.compile is None:
                    code = phi(images, surrogate)
                else:
                    # The softness is an input, since a constant would be compiled anew in every pass.
                    inputs = (images, *(() if surrogate is None else (softness_of(surrogate, images),)))
                    key = (tuple(images.shape), images.dtype, images.device, surrogate is None)
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
    surrogate = Surrogate(*softness) if softness else None

    def gradient(encode: Callable[..., Sequence[Tensor]]) -> Tensor:
        code = encode(x, *softness)
        weights = [torch.arange(part.numel(), device=part.device).cos().view_as(part) for part in code]
        x.grad = None
        # Not torch.autograd.grad, which a module that checkpoints its activations may refuse.
        backward(cast(Tensor, sum((w * part).sum() for w, part in zip(weights, code, strict=True))), surrogate)
        return torch.zeros_like(x) if x.grad is None else x.grad

    ours = gradient(partial(_plain, phi))
    if not (ours - gradient(graph)).norm() <= ALIKE * ours.norm():  # it may be NaN, and a silent layer's is zero
        raise InvrepError(
            f"compute.compile would lose the gradient that {type(phi).__name__} defines; leave compute.compile out."
        )
