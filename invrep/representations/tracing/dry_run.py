"""Run a module dry, to learn its values' shapes, receptive fields, costs and weights.

On the meta device a forward pass costs no arithmetic and no memory, so a dry run needs no weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from invrep.representations.geometry import Geometry
from invrep.representations.tracing.fields import BLIND, WHOLE, after
from invrep.representations.tracing.value_names import (
    TOKENS,
    Watcher,
    numbered_call,
    prefix_tokens,
    tensors_of,
    watching,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class LayerTrace:
    """Describe one value of a dry run: a layer's output, or a value in between (:mod:`~.value_names`).

    Attributes:
        calls: number of computations in a forward pass.
        shapes: shapes of its tensors, in the last computation.
        geometry: image area that its positions see.
        forward: FLOPs of a pass up to the value.
        products: products (:attr:`Trace.costs`) that the value depends on, as the bits of a number.
        end: place of its last computation's end in the order of events.
    """

    calls: int
    shapes: tuple[tuple[int, ...], ...]
    geometry: Geometry
    forward: int
    products: int
    end: int

    @property
    def receptive_field(self) -> int | None:
        """Return the side in pixels of one position's receptive field; None where it is, or may be, the whole image."""
        return None if math.inf in self.geometry.field else int(max(self.geometry.field))

    @property
    def stride(self) -> int | None:
        """Return the pixels between neighbouring positions; None without positions."""
        return None if self.geometry.stride is None else max(self.geometry.stride)


@dataclass(frozen=True)
class Trace:
    """Describe a forward pass.

    Attributes:
        layers: name → trace of every value that was computed; ``""`` is the module's output.
        first_use: name of a parameter or buffer → place of its first use in the order of events.
        costs: FLOPs of each convolution, matrix product and attention in the backward pass to the images. A product
            outside the module's own pass adds its forward FLOPs.
        error: exception that ended the pass early; None for a whole pass.
    """

    layers: dict[str, LayerTrace]
    first_use: dict[str, int]
    costs: list[int]
    error: Exception | None

    def flops(self, path: str) -> int:
        """Return the FLOPs of a forward pass up to a value, and of the backward pass from there to the images.

        The count has multiplications and additions of convolutions, matrix products and attention. Weights get no
        gradient.
        """
        layer = self.layers[path]
        return layer.forward + sum(cost for k, cost in enumerate(self.costs) if layer.products >> k & 1)

    def calls(self, path: str) -> int:
        """Return the number of times that the value was computed."""
        return self.layers[path].calls if path in self.layers else 0

    def weights_up_to(self, paths: Iterable[str]) -> set[str]:
        """Return the names of the parameters and buffers of a pass that stops at the last of these layers."""
        end = max(self.layers[path].end for path in paths)
        return {name for name, first in self.first_use.items() if first <= end}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode with frozen parameters, and restore each flag at the end."""
    training: list[nn.Module] = []
    learning: list[nn.Parameter] = []
    # Not by modules() and parameters(): they build names, a quarter of a millisecond of each pass of a ResNet-18.
    pending = [module]
    while pending:
        child = pending.pop()
        pending += [grandchild for grandchild in child._modules.values() if grandchild is not None]
        if child.training:
            training.append(child)
        learning += [p for p in child._parameters.values() if p is not None and p.requires_grad]
    try:
        # Not by module.eval(): a user's class may redefine it, and the flags may differ between modules.
        for child in training:
            child.training = False
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for child in training:
            child.training = True
        for parameter in learning:
            parameter.requires_grad_(True)


def meta_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module with shapes, but without values, in its parameters and buffers.

    Raises:
        Exception: deepcopy cannot copy the module.
    """
    # deepcopy takes the tensors in its memo, so no weight is ever copied.
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(module, memo)
    for child in twin.modules():
        # Hooks of the user should not see a pass that the user did not make.
        child._forward_pre_hooks.clear()
        child._forward_hooks.clear()
    return twin


