"""Φ in other precisions, layouts and compiled: what is rounded, and what is not."""

from __future__ import annotations

import runpy
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from helpers.inversions import papers_prior
from helpers.paths import ROOT
from PIL import Image
from torch import Tensor, nn

import invrep.inversion.measures
import invrep.jobs.completion
import invrep.jobs.job
import invrep.jobs.worker
from invrep.api import representation
from invrep.data.photo_reading import bundled
from invrep.errors import InvrepError
from invrep.inversion.compute import Compute, _backends, rounding
from invrep.inversion.measures import measure
from invrep.inversion.module import Inversion
from invrep.inversion.solver import solve
from invrep.optim.descent import Descent
from invrep.representations.base import Representation
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
        prior=papers_prior(),
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
    # Φ0, Φ's trial and the curve's last point are exact, the six passes are not
    assert sees.types == [*[torch.float32] * 3, *[torch.bfloat16] * 6, torch.float32]
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


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Tell what the processor multiplies natively."""

    def say(yes: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: yes)

    return say


def test_the_last_passes_of_auto_are_exact(phi: Network, photo: Tensor, native) -> None:
    native(True)
    sees: Sees = phi.module[2]
    found = run(phi, photo, Compute("auto"))
    # Φ0, Φ's trial and the curve's last point, and the last of the six passes
    assert sees.types == [*[torch.float32] * 3, *[torch.bfloat16] * 5, *[torch.float32] * 2]
    assert [Compute("auto").rounds(phi, torch.device("cpu"), (k + 1) / 300) for k in (269, 270)] == [True, False]
    errors = [measure(inversion, None)["error"] for inversion in (found, run(phi, photo, None))]
    torch.testing.assert_close(*errors, rtol=0.05, atol=0)


def test_auto_is_float32_where_bfloat16_is_not_native_or_phi_has_no_weights(
    phi: Network, photo: Tensor, native: Callable[[bool], None]
) -> None:
    native(False)
    assert torch.equal(run(phi, photo, Compute("auto")).image, run(phi, photo, None).image)
    native(True)
    Recording.settings.clear()
    run(Recording(), photo, Compute("auto"))
    assert len(Recording.settings) > 6 and all(asked == EXACT for asked in Recording.settings)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("yes", [False, True])
def test_auto_asks_torch_what_a_gpu_multiplies(
    phi: Network, yes: bool, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: yes and not including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: yes and not gpu)
    assert Compute("auto").rounds(phi, torch.device("cuda:0"), 0.5) == yes
    assert not Compute("auto").rounds(phi, torch.device("mps"), 0.5)


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


class Volumes(nn.Module):
    """A network whose weights have four and five dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.plane, self.volume = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.volume(self.plane(x)[:, None])


def test_channels_lie_last_on_a_cpu_but_not_in_the_users_module(photo: Tensor) -> None:
    module = Volumes()
    phi = Network(module)
    laid = Compute().lay_out(phi, torch.device("cpu"))
    assert not laid.module.plane.weight.is_contiguous() and laid.module.volume.weight.is_contiguous()
    assert module.plane.weight.is_contiguous()
    assert Compute(channels_last=False).lay_out(phi, torch.device("cpu")).module.plane.weight.is_contiguous()
    # a GPU computes float32 faster with channels first
    assert Compute().lay_out(phi, torch.device("cuda")).module.plane.weight.is_contiguous()
    assert not Compute("tf32").lay_out(phi, torch.device("cuda")).module.plane.weight.is_contiguous()
    assert run(phi, photo, None).curve[-1][1]["error"].isfinite().all()  # a code of five dimensions


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


