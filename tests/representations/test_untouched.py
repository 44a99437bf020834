"""Φ comes back as it went in, whatever happens to a job: contract 5."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import DenseNet

import invrep
from invrep.errors import InvrepError
from invrep.inversion.compute import Compute
from invrep.inversion.module import Inversion
from invrep.inversion.solver import solve
from invrep.presets import build, preset
from invrep.representations.base import Representation
from invrep.representations.network import Network
from invrep.representations.surrogate import Surrogate, _checkpoints, backward

IMAGES = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))


class Blocks(nn.Module):
    """Two blocks in training mode, run as they are or with checkpoints; the second one calls a plain function."""

    def __init__(self, reentrant: bool | None = None, *, nested: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.reentrant, self.nested = reentrant, nested

    def recomputed(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)

    def both(self, x: Tensor) -> Tensor:
        x = self.recomputed(self.first, x)
        return self.recomputed(lambda y: torch.relu(self.second(y)), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.recomputed(self.both, x) if self.nested else self.both(x)


class Writing(Blocks):
    """Writes to a buffer, to itself and, by hooks, to what it returns, in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.lock = threading.Lock()  # which deepcopy cannot copy
        self.last: Tensor | None = None
        self.seen: dict[str, Tensor] = {}
        self.second.register_forward_hook(lambda _module, _inputs, output: setattr(self, "last", output))
        self.first.register_forward_hook(self.see)

    def see(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.seen["first"] = output

    def forward(self, x: Tensor) -> list[Tensor]:
        self.passes += 1
        super().forward(x)
        return [self.last, self.seen["first"]]


class Recurrent(nn.Module):
    """Holds its weights in a list of its own too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.LSTM(60, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.movedim(2, 1).flatten(2))[0]


def dense(efficient: bool) -> nn.Module:
    torch.manual_seed(0)
    return DenseNet(4, (2, 2), 8, memory_efficient=efficient, num_classes=4).train()


def residual(recomputed: bool) -> nn.Module:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", pretrained=False)
    module.set_grad_checkpointing(recomputed)
    return module.train()


def spectral() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3))
    )


class Own(Representation):
    """A representation of the user's, with a module in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks()

    def encode(self, images: Tensor, surrogate: Surrogate | None) -> list[Tensor]:
        return [self.blocks(images)]


MODULES: dict[str, Callable[[], nn.Module]] = {
    "plain": Blocks,
    "reentrant": partial(Blocks, True),
    "non-reentrant": partial(Blocks, False),
    "checkpoints within one": partial(Blocks, True, nested=True),
    "torchvision's": partial(dense, True),
    "timm's": partial(residual, True),
    "writing": Writing,
    "recurrent": Recurrent,
    "norms of weights": spectral,
    "representation": Own,
}


def state(module: nn.Module) -> dict[str, Any]:
    """Return all that a job might change, as values that can be compared."""
    found: dict[str, Any] = {}
    for path, child in module.named_modules():
        hooks = {name: list(value.items()) for name, value in child.__dict__.items() if "hooks" in name}
        plain = {n: v for n, v in child.__dict__.items() if n not in hooks and isinstance(v, bool | int | str | tuple)}
        found[path] = (id(child), sorted(child.__dict__), hooks, plain)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        about = (tensor.dtype, tensor.device, tensor.stride(), tensor.requires_grad, tensor.grad, tensor._version)
        found[f"tensor {name}"] = (id(tensor), tensor.data_ptr(), *about, tensor.detach().numpy().tobytes())
    found["random"] = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
    backends = torch.backends
    settings = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    found["precision"] = [setting.fp32_precision for setting in settings]
    found["modes"] = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu"))
    found["log"] = logging.getLogger("pytorch_lightning").level
    return found


def fit(module: nn.Module, compute: Compute | None = None, **objective: Any) -> Inversion:
    return solve(
        IMAGES,
        [(0, "a", 0)],
        phi=module if isinstance(module, Representation) else Network(module),
        prior=build(preset("prior", "natural")),
        descent=build({**preset("optim", "adam"), "steps": 3}),
        trainer={"accelerator": "cpu"},
        compute=compute,
        **objective,
    )


def fail(*_: object, **__: object) -> None:
    raise InvrepError("no")


def backwards(module: nn.Module) -> None:
    images = IMAGES.clone().requires_grad_()
    phi = module if isinstance(module, Representation) else Network(module)
    sum(part.sum() for part in phi(images)).backward()
    assert images.grad.isfinite().all()


def failing(module: nn.Module, where: str) -> None:
    """Fail in the objective, or in the third backward pass."""
    if where == "objective":
        with pytest.raises(InvrepError):
            fit(module, objective=fail)
        return
    passes: list[int] = []

    def hook(gradient: Tensor) -> None:
        passes.append(1)
        if len(passes) == 3:
            raise ZeroDivisionError

    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Any:
            if x.requires_grad:
                x.register_hook(hook)
            return self.inner(x)

    with pytest.raises(ZeroDivisionError):
        fit(Fragile())


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "invert": lambda module: invrep.invert(IMAGES, module, steps=3),
    "float64": lambda module: invrep.invert(IMAGES.double(), module, steps=3),
    "channels last": lambda module: fit(module, compute=Compute(channels_last=True)),
    "bfloat16": lambda module: fit(module, compute=Compute("bf16")),
    "forward and backward": backwards,
    "an error in the objective": partial(failing, where="objective"),
    "an error in the backward pass": partial(failing, where="backward"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_comes_back_as_it_went_in(name: str, way: str) -> None:
    module = MODULES[name]()
    before = state(module)
    WAYS[way](module)
    after = state(module)
    for what, value in before.items():
        assert after[what] == value, what
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("recomputed", "plain"),
    [
        (partial(Blocks, True), Blocks),
        (partial(Blocks, False), Blocks),
        (partial(Blocks, True, nested=True), Blocks),
        (partial(Blocks, False, nested=True), Blocks),
        (partial(dense, True), partial(dense, False)),
        (partial(residual, True), partial(residual, False)),
    ],
)
def test_checkpoints_change_no_result(recomputed: Callable[[], nn.Module], plain: Callable[[], nn.Module]) -> None:
    ours, wanted = (invrep.invert(IMAGES, make(), steps=4) for make in (recomputed, plain))
    torch.testing.assert_close(ours.reconstructions, wanted.reconstructions)


def test_a_layer_within_a_checkpoint() -> None:
    module, plain = Blocks(False), Blocks()
    ours, wanted = (invrep.invert(IMAGES, Network(m, "first.2"), steps=4) for m in (module, plain))
    torch.testing.assert_close(ours.reconstructions, wanted.reconstructions)


def test_a_surrogate_holds_in_the_backward_pass_too() -> None:
    def gradient(module: nn.Module) -> Tensor:
        _checkpoints.clear()  # as in a process that has met none
        images = IMAGES.clone().requires_grad_()
        surrogate = Surrogate(0.5)
        backward(Network(module)(images, surrogate)[0].square().sum(), surrogate)
        return images.grad

    wanted = gradient(Blocks())
    for reentrant in (True, False):
        torch.testing.assert_close(gradient(Blocks(reentrant)), wanted)


class Noisy(nn.Module):
    """Adds noise, loud enough to be refused or too quiet to matter."""

    def __init__(self, loudness: float) -> None:
        super().__init__()
        self.loudness = loudness

    def forward(self, x: Tensor) -> Tensor:
        return x + self.loudness * torch.randn_like(x)


@pytest.mark.parametrize("loudness", [1.0, 1e-6])
def test_a_module_that_draws_leaves_the_users_random_numbers(loudness: float) -> None:
    before = torch.get_rng_state()
    with suppress(InvrepError):
        invrep.invert(IMAGES, Noisy(loudness), steps=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["plain", "reentrant", "non-reentrant", "writing"])
def test_threads_share_a_module(name: str) -> None:
    module = MODULES[name]()
    images = [IMAGES, IMAGES.flip(3), IMAGES.flip(2)]
    wanted = [invrep.invert(image, module, steps=8).reconstructions for image in images]
    before, found = state(module), {}

    def visit(number: int) -> None:
        found[number] = invrep.invert(images[number], module, steps=8).reconstructions

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], wanted[number]) for number in range(3))
    assert state(module) == before


def test_inference_mode() -> None:
    wanted = invrep.invert(IMAGES, Blocks(), steps=3).reconstructions
    with torch.inference_mode():
        made = Blocks()
        found = invrep.invert(IMAGES.clone(), made, steps=3)
        assert torch.equal(found.reconstructions, wanted)
        assert Network(made)(IMAGES)[0].isfinite().all()
    assert torch.equal(invrep.invert(IMAGES, made, steps=3).reconstructions, wanted)
    (code,) = Network(made)(IMAGES.clone().requires_grad_())
    code.sum().backward()


def test_a_module_that_has_learnt_meanwhile_is_seen() -> None:
    module = nn.Conv2d(3, 2, 3)
    phi = Network(module)
    before = phi(IMAGES)[0]
    with torch.no_grad():
        module.weight *= 2
    assert not torch.equal(phi(IMAGES)[0], before)
    module.double()
    assert phi(IMAGES.double())[0].dtype == torch.float64
