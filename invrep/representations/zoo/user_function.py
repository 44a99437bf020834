"""Make Φ from any function or module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from torch import Tensor, nn

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.network import Network


def as_representation(given: object, channels: int) -> Representation:
    """Return Φ as a representation.

    Args:
        given: representation, module or function of images; the code is the module's or the function's output. The
            modules that a function is bound to or refers to run in evaluation mode and stay unchanged.
        channels: channels of the images, for a module or a function.

    Raises:
        InvrepError: the argument is none of these.
    """
    if isinstance(given, Representation):
        return given
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise InvrepError(f"phi is the class {given.__name__}; expected a module of it: {given.__name__}(…).")
    if isinstance(given, nn.Module):
        return Network(given, channels=(channels,))
    if callable(given):
        return Network(Function(given), channels=(channels,), name=_name(given))
    hint = f": invrep.representation({given!r})" if isinstance(given, str) else ""
    shown = " ".join(repr(given).split())[:80]
    raise InvrepError(f"phi is {shown}; expected a representation, an nn.Module or a function of images{hint}.")


class Function(nn.Module):
    """Wrap a function of images as a module; its children are the modules that the function uses.

    Args:
        function: function of images, (B, C, H, W).
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.uses = nn.ModuleList(dict.fromkeys(_modules(function)))

    def forward(self, images: Tensor) -> Any:
        """Return the function's output."""
        return self.function(images)


def _modules(function: Any) -> Iterator[nn.Module]:
    """Yield the modules that a function is bound to, holds, or refers to by name."""
    while isinstance(function, partial):
        yield from (value for value in (*function.args, *function.keywords.values()) if isinstance(value, nn.Module))
        function = function.func
    if isinstance(function, nn.Module):
        yield function
        return
    owner = getattr(function, "__self__", None)
    held = [] if inspect.ismodule(owner) else [owner]
    held += getattr(owner if inspect.ismethod(function) else function, "__dict__", {}).values()
    plain = inspect.unwrap(getattr(function, "__func__", function))
    if inspect.isfunction(plain):
        with suppress(ValueError):  # a name has no value yet
            names = inspect.getclosurevars(plain)
            held += [*names.nonlocals.values(), *names.globals.values()]
    yield from (value for value in held if isinstance(value, nn.Module))


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__name__).replace("<locals>.", "")
