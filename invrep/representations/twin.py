"""Make twins of modules: a twin computes the same in evaluation mode, and changes to it do not reach the module.

A job casts, moves and watches Φ, and runs it in evaluation mode. Checkpointed modules run again in the backward pass.
All of this happens to a twin. The twin shares the memory of the weights and costs next to nothing.
"""

from __future__ import annotations

import copy
import functools
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_HOOKS = [name for name in nn.Module().__dict__ if name.endswith("_hooks") or "_hooks_" in name]
_TREE = {"_parameters", "_buffers", "_modules", *_HOOKS}
T = TypeVar("T")
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)
_turns: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_dealing = threading.Lock()


def turn_of(module: nn.Module) -> threading.RLock:
    """Return the lock by which the forward passes of a module's twins take turns."""
    with _dealing:
        return _turns.setdefault(module, threading.RLock())


def twin(module: nn.Module) -> nn.Module:
    """Return a module with this module's outputs in evaluation mode.

    The twin's parameters are frozen and share memory with the module's. Its buffers are copies, since a pass may write
    to them. Its modules are new objects with the attributes of the originals. An attribute that refers to a module (a
    list, a method, a hook, a function's closure or global) refers to the twin. All other objects are shared.

    The wrappers of torch.compile, DataParallel and DistributedDataParallel are left out. A compiled module ignores
    hooks that are added later, and the parallel wrappers would use other devices and processes.
    """
    return _Twins().of(module)


class _Unwrapped(nn.Module):
    """Replace a wrapper, and keep the names of its modules."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return next(self.children())(*args, **kwargs)


def _wraps(module: nn.Module) -> bool:
    parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    # By its name: importing torch._dynamo takes seconds.
    return (parallel or type(module).__name__ == "OptimizedModule") and len(module._modules) == 1


def _plain(kind: Any) -> bool:
    """Return whether ``object`` makes a class's instances."""
    return kind.__new__ is object.__new__


