"""What the whole job through Lightning costs per pass, against a bare PyTorch loop.

Both invert the same photos from the same start: AlexNet relu5, total variation and α-norm, Adam with a cosine schedule.
The bare loop is written out below with torch alone. The two run in turn, and the ratio is taken pair by pair.

    python benchmarks/loop.py [--passes 100] [--pairs 7] [--weights FILE]
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time

import torch
import torchvision
from torch import Tensor

from invrep.data.photo_reading import bundled, read
from invrep.inversion.solver import solve
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.representations.zoo.torchvision_models import torchvision_network


def bare(photos: Tensor, start: Tensor, features: torch.nn.Module, mean: Tensor, std: Tensor, passes: int) -> float:
    """Return the seconds of a loop that nobody would write shorter."""
    sigma = 68.92 * math.sqrt(photos[0].numel())
    image = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.05)
    began = time.perf_counter()
    with torch.no_grad():
        target = features((photos - mean) / std)
        norm = target.flatten(1).square().sum(1)
    for step in range(passes):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / passes)) / 2
        image.grad = None
        code = features(((mean + image) - mean) / std)
        x = image * (255 / sigma)
        energy = (code - target).flatten(1).square().sum(1) / norm
        energy = energy + 50 * (x.diff(dim=3).square().flatten(1).sum(1) + x.diff(dim=2).square().flatten(1).sum(1))
        energy = energy + 4e-10 * sigma**4 * x.square().pow(3).flatten(1).sum(1)
        energy.sum().backward()
        optimiser.step()
    return time.perf_counter() - began


def main() -> None:
    """Print a table: milliseconds per pass of both, and the ratio's median, least and greatest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--weights", default="random")
    options = parser.parse_args()
    phi = torchvision_network("alexnet", layer="relu5", weights=options.weights)
    features = torchvision.models.alexnet(weights=None).features[:12].eval().requires_grad_(False)
    features.load_state_dict({k.removeprefix("features."): v for k, v in phi.module.state_dict().items()})
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    photo = read(bundled("chelsea"), resize="model", input_size=phi.input_size)
    prior = build({**preset("prior", "natural")})
    prior.terms["tv"].weight = 50.0
    descent = Descent(name="Adam", lr=0.05, steps=options.passes, schedule="cosine", start=0.1)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"alexnet relu5, {options.passes} passes, {options.pairs} pairs; milliseconds per pass")
    print(f"{'batch':>5} {'bare':>8} {'invrep':>8} {'ratio':>7} {'least':>7} {'most':>7}")
    for batch in (1, 8):
        photos = photo.repeat(batch, 1, 1, 1)
        rows = [(k, str(k), 0) for k in range(batch)]
        fixed = prior.for_shape((3, *photo.shape[1:]), phi, scale=descent.scale)
        start = torch.stack([descent.draw(photo.shape, 0, str(k), 0, fixed) for k in range(batch)]).float()
        loops, jobs = [], []
        for pair in range(options.pairs + 1):
            loops.append(bare(photos, start, features, phi.mean, std, options.passes))
            began = time.perf_counter()
            solve(photos, rows, phi=phi, prior=prior, descent=descent)
            jobs.append(time.perf_counter() - began)
            if pair == 0:  # a warm-up
                loops, jobs = [], []
        ratios = [job / loop for job, loop in zip(jobs, loops, strict=True)]
        ms = [1000 * statistics.median(times) / options.passes for times in (loops, jobs)]
        print(
            f"{batch:>5} {ms[0]:8.2f} {ms[1]:8.2f} "
            f"{statistics.median(ratios):7.3f} {min(ratios):7.3f} {max(ratios):7.3f}"
        )


if __name__ == "__main__":
    main()
