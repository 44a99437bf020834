"""What bfloat16 passes cost in error and save in time: final errors and time per pass, over those of float32.

Each photo is inverted by the default recipe in float32, with ``compute.precision=auto`` and in bf16 throughout, from
the same start. A descent is sensitive to rounding of any kind, so it also runs in float32 from a start rounded to
bfloat16: the column ``nudged`` is the noise of such a comparison. Errors ‖Φ−Φ0‖²/‖Φ0‖² of the final images are computed
exactly. Ratios of errors over float32's are taken photo by photo, ratios of time pair by pair; ``auto`` is accepted
where the mean of its ratios is within 2 % of 1. ``--anyway`` computes in bfloat16 although the processor is slow at it,
for the errors; the times of such a run say nothing.

    python benchmarks/precision.py --photos FOLDER --weights ../shared/weights [--number 10] [--passes 100] [--cases …]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from timing import Pairs, in_turn, machine, seconds
from torch import Tensor

import invrep
import invrep.inversion.compute as compute
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.inversion.compute import Compute
from invrep.inversion.measures import measure
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.representations.base import Representation
from invrep.representations.geometry import InputSize

WAYS = ("float32", "nudged", "auto", "bf16")
LOW = WAYS[2:]
# representation, layer, file of weights
CASES = {
    "alexnet:relu2": ("alexnet", "relu2", "alexnet_features"),
    "alexnet:pool5": ("alexnet", "pool5", "alexnet_features"),
    "vgg16:relu3_3": ("vgg16", "relu3_3", "vgg16_features"),
    "vgg16:relu5_3": ("vgg16", "relu5_3", "vgg16_features"),
    "resnet18:layer3": ("resnet18", "layer3", "resnet18"),
    "vit_b_16:6": ("vit_b_16", "encoder.layers.encoder_layer_5", None),
    "hog": ("hog", None, None),
}


def representation(case: str, weights: Path) -> Representation:
    """Return Φ of a case."""
    name, layer, file = CASES[case]
    if layer is None:
        return invrep.representation(name)
    return invrep.representation(name, layer=layer, weights=weights / f"{file}.safetensors" if file else "random")


class Nudged(Descent):
    """Begin at a start rounded to bfloat16."""

    def draw(self, *args: Any) -> Tensor:
        return super().draw(*args).bfloat16().double()


def final(phi: Representation, photo: Tensor, name: str, way: str, passes: int) -> float:
    """Return the exact code error of one photo's final image; ``way`` is a precision or ``nudged``."""
    recipe = {**preset("optim", "adam"), "steps": passes}
    recipe.pop("_target_")
    kind, precision = (Nudged, "float32") if way == "nudged" else (Descent, way)
    inversion = solve(
        photo[None],
        [(0, name, 0)],
        phi=phi,
        prior=build(preset("prior", "natural")),
        descent=kind(**recipe),
        compute=Compute(precision),
    )
    return float(measure(inversion, None)["error"])


def main() -> None:
    """Print a row for each case: errors and times over float32's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--number", type=int, default=10, help="photos")
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--size", type=int, help="side of the photos in pixels; by default what the network takes")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--anyway", action="store_true", help="bfloat16 where auto would not take it, too")
    given = parser.parse_args()
    prepare_process()
    if given.anyway:
        compute.multiplies_bfloat16 = lambda device: True
    photographs = find(str(given.photos))
    files = [photographs[k] for k in range(min(given.number, len(photographs)))]
    print(machine())
    print(f"{len(files)} photos, {given.passes} passes; over float32: mean or, of times, median (least–greatest)")
    columns = [f"error, {way}" for way in WAYS[1:]] + [f"time, {way}" for way in LOW]
    print(f"{'':>16} {'error':>9}", *(f"{column:>19}" for column in columns))
    for case in given.cases:
        phi = representation(case, given.weights)
        side = given.size
        size = InputSize((side, side), side) if side else phi.input_size or InputSize((224, 224), 224)
        photos = [
            read(file.open(), name=file.name, color=phi.color, resize="squash", input_size=size) for file in files
        ]
        errors = {
            way: [final(phi, photo, file.id, way, given.passes) for photo, file in zip(photos, files, strict=True)]
            for way in WAYS
        }
        row = [f"{case:>16} {statistics.median(errors['float32']):9.3%}"]
        for way in WAYS[1:]:
            ratios = sorted(a / b for a, b in zip(errors[way], errors["float32"], strict=True))
            mean = statistics.geometric_mean(ratios)
            row.append(f"{mean:.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})".rjust(19))
        jobs = {way: partial(final, phi, photos[0], "", way, given.passes) for way in ("float32", *LOW)}
        took = dict(zip(jobs, in_turn(given.pairs, *(partial(seconds, job) for job in jobs.values())), strict=True))
        row += [f"{Pairs(took[way], took['float32'])!s:>19}" for way in LOW]
        print(*row, flush=True)


if __name__ == "__main__":
    main()
