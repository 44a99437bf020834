"""Find a network's layers by name: aliases, numbers, module paths, and values in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from torch import nn

from invrep.errors import InvrepError, LayerError, nearest
from invrep.representations.tracing.dry_run import Trace
from invrep.representations.tracing.wrapped import plain_names

LISTING = ("list", "?")  # words that list the layers instead of naming one
LayerNames = str | int | Sequence[str | int] | Mapping[str | int, float] | None


@dataclass(frozen=True)
class NameTable:
    """Find a network's layers by name, and word the messages about them.

    Attributes:
        network: name of the network in messages.
        aliases: short name → path.
        numbers: paths of the layers with a number, 1 first.
    """

    network: str
    aliases: Mapping[str, str]
    numbers: Sequence[str]

    def listed(self, layer: LayerNames) -> list[object]:
        """Return the names of one layer or of several, as a list.

        Raises:
            InvrepError: the list is empty.
        """
        if isinstance(layer, (str, Real)) or not isinstance(layer, Iterable):
            return [layer]
        names: list[object] = list(layer)
        if not names:
            raise InvrepError(f"The list of layers of {self.network} is empty; name at least one layer.")
        return names

    def path(self, name: object, module: nn.Module, trace: Callable[[], Trace], *, sized: bool) -> str:
        """Return the path of a layer; the module's output has the empty path.

        Args:
            name: name, number or alias from the user.
            module: network.
            trace: function that returns the dry run of the whole network, or raises where there is none.
            sized: whether images of a known size are sure to pass through the network.

        Raises:
            InvrepError: there is no such layer, or the name is a number without a layer.
        """
        if isinstance(name, Integral) and not isinstance(name, bool):
            return self._numbered(int(name))
        if not isinstance(name, str):
            raise InvrepError(
                f"The layer of {self.network} is {name!r}, not a name; quote a name that reads as a number "
                "(1.10 is read as 1.1): layer=\"'1.10'\"."
            )
        if name in self.aliases:
            return self.aliases[name]
        if name.isdecimal() and self.numbers:
            return self._numbered(int(name))
        if name and any(path == name for path, _ in module.named_modules(remove_duplicate=False)):
            return name
        if name == "output":
            return ""
        if name in (plain := plain_names(module)):
            return plain[name]
        try:
            whole = trace()
        except Exception:  # the first pass will find a value that is no module
            return name
        if name in whole.layers or (whole.error is not None and not sized):
            return name
        raise self.unknown(name, module, whole)

    def _numbered(self, number: int) -> str:
        if 1 <= number <= len(self.numbers):
            return self.numbers[number - 1]
        if self.numbers:
            raise LayerError(f"{self.network} has the layers 1 to {len(self.numbers)}, not {number}.")
        raise InvrepError(
            f"The layer of {self.network} is the number {number}, but layer numbers exist only for the paper's "
            "networks (MatConvNet files); give its name, and quote one that reads as a number (1_2 is read as 12): "
            "layer=\"'1_2'\"."
        )

    def unknown(self, name: str, module: nn.Module, trace: Trace) -> InvrepError:
        """Return the error about a name without a layer, with the nearest names."""
        modules = [path for path, _ in module.named_modules(remove_duplicate=False)]
        options = filter(None, dict.fromkeys([*self.aliases, *modules, *trace.layers]))
        return LayerError(f"{self.network} has no layer {name!r}; {nearest(name, options)}.")

    def label(self, path: str) -> str:
        """Return a layer's name in messages: ``'relu5_3' (features.29)``."""
        alias = next((alias for alias, target in self.aliases.items() if target == path), None)
        return f"{path or 'output'!r}" if alias is None else f"{alias!r} ({path})"