class Recording(Representation):
    """Notes at each call how a GPU and a processor would round, and whether autocast is on."""

    channels = (1, 3)
    settings: ClassVar[list[set[str | bool]]] = []

    def encode(self, images: Tensor, surrogate: Surrogate | None) -> list[Tensor]:
        assert not torch.is_inference_mode_enabled()
        precisions = {backend.fp32_precision for backend in _backends()}
        self.settings.append(precisions | {torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")})
        return [images[:, :1] * images.square()]


EXACT = {"ieee", False}


@pytest.fixture
def rounds() -> Iterator[None]:
    """Round as much as torch can be told to, as the setting of a user."""
    found = [backend.fp32_precision for backend in _backends()]
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    mine = [backend.fp32_precision for backend in _backends()]
    Recording.settings.clear()
    with torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")
    assert [backend.fp32_precision for backend in _backends()] == mine
    for backend, precision in zip(_backends(), found, strict=True):
        backend.fp32_precision = precision


def test_everything_that_a_job_measures_is_exact(job, photos, rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    measures: list[str] = []

    def watched(place: ModuleType, name: str) -> None:
        plain = getattr(place, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            measures.append(name)
            assert {backend.fp32_precision for backend in _backends()} == {"ieee"}, name
            assert not torch.is_autocast_enabled("cpu"), name
            return plain(*args, **kwargs)

        monkeypatch.setattr(place, name, call)

    for place, name in (
        (invrep.inversion.outcome, "measure"),
        (invrep.jobs.completion, "pixel_spread"),
        (invrep.jobs.completion, "code_spread"),
        (invrep.inversion.measures, "psnr"),
        (invrep.inversion.measures, "ssim"),
    ):
        watched(place, name)
    monkeypatch.setattr(invrep.jobs.job, "Classifier", lambda _: lambda *_: measures.append("class") or [])
    options = ("save_codes=true", "restarts=2", "objective.region=1x1", "compute.precision=tf32")
    options += ("prior=cvpr15", "prior.sigma=auto", "optim.lr=.03", "optim.decorrelate=0")  # four passes are enough
    outcome = job(f"data.path={photos}", "rep=module", f"rep.target={__name__}.Recording", *options)
    assert outcome.status == 0, outcome.err
    assert {"measure", "psnr", "ssim", "pixel_spread", "code_spread", "class"} == set(measures)
    passes = [asked for asked in Recording.settings if asked != EXACT]
    assert len(passes) == 4 and all(asked == {"tf32", "ieee", False} for asked in passes)  # 3 photos, one batch
    assert len(Recording.settings) > 4 + 3 * 4  # Φ0, last point, measure, pairwise, spread, saved codes


def test_everything_that_invert_measures_is_exact(rounds) -> None:
    with torch.inference_mode():
        invrep.invert(torch.rand(2, 3, 12, 16), Recording(), steps=3)
    assert len(Recording.settings) >= 1 + 3 + 1 + 1 + 2
    assert all(asked == EXACT for asked in Recording.settings)


def test_threads_that_ask_for_different_rounding_are_exact_meanwhile() -> None:
    backend, seen = torch.backends.cudnn.conv, []
    before = backend.fp32_precision

    def other() -> None:
        with rounding("ieee"):
            seen.append(backend.fp32_precision)
            inside.set()
            leave.wait()

    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    with rounding("tf32"):
        seen.append(backend.fp32_precision)
        thread.start()
        inside.wait()
        seen.append(backend.fp32_precision)
    assert backend.fp32_precision == "ieee"  # the other one is still at it
    leave.set()
    thread.join()
    assert seen == ["tf32", "ieee", "ieee"] and backend.fp32_precision == before


def test_a_job_compiles_each_shape_once(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a", (16, 12)), ("b", (16, 12)), ("c", (16, 12)), ("d", (12, 16))):
        Image.open(bundled("chelsea")).convert("RGB").resize(size).save(photos / f"{name}.png")
    (tmp_path / "nets.py").write_text("from torch import nn\ndef net():\n    return nn.Conv2d(3, 2, 3)\n")
    modes: list[str] = []

    def compiled(graph: Callable[..., Any], mode: str) -> Callable[..., Any]:
        modes.append(mode)
        return graph

    monkeypatch.setattr(torch, "compile", compiled)
    options = ("data.batch_size=1", "compute.compile=default", "optim.polish=1")
    outcome = job(f"data.path={photos}", "rep=module", "rep.target=nets.net", *options)
    assert outcome.status == 0, outcome.err
    assert modes == ["default"] * 2  # of three batches of one shape and one of another, in two stages


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
    assert "passes each, in float32" in job(*base, "compute.precision=auto", "dry_run=true").out
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
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert ("NO GPU" in head) == (not torch.cuda.is_available())
    exact, rounded = (row.rsplit(maxsplit=7) for row in rows)
    assert float(exact[-2]) < float(rounded[-2]) < 1e-3  # how far the code is off
    assert all(float(row[-7]) > 0 for row in (exact, rounded))


def test_the_benchmark_of_precision_runs(
    photos, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--weights . --cases hog --number 1 --passes 3 --size 24 --pairs 1"
    monkeypatch.setattr(sys, "argv", ["precision.py", "--photos", str(photos), *small.split()])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(str(ROOT / "benchmarks" / "precision.py"), run_name="__main__")
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[0] == "hog" and row[4:6] == ["1.000", "(1.000–1.000)"]  # auto does not round HOG
