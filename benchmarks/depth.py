"""What a pass to a layer costs, against a pass through the whole network: in time, in FLOP, and in memory.

A pass is Φ of the image, its energy and the gradient in the image. The whole network is torchvision's own module,
untouched but for its frozen weights, in a loop written with torch alone; both take turns, and the ratios are taken turn
by turn. Memory is the most that a process held beyond what it held before its first pass, each in a process of its own.

    python benchmarks/depth.py [--turns 5] [--batch 1] [--memory-batch 8] [--layers relu1_2 relu3_3 relu5_3 fc8]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from invrep.jobs.process import prepare_process
from invrep.objectives.match import Match
from invrep.representations.zoo.torchvision_models import torchvision_network

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def cut(layer: str, images: Tensor) -> Callable[[], None]:
    """Return a pass of ours to a layer."""
    phi = torchvision_network("vgg16", layer=layer, weights="random")
    with torch.no_grad():
        objective = Match(phi(images))
    image = torch.rand_like(images).requires_grad_()

    def run() -> None:
        image.grad = None
        objective(phi(image)).sum().backward()

    return run


def bare(layer: str | None, images: Tensor) -> Callable[[], None]:
    """Return a pass of plain torch, through torchvision's VGG-16 or through a slice of it up to a layer."""
    module = torchvision.models.vgg16(weights=None).eval().requires_grad_(False)
    if layer is not None and layer != "fc8":
        index = {"relu1_2": 3, "relu3_3": 15, "relu5_3": 29}[layer]
        module = nn.Sequential(*module.features[: index + 1])
    with torch.no_grad():
        target = module((images - MEAN) / STD)
        norm = target.flatten(1).square().sum(1)
    image = torch.rand_like(images).requires_grad_()

    def run() -> None:
        image.grad = None
        code = module((image - MEAN) / STD)
        ((code - target).flatten(1).square().sum(1) / norm).sum().backward()

    return run


def seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def memory(what: str, layer: str, batch: int) -> int:
    """Return the bytes that three passes need beyond what was there before, measured in another process."""
    command = [sys.executable, __file__, "--inner", what, "--layers", layer, "--batch", str(batch)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_here(what: str, layer: str, batch: int) -> None:
    images = torch.rand(batch, 3, 224, 224)
    run = {"cut": cut, "bare": bare}[what](layer, images)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    for _ in range(3):
        run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--memory-batch", type=int, default=8)
    parser.add_argument("--layers", nargs="+", default=["relu1_2", "relu3_3", "relu5_3", "fc8"])
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        measure_here(options.inner, options.layers[0], options.batch)
        return
    prepare_process()
    images = torch.rand(options.batch, 3, 224, 224)
    trace = torchvision_network("vgg16", layer="list").published_trace
    aliases = torchvision_network("vgg16", layer="list").aliases
    whole, passes = bare(None, images), {layer: cut(layer, images) for layer in options.layers}
    ratios: dict[str, list[float]] = {layer: [] for layer in options.layers}
    for turn in range(options.turns + 1):
        for layer, run in passes.items():
            pair = seconds(run) / seconds(whole)
            if turn:  # the first warms up
                ratios[layer].append(pair)
    print(f"vgg16, batch {options.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'layer':>8} {'time':>7} {'FLOP':>7} {'time/FLOP':>10} {'least':>7} {'most':>7} {'memory':>8}")
    for layer, found in ratios.items():
        flops = trace.flops(aliases[layer]) / trace.flops("")
        need = memory("cut", layer, options.memory_batch) / memory("bare", layer, options.memory_batch)
        print(
            f"{layer:>8} {statistics.median(found):7.3f} {flops:7.3f} {statistics.median(found) / flops:10.2f} "
            f"{min(found) / flops:7.2f} {max(found) / flops:7.2f} {need:8.2f}"
        )


if __name__ == "__main__":
    main()
