"""What ``optim.tolerance`` saves, and how far above its full-length energy an image ends for it.

Each representation's photos are inverted with all passes and with each tolerance, by the default recipe, whose rate
falls until the last pass, and by one that settles: a constant rate of .01 and the exact gradient. A row shows the share
of passes saved, how many images stopped early, and the final energies over those with all passes, median and greatest.

    python benchmarks/tolerance.py --photos FOLDER --weights ../shared/weights [--cases hogb dsift relu2 layer2]

FOLDER holds at least as many photos as ``--number`` says, which are taken at equal distances.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from pathlib import Path

import torch
from torch import Tensor

import invrep
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.inversion.module import Inversion
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.presets import build, preset
from invrep.representations.base import Representation
from invrep.representations.geometry import InputSize

# name: representation, layer, file of weights
CASES = {
    "hog": ("hog", None, None),
    "hogb": ("hogb", None, None),
    "dsift": ("dsift", None, None),
    "relu2": ("alexnet", "relu2", "alexnet_features"),
    "layer2": ("resnet18", "layer2", "resnet18"),
}
RECIPES = {
    "default": {},
    "constant": {"steps": 600, "lr": 0.01, "schedule": "constant", "straight_through": False},
}


def run(phi: Representation, photos: Tensor, names: list[str], **optim: object) -> Inversion:
    """Return the fitted inversion of photos by the default recipe with some options of its own."""
    return solve(
        photos,
        [(k, name, 0) for k, name in enumerate(names)],
        phi=phi,
        prior=build(preset("prior", "natural")),
        descent=build({**preset("optim", "adam"), **optim}),
        trainer={"accelerator": "auto"},
    )


def main() -> None:
    """Print a row for each representation, recipe and tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=["hogb", "dsift", "relu2", "layer2"], choices=list(CASES))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-3, 1e-2])
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args()
    prepare_process()
    photographs = find(str(given.photos))
    files = [photographs[k * len(photographs) // given.number] for k in range(given.number)]
    print(f"{len(files)} photos of {given.side} px, {platform.machine()}, torch {torch.__version__}")
    print(f"{'':>8} {'recipe':>9} {'tolerance':>9} {'saved':>7} {'stopped':>8} {'median':>8} {'greatest':>9}")
    for case in given.cases:
        name, layer, weights = CASES[case]
        options = {} if layer is None else {"layer": layer, "weights": given.weights / f"{weights}.safetensors"}
        phi = invrep.representation(name, **options)
        size = InputSize((given.side, given.side), given.side, "bicubic")
        how = {"color": phi.color, "resize": "squash", "input_size": size}
        photos = torch.stack([read(file.open(), name=file.name, **how) for file in files])
        names = [file.id for file in files]
        for recipe in given.recipes:
            whole = run(phi, photos, names, **RECIPES[recipe])
            for tolerance in given.tolerances:
                found = run(phi, photos, names, tolerance=tolerance, **RECIPES[recipe])
                status = found.status
                passes = torch.where(status.done, status.ended, whole.passes).double().mean()
                ratios = (found.latest["energy"] / whole.latest["energy"]).tolist()
                print(
                    f"{case:>8} {recipe:>9} {tolerance:>9g} {100 * (1 - passes / whole.passes):>6.1f}% "
                    f"{int(status.done.sum()):>5}/{len(files)} {statistics.median(ratios):>8.4f} {max(ratios):>9.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
