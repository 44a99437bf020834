"""A dry run of a module: which layers are called how often, their shapes, what they see, which weights they need.

On the meta device a forward pass costs no arithmetic and no memory, so all of this is known before any weight is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten

# Positions stay where they are; everything that is neither here, nor pointwise, nor a convolution or a pooling may
# look anywhere in the image.
_IN_PLACE = {
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.cudnn_batch_norm,
    aten.batch_norm,
    aten.hardswish_,
    aten.dropout,
    aten.detach,
    aten.contiguous,
}


@dataclass(frozen=True)
class LayerTrace:
    """One layer of a dry run.

    Attributes:
        calls: how many times a forward pass calls it.
        shapes: shapes of the tensors that its last call returns.
        receptive_field: side in pixels of what one position sees; None where it is, or may be, the whole image.
        stride: pixels between neighbouring positions; None where there are no positions.
        end: place of its last call's end in the order of events.
    """

    calls: int
    shapes: tuple[tuple[int, ...], ...]
    receptive_field: int | None
    stride: int | None
    end: int


@dataclass(frozen=True)
class Trace:
    """What a forward pass does.

    Attributes:
        layers: module path → what happened there, for every module whose call came to an end; ``""`` is the module.
        first_use: name of a parameter or buffer → place of its first use in the order of events.
        error: what ended the pass early; None where it came to its end.
    """

    layers: dict[str, LayerTrace]
    first_use: dict[str, int]
    error: Exception | None

    def calls(self, path: str) -> int:
        """Return how many times the layer was called."""
        return self.layers[path].calls if path in self.layers else 0

    def weights_up_to(self, paths: Iterable[str]) -> set[str]:
        """Return the names of the parameters and buffers that a pass needs which stops at the last of these layers."""
        end = max(self.layers[path].end for path in paths)
        return {name for name, first in self.first_use.items() if first <= end}


def tensors_of(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in what a module returned: a tensor, or tuples, lists and dicts of them."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode with frozen parameters, and leave each as it was."""
    training: list[nn.Module] = []
    learning: list[nn.Parameter] = []
    # By hand, since modules() and parameters() make up names, a quarter of a millisecond of each pass of a ResNet-18.
    pending = [module]
    while pending:
        child = pending.pop()
        pending += [grandchild for grandchild in child._modules.values() if grandchild is not None]
        if child.training:
            training.append(child)
        learning += [p for p in child._parameters.values() if p is not None and p.requires_grad]
    try:
        # Not module.eval(): a user's class may have its own, and one flag for all would not be what was found.
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


