"""Name a module's values: the outputs of its submodules, and the values in between.

A name is looked up in this order:

- ``layer1.0``: the output of the submodule, in its last call if there are several;
- ``layer1.0.relu_0``: its output in the first call, ``_1`` in the second, if there are several;
- ``blocks.5.attn.q``, ``.k``, ``.v``: queries, keys and values of an attention, before the split into heads;
- ``layer1.0.add``, ``encoder.cat``: the output of a torch function that the submodule itself calls. The name is the
  function's or the operator's, in place or not. ``add_1`` is its second call within one call of the submodule;
- any of these with ``.cls`` or ``.patches``, in a transformer with a class token, for a tensor (batch, tokens,
  channels). ``.cls`` is its class token, ``.patches`` its tokens without the class and register tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from invrep.representations.tracing.wrapped import leaves

Emit = Callable[[str, Any], None]
_OPERATOR = re.compile(r"__[ir]?(add|sub|mul|truediv|matmul|pow)__")
_CALL = re.compile(r"(.+)_(\d+)")
TOKENS = (".cls", ".patches")
_PROJECTIONS = ("q", "k", "v")


def tensors_of(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in a module's output.

    :func:`invrep.representations.tracing.wrapped.leaves` finds them. A complex tensor becomes a real one, with real and
    imaginary part in a last dimension.
    """
    if isinstance(output, Tensor) and output.is_floating_point() and output.layout == torch.strided:
        return [output]
    tensors = [leaf for leaf in leaves(output) if isinstance(leaf, Tensor) and leaf.layout == torch.strided]
    tensors = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def prefix_tokens(module: nn.Module) -> int:
    """Return the number of tokens before the patch tokens of a transformer: class and register tokens."""
    known = getattr(module, "num_prefix_tokens", None)  # timm's attribute
    if isinstance(known, int):
        return known
    names = {name for child in module.modules() for name in child._parameters.keys()}  # noqa: SIM118 (TorchScript's)
    return int(bool(names & {"class_token", "cls_token", "class_embedding"}))


def numbered_call(name: str) -> str | None:
    """Return ``relu`` for ``relu_1``; None for a name without a number."""
    call = _CALL.fullmatch(name)
    return call and call[1]


@contextmanager
def watching(module: nn.Module, emit: Emit, names: Set[str] | None = None, *, prefix: int = 0) -> Iterator[Watcher]:
    """Call ``emit(name, output)`` for each named value as it is computed; remove every hook at the end.

    Args:
        module: module to watch within the context.
        emit: function that is called before any in-place change of the output; its exception ends the pass.
        names: names of the values; None for all.
        prefix: number of tokens before the patch tokens, see :func:`prefix_tokens`.
    """
    watcher = Watcher(module, emit, names, prefix)
    try:
        watcher.attach()
        with watcher if watcher.owners else nullcontext():
            yield watcher
    finally:
        for handle in watcher.handles:
            handle.remove()