def dry_run(module: nn.Module, images: Tensor) -> Trace:
    """Pass images through a module in evaluation mode, and return the trace; an exception ends it and is kept in it.

    Args:
        module: any module; on the meta device (:func:`meta_copy`) the pass costs almost nothing.
        images: images, (B, C, H, W), on the module's device; the pass may change them.
    """
    recorder = _Recorder(module, images)
    ended: dict[str, LayerTrace] = {}
    sources: Any = WeakTensorKeyDictionary()

    def note(name: str, output: Any) -> None:
        tensors = tensors_of(output)
        if len(tensors) == 1 and name not in recorder.modules and numbered_call(name) not in recorder.modules:
            sources[tensors[0]] = name
        elif len(tensors) == 1 and sources.get(tensors[0], "").rpartition(".")[0] == name:
            ended.pop(sources[tensors[0]], None)  # the module returns its function's value: one name is enough
        seen = recorder.seen(tensors)
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        calls = ended[name].calls + 1 if name in ended else 1
        ended[name] = LayerTrace(calls, shapes, seen.geometry, recorder.forward, seen.products, recorder.clock)

    error = None
    factories = torch.device("meta") if images.is_meta else nullcontext()
    watched = watching(module, note, prefix=prefix_tokens(module))
    try:
        # A caller's operation counter (FlopCounterMode) should see the caller's own passes only.
        uncounted = _disable_current_modes()
        with uncounted, evaluating(module), watched as recorder.watcher, torch.no_grad(), factories, recorder:
            module(images)
    except Exception as caught:
        error = caught.with_traceback(None)  # its frames would keep all tensors of the pass alive
    once = {f"{path}_0" for path in recorder.modules if path not in ended or ended[path].calls == 1}
    dropped = once | {name + part for name in once for part in TOKENS}
    layers = {name: seen for name, seen in ended.items() if name not in dropped}
    return Trace(layers, recorder.first_use, recorder.costs, error)


class _Seen(NamedTuple):
    """Hold a tensor's origin: its image area, and its products (a set, as the bits of a number)."""

    geometry: Geometry
    products: int


class _Recorder(TorchDispatchMode):
    """Record every operation: each weight's first use, each tensor's image area, and the costs."""

    watcher: Watcher | None = None

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.modules = {path for path, _ in module.named_modules(remove_duplicate=False)}
        self.clock = 0
        self.first_use: dict[str, int] = {}
        self._names: dict[int, list[str]] = {}
        for named in (module.named_parameters, module.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                self._names.setdefault(id(tensor), []).append(name)
        self._seen: Any = WeakTensorKeyDictionary()
        self._seen[images] = _Seen(Geometry((1, 1), (1, 1)), 0)
        self.forward = 0
        self.costs: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.clock += 1
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            for name in self._names.get(id(tensor), ()):
                self.first_use.setdefault(name, self.clock)
        seen = [self._seen[tensor] for tensor in inputs if tensor in self._seen]
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
            aside = self.watcher is not None and self.watcher.aside
            self.forward += 0 if aside else flops
            seen = seen and [*seen, _Seen(seen[0].geometry, 1 << len(self.costs))]
            self.costs.append(flops * (max(len(seen) - 1, 0) + aside))
        if func.overloadpacket is aten.convolution and not output.numel() and args[0].numel():
            raise RuntimeError("a convolution's kernel is larger than its input")  # torch 2.11's meta device accepts it
        if func.overloadpacket is aten.convolution and self.watcher is not None and output.ndim == 4:
            self.watcher.patches = output.shape[2] * output.shape[3]
        if seen and func.overloadpacket not in BLIND:
            before = _union(seen)
            seen_now = _Seen(after(func, args, kwargs, output, before.geometry), before.products)
            for tensor in tensors_of(output):
                self._seen[tensor] = seen_now
        return output

    def seen(self, tensors: list[Tensor]) -> _Seen:
        """Return the origin of a value of these tensors."""
        seen = [self._seen[tensor] for tensor in tensors if tensor in self._seen]
        return _union(seen) if seen else _Seen(WHOLE, 0)


def _union(seen: list[_Seen]) -> _Seen:
    """Return the origin where branches meet: the larger areas, since all are centred on the same pixel."""
    geometries, products = [one.geometry for one in seen], 0
    for one in seen:
        products |= one.products
    rows, columns = (max(g.field[k] for g in geometries) for k in (0, 1))
    placed = [(g.stride, g.start) for g in geometries if g.stride is not None]
    if not placed:
        return _Seen(Geometry((rows, columns), None), products)
    strides, starts = zip(*placed, strict=True)
    stride = max(down for down, _ in strides), max(right for _, right in strides)
    start = min(top for top, _ in starts), min(left for _, left in starts)
    return _Seen(Geometry((rows, columns), stride, start), products)
