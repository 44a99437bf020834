"""What a pass is made of: time by function of our descent, and by operation of the plain loop of loop.py.

Python's profiler slows Python down, so that the shares matter and not their sum.

    python benchmarks/anatomy.py [--layer 'AlexNet relu2'] [--passes 100] [--rows 25]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats

import torch
from loop import LAYERS, plain
from timing import machine
from torch.profiler import ProfilerActivity, profile

import invrep
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.presets import build, preset


def main() -> None:
    """Print both profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="AlexNet relu2", choices=list(LAYERS))
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--rows", type=int, default=25)
    given = parser.parse_args()
    prepare_process()
    make, rep, layer = LAYERS[given.layer]
    net, phi = make().eval().requires_grad_(False), invrep.representation(rep, layer=layer, weights="random")
    photo = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def ours(passes: int) -> None:
        prior = build({**preset("prior", "natural"), "denoiser": None})
        descent = build({**preset("optim", "adam"), "steps": passes})
        solve(photo, [(0, "photo", 0)], phi=phi, prior=prior, descent=descent)

    print(machine(), f"\n{given.layer}, {given.passes} passes; the plain loop, self time by operation:")
    plain(net, photo, 5)
    with profile(activities=[ProfilerActivity.CPU]) as operations:
        plain(net, photo, given.passes)
    print(operations.key_averages().table(sort_by="self_cpu_time_total", row_limit=given.rows))
    ours(5)
    with cProfile.Profile() as functions:
        ours(given.passes)
    print("ours, without the denoiser, by function:")
    pstats.Stats(functions).strip_dirs().sort_stats("tottime").print_stats(given.rows)


if __name__ == "__main__":
    main()