class Watcher(TorchFunctionMode):
    """Name the values of a pass; only modules that bear on the wanted names get hooks.

    Attributes:
        aside: whether the present computation is the watcher's own, no part of the module's pass.
        patches: number of tokens without the class and register tokens; None accepts any number.
    """

    def __init__(self, module: nn.Module, emit: Emit, names: Set[str] | None, prefix: int) -> None:
        super().__init__()
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.emit = emit
        self.names = names
        self.prefix = prefix
        self.aside = False
        self.patches: int | None = None
        self.handles: list[Any] = []
        self.calls: Counter[str] = Counter()
        self.stack: list[tuple[str | None, Counter[str]]] = []
        self.owners: set[str] = set()

    def attach(self) -> None:
        """Register the hooks."""
        outputs = set(self.modules)
        inputs = {path for path, child in self.modules.items() if isinstance(child, nn.MultiheadAttention)}
        self.owners = set(self.modules)
        if self.names is not None:
            outputs, inputs, self.owners = self._needed(self.names)
        for path, child in self.modules.items():
            if isinstance(child, torch.jit.ScriptModule):
                continue  # TorchScript takes no hooks
            counted = any(not owner or path == owner or path.startswith(f"{owner}.") for owner in self.owners)
            if path in inputs:
                self.handles.append(child.register_forward_pre_hook(self._projections(path), with_kwargs=True))
            if counted:
                self.handles.append(child.register_forward_pre_hook(self._enter(path)))
            if counted or path in outputs:
                self.handles.append(child.register_forward_hook(self._leave(path, path in outputs, counted)))

    def _needed(self, names: Set[str]) -> tuple[set[str], set[str], set[str]]:
        """Return the modules that the names need: for their outputs, their inputs, and their own function calls."""
        outputs, inputs, owners = set(), set(), set()
        for name in names:
            base = name
            if name not in self.modules:
                base = next((name.removesuffix(part) for part in TOKENS if name.endswith(part)), name)
            owner, _, last = base.rpartition(".")
            if base in self.modules:
                outputs.add(base)
            elif (call := numbered_call(base)) is not None and call in self.modules:
                outputs.add(call)
            elif last in _PROJECTIONS and isinstance(self.modules.get(owner), nn.MultiheadAttention):
                inputs.add(owner)
            elif last in _PROJECTIONS and f"{owner}.qkv" in self.modules:
                outputs.add(f"{owner}.qkv")
            elif owner in self.modules:
                owners.add(owner)
        return outputs, inputs, owners

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        path, seen = self.stack[-1] if self.stack else (None, Counter())
        if path is None or self.aside or not isinstance(output, Tensor | tuple | list):
            return output
        name = getattr(func, "__name__", "")
        operator = _OPERATOR.fullmatch(name)
        name = operator[1] if operator else name.strip("_")
        full = f"{path}.{name}" if path else name
        if name == "get" or full in self.modules:  # an attribute, or a module's name
            return output
        seen[name] += 1
        with self._aside():
            self._emit(full if seen[name] == 1 else f"{full}_{seen[name] - 1}", output)
        return output

    def _emit(self, name: str, output: Any, *, always: bool = False) -> None:
        tensors = tensors_of(output)
        if (tensors or always) and (self.names is None or name in self.names):
            self.emit(name, output)
        if self.prefix and len(tensors) == 1 and tensors[0].ndim == 3:
            patches = tensors[0].shape[1] - self.prefix
            if patches > 0 and self.patches in (None, patches):
                for part, tokens in zip(TOKENS, (tensors[0][:, 0], tensors[0][:, self.prefix :]), strict=True):
                    if self.names is None or name + part in self.names:
                        self.emit(name + part, tokens)

    def _enter(self, path: str) -> Callable[..., None]:
        own = path if path in self.owners else None
        return lambda *_: self.stack.append((own, Counter()))

    def _leave(self, path: str, emits: bool, counted: bool) -> Callable[..., None]:
        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            if counted:
                self.stack.pop()
            if not emits:
                return
            with self._aside():
                owner, _, last = path.rpartition(".")
                tensors = tensors_of(output)
                if last == "qkv" and len(tensors) == 1 and tensors[0].shape[-1] % 3 == 0:
                    for name, part in zip(_PROJECTIONS, tensors[0].chunk(3, -1), strict=True):
                        self._emit(f"{owner}.{name}", part)
                self._emit(f"{path}_{self.calls[path]}", output)
                self.calls[path] += 1
                self._emit(path, output, always=True)

        return leave

    def _projections(self, path: str) -> Callable[..., None]:
        def project(attention: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            if attention.in_proj_weight is None:
                weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
            else:
                weights = attention.in_proj_weight.chunk(3)
            biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
            with self._aside():
                for k, (name, role) in enumerate(zip(_PROJECTIONS, ("query", "key", "value"), strict=True)):
                    full = f"{path}.{name}"
                    if self.names is None or not self.names.isdisjoint((full, *(full + part for part in TOKENS))):
                        part = linear(given[role], weights[k], biases[k])
                        self._emit(full, part if attention.batch_first else part.transpose(0, 1))

        return project

    @contextmanager
    def _aside(self) -> Iterator[None]:
        self.aside = True
        try:
            yield
        finally:
            self.aside = False
