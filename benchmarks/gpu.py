"""What precision, layout and compilation bring on a GPU: image-passes per second of whole jobs, and what they round.

First the paper's table 3 whole, as its command does it: 20 layers of CaffeNet × 3 strengths of the total variation ×
100 images of 100 passes, with random weights and ``compute.precision=auto``. Then for each network, batch and way to
compute Φ (``compute`` in conf/config.yaml) a whole job through Lightning is timed against a bare PyTorch loop that
computes in the same way, segment by segment after the first, in which cuDNN and torch.compile choose and compile.
Beside it: the part of the chip's own rate that its arithmetic takes, where that rate is of one large convolution
(forward, and backward to its input) measured here in the same precision and layout; and how far the code, and the final
error, are from float32's.

    python benchmarks/gpu.py [--networks alexnet:relu5 vgg16:relu5_3] [--batches 1 16 128] [--weights FILE …]

After ``--minutes``, ten by default, no further row begins. No figures of a GPU have been taken with it yet: it has only
been run, very small, on a CPU (``--conv 8``).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from PIL import Image
from timing import machine
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from invrep.data.photo_reading import bundled, read
from invrep.inversion.compute import Compute
from invrep.inversion.measures import measure
from invrep.inversion.solver import solve
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.representations.network import Network
from invrep.representations.zoo.torchvision_models import torchvision_network

WAYS = {
    "float32": Compute(),
    "auto": Compute("auto"),
    "tf32": Compute("tf32"),
    "bf16": Compute("bf16"),
    "bf16 last": Compute("bf16", channels_last=True),
    "bf16 last compiled": Compute("bf16", channels_last=True, compile="default"),
    "bf16 last graphs": Compute("bf16", channels_last=True, compile="reduce-overhead"),
    "tf32 last compiled": Compute("tf32", channels_last=True, compile="default"),
    "float32 compiled": Compute(compile="default"),
}


def clock(device: torch.device) -> float:
    """Return the time in seconds at which the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Times(pl.Callback):
    """Notes when each segment ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.ends.append((pl_module.passes, clock(pl_module.device)))

    def seconds(self) -> float:
        """Return the median time of a pass, without the first segment."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        return statistics.median((t - before) / (at - was) for (was, before), (at, t) in pairs)


def bare(encode: Callable[[Tensor], list[Tensor]], way: Compute, photos: Tensor, passes: int, segment: int) -> float:
    """Return the seconds per pass of a loop that nobody would write shorter, Φ computed in the same way."""
    with torch.no_grad():
        target = encode(photos)
        norms = [part.flatten(1).square().sum(1) for part in target]
    image = torch.zeros_like(photos).requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.03)
    times = []
    for _ in range(max(passes // segment, 2)):
        began = clock(photos.device)
        for _ in range(segment):
            image.grad = None
            terms = zip(encode(image + 0.5), target, norms, strict=True)
            energy = sum((code - wanted).flatten(1).square().sum(1) / norm for code, wanted, norm in terms)
            for along in (2, 3):
                energy = energy + 1e-5 * image.diff(dim=along).square().flatten(1).sum(1)
            energy = energy + 1e-9 * image.square().pow(3).flatten(1).sum(1)
            with way.rounding():
                energy.sum().backward()
            optimiser.step()
        times.append((clock(photos.device) - began) / segment)
    return statistics.median(times[1:])


def chip(way: Compute, device: torch.device, size: int) -> float:
    """Return FLOP per second of a large 3×3 convolution, forward and backward to its input."""
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    kind = torch.bfloat16 if way.precision in ("bf16", "auto") else torch.float32
    channels, batch, side = (512, 64, 56) if size == 0 else (size, 2, 16)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, kind, memory_format=layout)
    conv.requires_grad_(False)
    x = torch.randn(batch, channels, side, side, device=device, dtype=kind).to(memory_format=layout).requires_grad_()
    gradient = torch.randn_like(x)
    times = []
    with way.rounding():
        for _ in range(12):
            began = clock(device)
            torch.autograd.grad(conv(x), x, gradient)
            times.append(clock(device) - began)
    return 2 * 2 * batch * side**2 * channels**2 * 9 / statistics.median(times[2:])


def flops(phi: Network, photo: Tensor) -> int:
    """Return FLOP of one pass of one image, forward and backward to the image."""
    image = photo[None].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        sum(part.sum() for part in phi(image)).backward()
    return counter.get_total_flops()


def table3(words: list[str]) -> float:
    """Return the seconds of the command that makes the paper's table 3 of 100 crops of a photo.

    Args:
        words: further words of the command.
    """
    with tempfile.TemporaryDirectory() as folder:
        photo = Image.open(bundled("astronaut")).convert("RGB")
        (Path(folder) / "photos").mkdir()
        for k in range(100):
            photo.crop((2 * k, 2 * k, 2 * k + 227, 2 * k + 227)).save(f"{folder}/photos/{k:02}.png")
        command = [sys.executable, str(Path(__file__).parents[1] / "train.py"), "experiment=cvpr15/table3"]
        command += [f"data.path={folder}/photos", f"output={folder}/outputs", "logger=none", "rep.weights=random"]
        command += ["optim=adam", "optim.steps=100", "data.batch_size=auto", "compute.precision=auto", *words]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"The command of table 3 failed: {done.stdout[-2000:]}")
        return time.perf_counter() - began


