"""Build models on the meta device, and give them only the weights that a layer needs."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from invrep.representations.tracing.dry_run import meta_copy


def skeleton_of(build: Callable[[], nn.Module]) -> tuple[nn.Module, list[str | None]]:
    """Return the model on the meta device, and its parameters' names in the order of their creation."""
    made: list[nn.Parameter] = []
    try:
        with torch.device("meta"), _each_parameter(made.append):
            module = skeleton = build()
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
        made.clear()
        with torch.random.fork_rng(devices=[]), _each_parameter(made.append):
            module = build()
        skeleton = meta_copy(module)
    skeleton.requires_grad_(False).eval()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return skeleton, [names.get(id(parameter)) for parameter in made]


def drop_weights(module: nn.Module, *, keep: set[str]) -> None:
    """Set each parameter and buffer outside ``keep`` to None; the modules themselves stay."""
    for path, child in module.named_modules():
        for tensors in (child._parameters, child._buffers):
            for name in tensors:
                if (f"{path}.{name}" if path else name) not in keep:
                    tensors[name] = None


def initial_weights(
    build: Callable[[], nn.Module], seed: int, order: list[str | None], needed: set[str]
) -> dict[str, Tensor]:
    """Return the needed weights from the model's own initialisation.

    Args:
        build: function that builds the model.
        seed: seed of the weights; torch's random state stays unchanged.
        order: names of the parameters in the order of their creation.
        needed: names of the parameters and buffers to return.
    """
    names = iter(order)
    draws = _SeededDraws(seed)

    def skip(parameter: nn.Parameter) -> nn.Parameter | None:
        name = next(names)
        if name not in needed:
            # Memory without a write costs nothing, and the meta device does no arithmetic.
            return nn.Parameter(parameter.to("meta"))
        draws.names[parameter.data_ptr()] = name
        return None

    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _each_parameter(skip), draws:
        tensors = build().state_dict()
    return {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}


class _SeededDraws(TorchDispatchMode):
    """Seed every random operation by its parameter's name: no weight depends on the others."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.seed = seed
        self.names: dict[int, str | None] = {}  # address of a parameter's memory → its name
        self._last: str | None = None
        self._draws: Counter[str | None] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = args[0] if args and isinstance(args[0], Tensor) else None
        if torch.Tag.nondeterministic_seeded in func.tags and not (target is not None and target.is_meta):
            # A tensor without a name helps the parameter before it (trunc_normal_ redraws values outside its bounds).
            self._last = name = self._last if target is None else self.names.get(target.data_ptr(), self._last)
            self._draws[name] += 1
            digest = hashlib.sha256(f"{self.seed}/{name}/{self._draws[name]}".encode()).digest()
            torch.default_generator.manual_seed(int.from_bytes(digest[:7]))
        return func(*args, **(kwargs or {}))


@contextmanager
def _each_parameter(see: Callable[[nn.Parameter], nn.Parameter | None]) -> Iterator[None]:
    """Call ``see(parameter)`` for each parameter that a module gets; a result other than None replaces it."""
    # torch's annotation does not say that the hook may return a parameter.
    handle = register_module_parameter_registration_hook(
        cast("Callable[..., None]", lambda _module, _name, parameter: see(parameter))
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
            yield
    finally:
        handle.remove()
