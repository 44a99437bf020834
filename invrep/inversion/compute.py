"""Set how the passes of a descent compute Φ: rounding, memory layout and compilation."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate, backward
from invrep.stable_names import known_as
from invrep.validation import choice

PRECISIONS = ("float32", "tf32", "bf16", "auto")
EXACT_END = 0.1  # share of a descent's passes, at its end, that auto computes in float32
M = TypeVar("M", bound=nn.Module)
R = TypeVar("R", bound=Representation)
ALIKE = 0.1  # greatest change of a gradient, relative to its norm, that passes for rounding
MODES = ("default", "reduce-overhead", "max-autotune")


@contextmanager
def exact() -> Iterator[None]:
    """Compute in full precision inside this context, whatever TF32, autocast or inference mode the caller has set.

    Φ0, final errors, spreads, classes and codes are computed in it. Inference mode is left because it admits no
    gradient. The passes of a descent may choose a lower precision within it (:class:`Compute`).
    """
    # On some processors MKL rounds a product by the alignment of its operands. An image's last bits would then depend
    # on its place in the batch. MKL reads this variable at its first product.
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
    """Set the precision of float32 convolutions and matrix products inside this context.

    torch's own default rounds the factors of a GPU's convolutions to TF32. The setting belongs to the process. While
    threads request different precisions, all threads compute exactly. The last thread to leave restores the setting
    that the first thread found.

    Args:
        precision: ``ieee`` for exact float32, or ``tf32`` for factors that a GPU rounds.
    """
    _rounding.enter(precision)
    try:
        yield
    finally:
        _rounding.leave()


class _Rounding:
    """Set the precision that the threads request in every backend, and only when it changes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: dict[int, list[str]] = {}  # precisions of the open contexts of each thread, innermost last
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
    """Return the backends that have their own precision setting: three of a GPU, then three of a processor."""
    backends: Any = torch.backends  # untyped: torch creates the settings at run time
    cuda, cudnn, cpu = backends.cuda, backends.cudnn, backends.mkldnn
    return [cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 numbers faster than float32: a GPU with such cores, a CPU with AMX.

    On a CPU with AVX-512 BF16 alone, convolutions in bfloat16 take 1.4 to 2 times as long (benchmarks/peers.py).
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu: Any = torch.cpu  # the query has no public name
    return device.type == "cpu" and bool(cpu._is_amx_tile_supported())


@known_as("compute")
@dataclass(frozen=True)
class Compute:
    """Set how a pass computes Φ.

    Only Φ's passes are rounded. The image, its priors, its optimiser, Φ0 and all results stay exact.

    Attributes:
        precision: ``float32``; ``tf32``: float32 whose factors a GPU rounds to 10 bits of mantissa; ``bf16``: torch's
            automatic mixed precision with bfloat16 activations of 8 bits; ``auto``: bf16 up to the last passes, for a Φ
            with weights on a device that multiplies bfloat16 natively, else float32.
        channels_last: bool; True: values between convolutions, and weights, lie in memory with their channels last.
            None: where that is faster, on a CPU, and on a GPU in less than float32.
        compile: mode of ``torch.compile``, one of ``MODES``; ``reduce-overhead`` uses CUDA graphs; None: no
            compilation. One Compute compiles a private Φ once for each shape of its images.

    Raises:
        InvrepError: a value is none of these.
    """

    precision: str = "float32"
    channels_last: bool | None = None
    compile: str | None = None
    _compiled: WeakKeyDictionary[Representation, dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        choice("compute.precision", self.precision, PRECISIONS)
        if self.compile is not None:
            choice("compute.compile", self.compile, MODES)
        if self.channels_last is not None and not isinstance(self.channels_last, bool):
            raise InvrepError(f"compute.channels_last={self.channels_last} is not valid: expected true, false or null.")

    def rounding(self) -> AbstractContextManager[None]:
        """Return the context that sets the precision of Φ's forward and backward pass."""
        return rounding("tf32" if self.precision == "tf32" else "ieee")

    def layout(self, phi: Representation, device: torch.device) -> torch.memory_format:
        """Return the memory layout of Φ and of its target codes on a device."""
        last = self.channels_last
        if last is None:
            faster = device.type == "cpu" or self.precision == "tf32" or self.rounds(phi, device, 0.0)
            last = faster and any(weight.ndim == 4 for weight in phi.parameters())
        return torch.channels_last if last else torch.contiguous_format

    def lay_out(self, phi: R, device: torch.device) -> R:
        """Return a private Φ in the memory layout for a device.

        Every code of a job is computed in one layout, since another one rounds differently.
        """
        phi = phi.private()
        laid(phi, self.layout(phi, device))
        return phi

    def rounds(self, phi: Representation, device: torch.device, progress: float) -> bool:
        """Return whether a pass computes Φ in bfloat16.

        Args:
            phi: representation Φ; without weights it has few products, and ``auto`` never rounds them.
            device: device of the pass.
            progress: share of the descent's passes that are done after this one, in (0, 1].
        """
        if self.precision != "auto":
            return self.precision == "bf16"
        return progress <= 1 - EXACT_END and any(True for _ in phi.parameters()) and multiplies_bfloat16(device)

    def encoder(self, phi: Representation) -> Callable[..., list[Tensor]]:
        """Return Φ as a function with these settings: images (B, C, H, W), surrogate, progress → codes.

        The codes are a list of (B, …) in the images' precision. ``progress`` is that of :meth:`rounds`. The function
        raises InvrepError where compilation would lose a gradient that Φ defines itself.

        Args:
            phi: representation on its device; a private copy takes the memory layout.
        """
        phi = self.lay_out(phi, phi.mean.device)
        compiled = self._compiled.setdefault(phi, {})

        def encode(images: Tensor, surrogate: Surrogate | None = None, progress: float = 0.0) -> list[Tensor]:
            low = self.rounds(phi, images.device, progress)
            with self.rounding(), torch.autocast(images.device.type, torch.bfloat16, enabled=low):
                if self.compile is None:
                    code = phi(images, surrogate)
                else:
                    # The softness changes in every pass; as a constant it would cause a compilation each time.
                    inputs = (images, *(() if surrogate is None else (images.new_tensor(surrogate.softness),)))
                    key = (tuple(images.shape), images.dtype, images.device, surrogate is None, low)
                    if key not in compiled:
                        # Φ ends its network at the target layer by an exception, which torch.compile cannot follow.
                        # The trace of one batch is a plain list of operations.
                        graph = make_fx(partial(_plain, phi))(images.detach().requires_grad_(), *inputs[1:])
                        _compare(phi, graph, *inputs)
                        compiled[key] = torch.compile(graph, mode=self.compile)
                    code = compiled[key](*inputs)
            return [part.to(images.dtype) for part in code]

        return encode


def laid(module: M, layout: torch.memory_format) -> M:
    """Lay the parameters and buffers (·, channel, row, column) of a module out in memory, and return the module."""
    # Not Module.to, which would also lay out tensors of five dimensions, and fail.
    module._apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        lambda tensor: tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor
    )
    return module


def _plain(phi: Representation, images: Tensor, softness: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return Φ's code as a function of tensors alone."""
    return tuple(phi(images, None if softness is None else Surrogate(softness)))


def _compare(phi: Representation, graph: Callable[..., Sequence[Tensor]], images: Tensor, *softness: Tensor) -> None:
    """Check that a graph of Φ's operations has Φ's gradient: a graph loses a custom ``autograd.Function``.

    Args:
        phi: representation Φ.
        graph: traced function (images, softness) → codes.
        images: tensor (B, C, H, W) in [0, 1] at which the gradients are compared.
        softness: softness of the surrogate gradient, a scalar tensor; nothing for the exact gradient.

    Raises:
        InvrepError: the gradients differ by more than ``ALIKE``.
    """
    x = images.detach().requires_grad_()
    surrogate = Surrogate(*softness) if softness else None

    def gradient(encode: Callable[..., Sequence[Tensor]]) -> Tensor:
        code = encode(x, *softness)
        weights = [torch.arange(part.numel(), device=part.device).cos().view_as(part) for part in code]
        x.grad = None
        # A module with gradient checkpointing may refuse torch.autograd.grad.
        backward(cast(Tensor, sum((w * part).sum() for w, part in zip(weights, code, strict=True))), surrogate)
        return torch.zeros_like(x) if x.grad is None else x.grad

    ours = gradient(partial(_plain, phi))
    if not (ours - gradient(graph)).norm() <= ALIKE * ours.norm():  # "not <=" catches NaN; a dead layer's is zero
        raise InvrepError(
            f"compute.compile would lose the gradient that {type(phi).__name__} defines; leave compute.compile out."
        )
