"""What a pass of the command costs, against the loop that a researcher would write.

The loop inverts with torch alone: a frozen network that ends at the layer, exact ReLUs, Adam on the pixels, no prior.
The command runs the default recipe, with its priors, its basis and its smoothed gradients. Each has a process of its
own. They take turns, on the same photo or on eight copies of it, and the clock runs from the first pass to the last of
those timed: a job of the command is ended there, after some of its 300 passes.

    python benchmarks/loop.py [--passes 100] [--pairs 5] [--layers alexnet.relu2 …] [--batches 1 8] [-- KEY=VALUE …]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from PIL import Image
from timing import machine, pairs
from torch import Tensor, nn

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
AT_MOST = 3.0  # seconds of one run, but no fewer than six passes


def alexnet(end: int) -> nn.Module:
    return torchvision.models.alexnet(weights=None).features[:end]


def vgg16(end: int) -> nn.Module:
    return torchvision.models.vgg16(weights=None).features[:end]


def resnet18() -> nn.Module:
    net = torchvision.models.resnet18(weights=None)
    return nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3)


class VisionTransformer(nn.Module):
    """The first six blocks of ViT-B/16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.vit_b_16(weights=None)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.net._process_input(images)
        tokens = torch.cat([self.net.class_token.expand(len(tokens), -1, -1), tokens], 1)
        return self.net.encoder.layers[:6](tokens + self.net.encoder.pos_embedding)


# name: the network that ends at the layer, rep and layer of the command
LAYERS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "AlexNet relu2": (lambda: alexnet(5), "alexnet", "relu2"),
    "AlexNet pool5": (lambda: alexnet(13), "alexnet", "pool5"),
    "VGG-16 relu3_3": (lambda: vgg16(16), "vgg16", "relu3_3"),
    "VGG-16 relu5_3": (lambda: vgg16(30), "vgg16", "relu5_3"),
    "ResNet-18 layer3": (resnet18, "resnet18", "layer3"),
    "ViT-B/16 block 6": (VisionTransformer, "vit_b_16", "encoder.layers.encoder_layer_5"),
}


def plain(net: nn.Module, photos: Tensor, passes: int) -> float:
    """Return the seconds of the plain loop."""
    with torch.no_grad():
        target = net((photos - MEAN) / STD)
    image = torch.randn_like(photos).mul_(0.01).add_(0.5).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.05)
    began = time.perf_counter()
    for _ in range(passes):
        optimizer.zero_grad()
        loss = (net((image - MEAN) / STD) - target).square().sum() / target.square().sum()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


class Enough(Exception):
    """End a job after the passes that are timed."""


def commanded(arguments: list[str], passes: int) -> float:
    """Return the seconds that a job of the command takes for its first passes, in segments as it records them."""
    from invrep.cli.command import command
    from invrep.inversion.module import Inversion

    began = 0.0
    step = Inversion.training_step

    def stepping(self: Inversion, *given: Any) -> None:
        nonlocal began
        if self.passes == 0:  # the job's plan of memory runs inversions before
            began = time.perf_counter()
        if self.passes >= passes:
            raise Enough
        step(self, *given)

    said = io.StringIO()
    with (
        mock.patch.object(Inversion, "training_step", stepping),
        mock.patch.object(sys, "argv", ["invrep", *arguments]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            command()
        except Enough:
            return time.perf_counter() - began
    raise RuntimeError(said.getvalue())


def serve(side: str, name: str, batch: int, overrides: list[str]) -> None:
    """Run one side as often as the parent asks: it writes a number of passes, and reads the seconds."""
    make, rep, layer = LAYERS[name]
    with tempfile.TemporaryDirectory() as photos, tempfile.TemporaryDirectory() as output:
        photo = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
        photo = nn.functional.interpolate(photo[None, :, ::16, ::16], (224, 224), mode="bicubic").clamp(0, 1)[0]
        for copy in range(batch):
            pixels = (255 * photo).byte().movedim(0, 2).numpy()
            Image.fromarray(pixels).save(Path(photos) / f"{copy}.png")
        net = make().eval().requires_grad_(False) if side == "loop" else None
        for run, line in enumerate(sys.stdin):
            if net is not None:
                taken = plain(net, photo.expand(batch, -1, -1, -1).contiguous(), int(line))
            else:
                job = [f"rep={rep}", f"layer={layer}", "rep.weights=random", "data.resize=squash", "logger=none"]
                job += [f"data.path={photos}", f"log_every={min(20, int(line))}", f"output={output}/{run}", *overrides]
                taken = commanded(job, int(line))
            print(taken, flush=True)


class Side:
    """Hold the process of one side."""

    def __init__(self, side: str, name: str, batch: int, overrides: list[str]) -> None:
        inner = [sys.executable, __file__, "--serve", side, "--layers", name, "--batches", str(batch), "--", *overrides]
        self.process = subprocess.Popen(inner, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, passes: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(passes, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main() -> None:
    """Print a row for each layer and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=100, help="at most; fewer where they would take over 3 s")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--serve", choices=["loop", "command"], help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="of the command, after --")
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.layers[0], given.batches[0], given.overrides)
    print(f"{machine()}\n{given.pairs} pairs {' '.join(given.overrides)}".rstrip())
    print(f"{'layer':>18} {'batch':>5} {'passes':>6} {'loop, ms':>9} {'command':>9}  command / loop", flush=True)
    for name in given.layers:
        for batch in given.batches:
            loop, ours = (Side(side, name, batch, given.overrides) for side in ("loop", "command"))
            try:
                passes = max(6, min(given.passes, int(AT_MOST / (loop.run(6) / 6))))
                passes -= passes % 20 if passes > 20 else 0
                found = pairs(lambda: ours.run(passes), lambda: loop.run(passes), given.pairs)  # noqa: B023
            finally:
                for side in (loop, ours):
                    side.process.terminate()
            command_ms, loop_ms = (1000 * median / passes for median in found.medians)
            print(f"{name:>18} {batch:>5} {passes:>6} {loop_ms:9.1f} {command_ms:9.1f}  {found}", flush=True)


if __name__ == "__main__":
    main()