@contextmanager
def hooked(module: nn.Module, paths: Iterable[str], hook: Callable[[str, Any], None]) -> Iterator[None]:
    """Call ``hook(path, output)`` whenever one of these submodules has returned, and leave no hook behind."""
    handles = []
    try:
        for path in paths:
            submodule = module.get_submodule(path)
            handles.append(submodule.register_forward_hook(lambda _module, _args, output, p=path: hook(p, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def meta_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module whose parameters and buffers have shapes but no values.

    Raises:
        Exception: whatever deepcopy raises for a module that it cannot copy.
    """
    # deepcopy takes what it finds in its memo, so that no weight is ever copied.
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(module, memo)
    for child in twin.modules():
        # Those that watch should not see a pass which their owner did not ask for.
        child._forward_pre_hooks.clear()
        child._forward_hooks.clear()
    return twin


def dry_run(module: nn.Module, images: Tensor) -> Trace:
    """Pass images through a module in evaluation mode, and note what happens; an exception is part of the answer.

    Args:
        module: any module; on the meta device (:func:`meta_copy`) the pass costs almost nothing.
        images: (B, C, H, W), on the module's device; the pass may change them.
    """
    paths: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    recorder = _Recorder(module, images)
    ended: dict[str, LayerTrace] = {}

    def note(path: str, output: Any) -> None:
        tensors = tensors_of(output)
        field, stride = recorder.geometry(tensors)
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        calls = ended[path].calls + 1 if path in ended else 1
        ended[path] = LayerTrace(calls, shapes, field, stride, recorder.clock)

    error = None
    factories = torch.device("meta") if images.is_meta else nullcontext()
    try:
        # A caller who counts operations (FlopCounterMode) should see those of the pass that was asked for.
        uncounted = _disable_current_modes()
        with uncounted, evaluating(module), hooked(module, paths, note), torch.no_grad(), factories, recorder:
            module(images)
    except Exception as caught:
        error = caught.with_traceback(None)  # its frames would keep every tensor of the pass alive
    return Trace(ended, recorder.first_use, error)


# (height, width) of what a position sees, and of the distance to the next; no strides where there are no positions.
_Geometry = tuple[tuple[float, float], tuple[int, int] | None]
_WHOLE = (math.inf, math.inf)


class _Recorder(TorchDispatchMode):
    """Follows every operation: when each weight is first used, and what part of the image each tensor sees."""

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.clock = 0
        self.first_use: dict[str, int] = {}
        self._names: dict[int, list[str]] = {}
        for named in (module.named_parameters, module.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                self._names.setdefault(id(tensor), []).append(name)
        self._geometry: Any = WeakTensorKeyDictionary()
        self._geometry[images] = ((1, 1), (1, 1))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.clock += 1
        output = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            for name in self._names.get(id(tensor), ()):
                self.first_use.setdefault(name, self.clock)
        seen = [self._geometry[tensor] for tensor in inputs if tensor in self._geometry]
        if seen:
            geometry = _after(func, args, _union(seen))
            for tensor in tensors_of(output):
                self._geometry[tensor] = geometry
        return output

    def geometry(self, tensors: list[Tensor]) -> tuple[int | None, int | None]:
        """Return receptive field and stride of a layer's output in pixels."""
        seen = [self._geometry[tensor] for tensor in tensors if tensor in self._geometry]
        field, stride = _union(seen) if seen else (_WHOLE, None)
        return (None if math.inf in field else int(max(field)), None if stride is None else max(stride))


def _union(seen: list[_Geometry]) -> _Geometry:
    """What is seen where branches meet: the larger of them, since all are centred on the same pixel."""
    fields, strides = [one[0] for one in seen], [one[1] for one in seen if one[1] is not None]
    field = (max(f[0] for f in fields), max(f[1] for f in fields))
    return field, (max(s[0] for s in strides), max(s[1] for s in strides)) if strides else None


def _after(func: Any, args: Any, before: _Geometry) -> _Geometry:
    """What the output of an operation sees."""
    field, stride = before
    operation = func.overloadpacket
    if torch.Tag.pointwise in func.tags or operation in _IN_PLACE:
        return before
    if operation is aten.cat:
        return before if (args[1] if len(args) > 1 else 0) == 1 else (_WHOLE, None)
    window = _window(operation, args)
    if window is None or stride is None:
        return _WHOLE, None
    size, step, dilation = window
    field = tuple(f + (k - 1) * d * s for f, k, d, s in zip(field, size, dilation, stride, strict=True))
    return field, tuple(s * t for s, t in zip(stride, step, strict=True))


def _window(operation: Any, args: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Return kernel size, stride and dilation of a two-dimensional convolution or pooling; None of anything else."""

    def pair(values: Any) -> tuple[int, int]:
        return (values[0], values[-1]) if isinstance(values, (list, tuple)) else (values, values)

    if operation is aten.convolution and args[1].ndim == 4 and not args[6]:
        return tuple(args[1].shape[2:]), pair(args[3]), pair(args[5])
    if operation in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        kernel = pair(args[1])
        step = pair(args[2]) if len(args) > 2 and args[2] else kernel
        dilated = operation is aten.max_pool2d_with_indices and len(args) > 4
        return kernel, step, pair(args[4]) if dilated else (1, 1)
    return None
