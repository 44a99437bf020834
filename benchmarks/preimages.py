"""How soon and how far: our descent beside the authors', on the authors' energy with their λ, photo by photo.

Each representation's photos are inverted by the authors' heavy ball with all its passes and by the default recipe with
a fraction of them and with as many; a pass is one forward and backward evaluation. σ is 68.92·√(C·H·W) for both, since
the published one diverges on small photos. For networks the authors' schedule begins with the greater of .004 and .0004
that survives on all photos. Ratios of final energies (for HOG of final errors too) are per photo.

    python benchmarks/preimages.py --photos FOLDER --weights ../shared/weights [--cases hogb dsift hog relu2 pool5]

What the file ``--out`` holds of the same photos is not computed again; remove it after a change of recipe, precision
or rates.

FOLDER holds at least sixteen photos, for instance foolbox's data/imagenet_*.jpg; every second one is taken.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

import torch
from torch import Tensor

import invrep
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.inversion.compute import Compute
from invrep.inversion.measures import measure
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.presets import build, preset
from invrep.representations.base import Representation
from invrep.representations.geometry import InputSize

# name: representation, options, file of weights, passes of ours
CASES = {
    "hogb": ("hogb", {}, (160, 800)),
    "dsift": ("dsift", {}, (160, 800)),
    "hog": ("hog", {}, (80, 400, 800)),
    "relu2": ("alexnet", {"layer": "relu2"}, (50, 100, 400)),
    "pool5": ("alexnet", {"layer": "pool5"}, (50, 100, 400)),
    "relu4_3": ("vgg16", {"layer": "relu4_3"}, (50, 400)),
    "relu5_3": ("vgg16", {"layer": "relu5_3"}, (50, 100, 400)),
}


def run(phi: Representation, photos: Tensor, names: list[str], precision: str, **optim: object) -> dict[str, list]:
    """Return what :func:`measure` says of the pre-images, and whether one had to be slowed down."""
    descent = build({**preset("optim", "adam" if "schedule" not in optim else "cvpr15"), **optim})
    inversion = solve(
        photos,
        [(k, name, 0) for k, name in enumerate(names)],
        phi=phi,
        prior=build({**preset("prior", "cvpr15"), "sigma": "auto"}),
        descent=descent,
        segment=20,
        trainer={"accelerator": "auto"},
        compute=Compute(precision),
    )
    found = {**measure(inversion, photos), "slowed": inversion.status.pace.cpu() < 1}
    return {name: value.tolist() for name, value in found.items()}


def main() -> None:
    """Print a row for each representation and number of passes, and keep what was found in a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument(
        "--bf16", action="store_true", help="the networks' passes in bfloat16; results are measured in 32"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.1], help="tried for networks, in theirs")
    parser.add_argument("--out", type=Path, default=Path("preimages.json"))
    given = parser.parse_args()
    prepare_process()
    photographs = find(str(given.photos))
    files = [photographs[k] for k in range(0, len(photographs), 2)][: given.number]
    print(f"{len(files)} photos, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':>8} {'passes':>11} {'energy, ours over theirs':>28} {'error':>22} {'lower':>6}")
    found: dict[str, dict[str, dict[str, list]]] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for case in given.cases:
        name, options, ladder = CASES[case]
        if "layer" in options:
            options = {**options, "weights": given.weights / f"{name}_features.safetensors"}
        phi = invrep.representation(name, **options)
        net = phi.color == "rgb"
        size = phi.input_size if net else InputSize((224, 224), 224, "bicubic")
        how = {"color": phi.color, "resize": "squash" if net else "model", "input_size": size}
        photos = torch.stack([read(file.open(), name=file.name, **how) for file in files])
        names = [file.id for file in files]
        precision = "bf16" if given.bf16 and net else "float32"
        if found.get(case, {}).get("photos") != names:
            found[case] = {"photos": names}
        at = found[case]
        for top in given.rates if net else (1.0,):
            if "authors" not in at or any(at["authors"]["slowed"]):
                schedule = [[rate * top, passes] for rate, passes in phi.schedule]
                at["authors"] = run(phi, photos, names, precision, schedule=schedule)
                given.out.write_text(json.dumps(found))
        total = sum(passes for _, passes in phi.schedule)
        for passes in ladder:
            if str(passes) not in at:
                at[str(passes)] = run(phi, photos, names, precision, steps=passes)
            given.out.write_text(json.dumps(found))
            texts = []
            for key in ("energy", "error"):
                pairs = zip(at[str(passes)][key], at["authors"][key], strict=True)
                ratios = sorted(ours / theirs for ours, theirs in pairs)
                texts.append(f"{statistics.median(ratios):.3f} ({ratios[0]:.2f}–{ratios[-1]:.2f})")
            pairs = zip(at[str(passes)]["energy"], at["authors"]["energy"], strict=True)
            lower = sum(ours < theirs for ours, theirs in pairs)
            print(f"{case:>8} {passes:>5}/{total:<5} {texts[0]:>28} {texts[1]:>22} {lower:>3}/{len(files)}", flush=True)


if __name__ == "__main__":
    main()