class _Twins:
    """Make the twins of modules that refer to each other; each object has one twin, for every reference to it."""

    def __init__(self) -> None:
        self.twins: dict[int, Any] = {}
        self.originals: list[Any] = []  # kept alive: an id may be reused once its object is gone
        self.pending: list[nn.Module] = []  # twins that still have the original's attributes

    def of(self, module: nn.Module) -> nn.Module:
        made = self._module(module)
        while self.pending:
            one = self.pending.pop()
            for name, value in list(one.__dict__.items()):
                if name not in _TREE and type(value) not in _PLAIN:
                    one.__dict__[name] = self._value(value)
        return made

    def _remember(self, original: Any, made: T) -> T:
        self.originals.append(original)
        self.twins[id(original)] = made
        return made

    def _module(self, module: nn.Module) -> nn.Module:
        if id(module) in self.twins:
            return cast(nn.Module, self.twins[id(module)])
        if isinstance(module, torch.jit.ScriptModule):
            return self._remember(module, _scripted(module))
        wraps = _wraps(module)
        made = self._remember(module, object.__new__(_Unwrapped if wraps else type(module)))
        attributes = made.__dict__  # setattr may be redefined by the module's class
        attributes.update(nn.Module().__dict__ if wraps else module.__dict__)
        attributes.pop("_compiled_call_impl", None)
        attributes["training"] = False
        attributes["_parameters"] = {name: self._value(value) for name, value in module._parameters.items()}
        attributes["_buffers"] = {name: self._buffer(value) for name, value in module._buffers.items()}
        attributes["_modules"] = {name: self._value(value) for name, value in module._modules.items()}
        for hooks in _HOOKS:
            given = module.__dict__.get(hooks, {})
            attributes[hooks] = type(given)((key, self._value(hook)) for key, hook in given.items())
        self.pending.append(made)
        return made

    def _buffer(self, buffer: Tensor | None) -> Tensor | None:
        if buffer is None or is_lazy(buffer) or id(buffer) in self.twins:
            return cast("Tensor | None", self._value(buffer))
        return self._remember(buffer, buffer.detach().clone())

    def _tensor(self, tensor: Tensor) -> Tensor:
        """Return the same values, in the same memory where autograd accepts it."""
        if is_lazy(tensor) or not (isinstance(tensor, nn.Parameter) or tensor.requires_grad or tensor.is_inference()):
            return tensor
        made = tensor.detach().clone() if tensor.is_inference() else tensor.detach()
        if issubclass(type(tensor), nn.Parameter):  # a parameter of a subclass keeps its class
            made = torch.Tensor._make_subclass(type(tensor), made, False)
            made.__dict__.update(tensor.__dict__)
        elif isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=False)
        return self._remember(tensor, made)

    def _value(self, value: Any) -> Any:
        """Return the twin of an attribute's value; the value itself where it refers to no module."""
        if id(value) in self.twins:
            return self.twins[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, list | tuple | set | dict):
            return self._container(value)
        if isinstance(value, types.MethodType):
            owner: Any = value.__self__
            plain = _plain(type(owner)) and hasattr(owner, "__dict__")
            made = self._object(owner) if plain and not isinstance(owner, nn.Module) else self._value(owner)
            return value if made is owner else types.MethodType(self._value(value.__func__), made)
        if isinstance(value, functools.partial):
            return self._partial(value)
        if isinstance(value, types.FunctionType):
            compiled = getattr(value, "_torchdynamo_orig_callable", None)
            return self._function(value) if compiled is None else self._value(compiled)
        if callable(value) and _plain(type(value)) and getattr(value, "__dict__", None):
            return self._object(value)
        return value

    def _container(self, value: Any) -> Any:
        self._remember(value, value)  # a container may hold itself
        items = list(value.items() if isinstance(value, dict) else value)
        made = self._all(items)
        if made is items:
            return value
        if isinstance(value, tuple):
            found = value._make(made) if hasattr(value, "_make") else tuple(made)
        else:
            found = copy.copy(value)
            found.clear()
            (found.extend if isinstance(value, list) else found.update)(made)
        return self._remember(value, found)

    def _all(self, values: Iterable[Any]) -> Any:
        """Return a list of the twins of some values; the values themselves where all are the same."""
        made = [self._value(value) for value in values]
        return values if all(a is b for a, b in zip(values, made, strict=True)) else made

    def _partial(self, value: functools.partial[Any]) -> functools.partial[Any]:
        parts = [value.func, value.args, value.keywords]
        func, args, keywords = made = self._all(parts)
        return value if made is parts else functools.partial(func, *args, **keywords)

    def _object(self, value: Any) -> Any:
        if id(value) in self.twins:
            return self.twins[id(value)]
        self._remember(value, value)
        attributes = self._container(value.__dict__)
        if attributes is value.__dict__:
            return value
        made = object.__new__(type(value))
        made.__dict__.update(attributes)
        return self._remember(value, made)

    def _function(self, value: Callable[..., Any]) -> Callable[..., Any]:
        self._remember(value, value)
        cells = value.__closure__ and tuple(self._cell(cell) for cell in value.__closure__)
        same = all(a is b for a, b in zip(cells or (), value.__closure__ or (), strict=True))
        there = value.__globals__
        modules = {name: there[name] for name in value.__code__.co_names if isinstance(there.get(name), nn.Module)}
        parts = [value.__defaults__, value.__kwdefaults__]
        made = self._all(parts)
        if same and not modules and made is parts:
            return value
        found = types.FunctionType(
            value.__code__,
            there | {name: self._module(module) for name, module in modules.items()} if modules else there,
            value.__name__,
            made[0],
            cells,
        )
        found.__kwdefaults__ = made[1]
        found.__dict__.update(value.__dict__)
        return self._remember(value, found)

    def _cell(self, cell: types.CellType) -> types.CellType:
        try:
            held = cell.cell_contents
        except ValueError:  # the name has no value yet
            return cell
        made = self._value(held)
        return cell if made is held else types.CellType(made)


def _scripted(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Return a TorchScript module's twin.

    Only TorchScript itself can make one, so the copy holds weights of its own for a moment.
    """
    with torch.no_grad():
        made = copy.deepcopy(module).eval()
    for ours, theirs in zip(made.parameters(), module.parameters(), strict=True):
        ours.requires_grad_(False).data = theirs.detach()
    return made
