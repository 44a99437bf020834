"""Handle the wrappers of a module, and the kinds of its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

COMPILED = "_orig_mod"  # child of a compiled module: the module itself
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class Scripted(nn.Module):
    """Wrap a TorchScript module: a hook on TorchScript itself cannot see the output.

    Args:
        module: module from torch.jit.script or torch.jit.trace.
    """

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.scripted = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output."""
        return self.scripted(*args, **kwargs)


def plain_names(module: nn.Module) -> dict[str, str]:
    """Return the paths of all modules: path without the parts of torch.compile and DataParallel → path with them."""
    added = "module" if isinstance(module, PARALLEL) else None
    names = {}
    for path, _ in module.named_modules(remove_duplicate=False):
        first, *rest = path.split(".")
        parts = [*([] if first == added else [first]), *rest]
        names[".".join(part for part in parts if part != COMPILED)] = path
    return names


def without_values(module: nn.Module) -> str | None:
    """Return why a module cannot be run, as a clause about its weights; None where all have values."""
    for tensors in (module.named_parameters, module.named_buffers):
        for name, tensor in tensors():
            if is_lazy(tensor):
                return f"{name} has no shape yet (a lazy layer); pass images through it once"
            if tensor.is_meta:
                return f"{name} is on the meta device and has no values; load its weights"
    return None


def leaves(output: Any) -> Iterator[Any]:
    """Yield the values in a module's output: in tuples, lists, dictionaries, dataclasses and similar containers."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from leaves(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from leaves(value)
    elif is_dataclass(output) and not isinstance(output, type):
        for part in fields(output):
            yield from leaves(getattr(output, part.name, None))
    else:
        known = tree_leaves(output)  # a class that is registered with torch
        if known == [output]:
            yield output
        else:
            for value in known:
                yield from leaves(value)


def described(output: Any) -> str:
    """Return words about an output without floating-point tensors, and about the outputs that are allowed."""
    kinds = dict.fromkeys(map(_kind, leaves(output)))
    what = " and ".join(list(kinds)[:3]) or f"an empty {type(output).__name__}"
    return (
        f"returned {what}; expected floating-point or complex tensors, alone or in a tuple, list, dictionary or "
        f"dataclass: name an earlier layer, or wrap it in a module that returns the tensor."
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.layout == torch.strided else f" of layout {str(value.layout).removeprefix('torch.')}"
        return f"a tensor{layout} of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else f"an object of class {type(value).__name__}"
