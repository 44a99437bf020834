"""A module's twin refers to twins wherever the module refers to modules, and shares the memory of its weights."""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invrep.representations.twin import twin

Pair = namedtuple("Pair", "first second")
GLOBAL = nn.BatchNorm1d(2)


class Leaf(nn.Module):
    """Counts its calls by an attribute, and normalises by the batch in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(x)


class Caller:
    """No module, but holds one."""

    def __init__(self, leaf: nn.Module) -> None:
        self.leaf = leaf

    def __call__(self, x: Tensor) -> Tensor:
        return self.leaf(x)

    def method(self, x: Tensor) -> Tensor:
        return self.leaf(x)


class Refers(nn.Module):
    """Calls a leaf by something that refers to it."""

    def __init__(self, refer: Any, *, registered: bool = True) -> None:
        super().__init__()
        leaf = Leaf()
        if registered:
            self.leaf = leaf
        self.refers = refer(leaf)

    def forward(self, x: Tensor) -> Tensor:
        return self.refers(x)


def in_default(leaf: nn.Module) -> Any:
    def function(x: Tensor, *, leaf: nn.Module = leaf) -> Tensor:
        return leaf(x)

    return function


def decorated(leaf: nn.Module) -> Any:
    return torch.enable_grad()(lambda x: leaf(x))


REFERENCES = {
    "method": lambda leaf: leaf.forward,
    "closure": lambda leaf: lambda x: leaf(x),
    "closure of a list": lambda leaf: (lambda leaves: lambda x: leaves[0](x))([leaf]),
    "default": in_default,
    "decorated": decorated,
    "partial": lambda leaf: partial(Caller.method, Caller(leaf)),
    "partial of a module": lambda leaf: partial(leaf),
    "object": Caller,
    "object's method": lambda leaf: Caller(leaf).method,
    "compiled": lambda leaf: torch.compile(leaf.forward, backend="eager"),
}
X = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_reference_leads_to_the_twin(kind: str, registered: bool) -> None:
    module = Refers(REFERENCES[kind], registered=registered)
    made = twin(module)
    assert torch.equal(made(X), X / (1 + 1e-5) ** 0.5)  # by the running statistics
    if registered:
        assert (module.leaf.calls, made.leaf.calls) == (0, 1)
        assert module.leaf.norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    "hold", [lambda leaf: [leaf], lambda leaf: (leaf,), lambda leaf: {"a": [leaf]}, lambda leaf: Pair(leaf, 1)]
)
def test_containers_of_modules_are_made_anew_and_others_shared(hold: Any) -> None:
    module = Leaf()
    module.held, module.plain = hold(module.norm), [1, {"a": "b"}]
    made = twin(module)
    assert type(made.held) is type(module.held) and made.plain is module.plain
    (inner,) = made.held.values() if isinstance(made.held, dict) else [made.held]
    assert (inner[0] if isinstance(inner, list | tuple) else inner) is made.norm


def test_a_list_that_holds_itself_and_a_child_that_knows_its_parent() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    ring: list[Any] = [1]
    ring.append(ring)
    module.ring, module[0].parent = ring, [module]
    made = twin(module)
    assert made.ring is ring and made[0].parent == [made]


def test_functions_see_the_twin_of_a_global_module() -> None:
    module = nn.Identity()
    module.function = lambda x: GLOBAL(x)
    assert torch.equal(twin(module).function(X), X / (1 + 1e-5) ** 0.5)
    assert GLOBAL.num_batches_tracked == 0


def test_memory_is_shared_and_what_happens_to_it_is_not() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module.tied = module[0].weight
    module.listed = [module[0].weight]
    made = twin(module)
    assert made[0].weight.data_ptr() == module[0].weight.data_ptr()
    assert made.tied is made[0].weight is made.listed[0]
    made.to(torch.float64, memory_format=torch.channels_last)
    assert module[0].weight.dtype == torch.float32 and module[0].weight.is_contiguous()
    module[1].running_mean += 1
    assert made[1].running_mean.eq(0).all()  # a buffer is the twin's own
    assert all(p.requires_grad for p in module.parameters()) and not any(p.requires_grad for p in made.parameters())


def test_a_parameter_of_a_class_of_its_own() -> None:
    class Special(nn.Parameter):
        pass

    module = nn.Module()
    module.weight = Special(torch.ones(2))
    module.weight.note = "kept"
    made = twin(module)
    assert type(made.weight) is Special and made.weight.note == "kept"


def test_a_torchscript_module_keeps_its_state_and_shares_its_memory() -> None:
    module = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    made = twin(module)
    weights = [next(m.parameters()) for m in (module, made)]
    assert weights[0].data_ptr() == weights[1].data_ptr()
    assert [w.requires_grad for w in weights] == [True, False]
    made.double()(torch.rand(2, 3, 5, 5, dtype=torch.float64))
    assert weights[0].dtype == torch.float32 and module.training and not made.training
    assert module.state_dict()["1.num_batches_tracked"] == 0


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_wrappers_are_left_out_and_names_stay(wrap: Any) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    wrapped = wrap(module)
    calls: list[int] = []
    wrapped.register_forward_hook(lambda *_: calls.append(1))
    made = twin(wrapped)
    assert [name for name, _ in made.named_modules()] == [name for name, _ in wrapped.named_modules()]
    assert torch.equal(made(X), module[0](X)) and calls == [1]
    assert isinstance(wrapped, type(wrap(module))) and module.training
