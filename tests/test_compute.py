"""Φ in other precisions, layouts and compiled: what is rounded, and what is not."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from invrep.api import representation
from invrep.compute import Compute, rounding
from invrep.config import build, preset
from invrep.errors import InvrepError
from invrep.inversion import Inversion, measure, solve
from invrep.optimisers import Descent
from invrep.representations.network import Network
from invrep.representations.surrogate import Surrogate


class Sees(nn.Module):
    """Notes the types of what passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        self.types.append(x.dtype)
        return x


@pytest.fixture
def phi() -> Network:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(inplace=True), Sees(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Tanh()
    )
    return Network(module, "4", mean=0.5, std=0.25)


def run(phi: Network, photo: Tensor, compute: Compute | None) -> Inversion:
    return solve(
        torch.stack([photo, photo.flip(2)]),
        [(0, "a", 0), (1, "b", 0)],
        phi=phi,
        prior=build(preset("prior", "natural")),
        descent=Descent(name="Adam", lr=0.03, steps=6, basis="fourier", noise="natural"),
        segment=2,
        trainer={"accelerator": "cpu"},
        compute=compute,
    )


def test_bfloat16_is_the_networks_alone(phi: Network, photo: Tensor) -> None:
    sees: Sees = phi.module[2]
    exact = run(phi, photo, None)
    assert set(sees.types) == {torch.float32}
    sees.types.clear()
    found = run(phi, photo, Compute("bf16"))
    # Φ0 and the curve's last point are exact, the six passes are not
    assert sees.types == [torch.float32, *[torch.bfloat16] * 6, torch.float32]
    assert found.image.dtype == torch.float32 == found.latest["energy"].dtype
    assert next(phi.parameters()).dtype == torch.float32
    sees.types.clear()
    errors = measure(found, None)["error"]
    assert set(sees.types) == {torch.float32}
    torch.testing.assert_close(errors, found.curve[-1][1]["error"].double(), rtol=1e-5, atol=0)
    # rounded, but to the same end
    assert not torch.equal(found.image, exact.image)
    torch.testing.assert_close(errors, measure(exact, None)["error"], rtol=0.05, atol=0)
    # the prior's terms at one and the same start are equal to the bit, the error is not
    ours, theirs = found.curve[0][1], exact.curve[0][1]
    assert torch.equal(ours["tv"], theirs["tv"]) and torch.equal(ours["alpha"], theirs["alpha"])
    assert not torch.equal(ours["error"], theirs["error"])
    torch.testing.assert_close(ours["error"], theirs["error"], rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("compute", "backend"),
    [
        (Compute(channels_last=True), None),
        (Compute(compile="default"), "aot_eager"),  # all of torch.compile but the compiler, which takes half a minute
        pytest.param(
            Compute(compile="default"),
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a compiler"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_the_same_energy_and_gradient(
    phi: Network,
    photo: Tensor,
    compute: Compute,
    backend: str | None,
    soft: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda graph, mode: compile_(graph, backend=backend))
    images = torch.stack([photo, photo.flip(2)]).requires_grad_()
    target = [part.detach() * 0.5 for part in phi(images)]

    def energy(encode, surrogate: Surrogate | None) -> tuple[Tensor, Tensor]:
        code = encode(images, surrogate)
        value = sum((a - b).square().flatten(1).sum(1) for a, b in zip(code, target, strict=True))
        return value, torch.autograd.grad(value.sum(), images)[0]

    encode = compute.encoder(phi)
    for softness in (1, 0.1):  # the second time what has been compiled
        surrogate = Surrogate(softness) if soft else None
        wanted = energy(phi, surrogate)
        for ours, theirs in zip(energy(encode, surrogate), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_would_lose_its_gradient_is_not_compiled(photo: Tensor) -> None:
    phi = representation("hog")
    images = photo.mean(0)[None, None].requires_grad_()
    with pytest.raises(InvrepError, match=r"compute\.compile would lose the gradient that HOG defines"):
        Compute(compile="default").encoder(phi)(images, Surrogate())


def test_products_are_exact_unless_asked_and_the_setting_is_given_back() -> None:
    backend = torch.backends.cudnn.conv
    before = backend.fp32_precision
    with Compute("float32").rounding():
        assert backend.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        with Compute("tf32").rounding():
            assert backend.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert backend.fp32_precision == "ieee"
    with pytest.raises(ZeroDivisionError), rounding("tf32"):
        _ = 1 / 0
    assert backend.fp32_precision == before


@pytest.mark.parametrize("wrong", [{"precision": "fp16"}, {"channels_last": "yes"}, {"compile": True}])
def test_wrong_values(wrong: dict[str, object]) -> None:
    with pytest.raises(InvrepError, match=f"compute.{next(iter(wrong))}="):
        Compute(**wrong)


def test_by_the_command(job, photos) -> None:
    base = (f"data.path={photos}", "data.limit=1", "rep=hogb")
    names = [
        job(*base, *more, "dry_run=true").out.split("results in ")[1].split()[0]
        for more in ((), ("compute.channels_last=true", "compute.compile=default"), ("compute.precision=bf16",))
    ]
    assert names[0] == names[1] != names[2]  # what rounds is another result
    outcome = job(*base, "compute.precision=bf16")
    assert outcome.status == 0 and 0 < outcome.value < 1, outcome.err
    for wrong, said in (
        (("compute.precision=half",), "expected one of float32, tf32, bf16"),
        (("compute.precision=bf16", "dtype=float64"), "goes with dtype=float32"),
        (("+trainer.precision=bf16-mixed",), "compute.precision=bf16 or tf32 is for the network alone"),
    ):
        outcome = job(*base, *wrong, "output=wrong")
        assert outcome.status == 1 and said in outcome.err


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--networks alexnet:relu1 --batches 1 --passes 4 --segment 2 --conv 8 --ways float32"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *small.split(), "bf16 last"])
    runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "gpu.py"), run_name="__main__")
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert ("NO GPU" in head) == (not torch.cuda.is_available())
    exact, rounded = (row.rsplit(maxsplit=7) for row in rows)
    assert float(exact[-2]) < float(rounded[-2]) < 1e-3  # how far the code is off
    assert all(float(row[-7]) > 0 for row in (exact, rounded))