def main() -> None:
    """Print a table with a row for each network, batch and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["alexnet:relu5", "vgg16:relu5_3"])
    parser.add_argument("--weights", nargs="+", help="a file for each network; without it random weights")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 128])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument("--segment", type=int, default=20)
    parser.add_argument("--conv", type=int, default=0, help="channels of a small convolution instead of the large one")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    end = time.perf_counter() + 60 * options.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.conv:
        raise SystemExit("gpu.py measures a GPU, and torch finds none here; --conv 8 tries it, very small, on the CPU.")
    print(machine() + ("" if device.type == "cuda" else ": NO GPU, figures mean nothing"))
    if device.type == "cuda":
        print(f"Table 3 whole, 6000 pre-images: {table3([]):.0f} s", flush=True)
    rates = {way: chip(WAYS[way], device, options.conv) for way in options.ways}
    print(
        f"{'network':<16} {'batch':>5} {'way':<19} {'passes/s':>9} {'bare':>9} {'ratio':>6} "
        f"{'TFLOP/s':>8} {'of chip':>8} {'code off':>9} {'error':>8}"
    )
    prior = build(preset("prior", "natural"))
    descent = Descent(name="Adam", lr=0.03, steps=options.passes, schedule="linear", basis="fourier", noise="natural")
    for number, network in enumerate(options.networks):
        model, layer = network.split(":")
        weights = options.weights[number] if options.weights else "random"
        phi = torchvision_network(model, layer=layer, weights=weights).to(device)
        photo = read(bundled("chelsea"), resize="model", input_size=phi.input_size)
        work = flops(phi, photo.to(device))
        with torch.no_grad(), Compute().rounding():
            exact = phi(photo[None].to(device))[0]
        for batch in options.batches:
            photos = photo.repeat(batch, 1, 1, 1)
            for way in options.ways:
                if time.perf_counter() > end:
                    raise SystemExit(f"{options.minutes:g} minutes are over; --minutes, or fewer --ways, goes further.")
                compute, times = WAYS[way], Times()
                phi.to(memory_format=torch.contiguous_format)
                found = solve(
                    photos,
                    [(k, str(k), 0) for k in range(batch)],
                    phi=phi,
                    prior=prior,
                    descent=descent,
                    segment=options.segment,
                    callbacks=[times],
                    compute=compute,
                )
                encode = compute.encoder(phi)
                loop = bare(encode, compute, photos.to(device), options.passes, options.segment)
                with torch.no_grad():
                    off = (encode(photo[None].to(device))[0] - exact).norm() ** 2 / exact.norm() ** 2
                seconds = times.seconds()
                rate = work * batch / seconds
                error = float(measure(found, None)["error"].mean())
                print(
                    f"{network:<16} {batch:>5} {way:<19} {batch / seconds:9.1f} {batch / loop:9.1f} "
                    f"{seconds / loop:6.3f} {rate / 1e12:8.2f} {rate / rates[way]:8.1%} {float(off):9.1e} {error:8.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
