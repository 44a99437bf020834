"""Ours beside plenoptic's ``Metamer``: time per pass, code error after as many passes, and time to the same error.

Both invert the same photos by the same truncated network in float32 on the same threads, in turn. Ours is the default
recipe, the whole job through Lightning, with the default prior and with ``prior=none``: plenoptic has no prior, so the
code error alone is what it lowers. plenoptic has its default loss, penalty and optimiser and the best of three learning
rates, from our start image and from its own, uniform noise. It has an environment of its own:

    python -m venv peers && peers/bin/pip install plenoptic torchvision safetensors
    python benchmarks/peers.py --python peers/bin/python --weights ../shared/weights [--photos FOLDER]

Errors are ‖Φ−Φ0‖²/‖Φ0‖² of the images, by our exact Φ for both, medians over photos. Ratios of time are ours over
plenoptic's: the median, least and greatest of pairs on the first photo. ``passes`` is the number after which the error
of our image is no greater than plenoptic's after all its passes (median over photos); its share of plenoptic's passes,
times the ratio of time per pass, is the time to plenoptic's error over plenoptic's time.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from timing import Pairs, in_turn, machine, seconds
from torch import Tensor

import invrep
from invrep.data.photo_reading import bundled, read
from invrep.data.photo_sources import find
from invrep.inversion.compute import Compute
from invrep.inversion.module import Inversion
from invrep.inversion.pixels import Pixels
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.presets import build, preset
from invrep.representations.network import Network

CASES = ["alexnet:relu2", "alexnet:pool5", "vgg16:relu3_3"]
BUNDLED = ["astronaut", "chelsea", "coffee"]
RATES = (0.01, 0.03, 0.1)  # of plenoptic; .01 is its default, and .003 was never the best
PRECISIONS = ("float32", "auto")
Ratios = dict[tuple[str, str], float]  # of times per pass, by prior and precision


class Plenoptic:
    """Talk to plenoptic, in a process of its own environment.

    Args:
        python: Python of the environment.
        folder: folder for tensors that pass between the processes.
        network: torchvision's name, path of the last module, and file of weights.
        passes: number of passes of each request without a limit.
    """

    def __init__(self, python: Path, folder: Path, network: tuple[str, str, str], passes: int) -> None:
        worker = Path(__file__).with_name("plenoptic_worker.py")
        self.errors = (folder / "stderr.txt").open("w+")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, worker], stdin=pipe, stdout=pipe, stderr=self.errors, text=True)
        self.folder, self.request = folder, {"network": network, "passes": passes, "threads": torch.get_num_threads()}
        self.versions = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"plenoptic's process ended:\n{self.errors.read()[-2000:]}")
        return json.loads(line)

    def __call__(
        self, photo: Tensor, start: Tensor, lr: float, limit: float | None = None
    ) -> tuple[Tensor, float, int]:
        """Return the metamer (1, C, H, W) of a photo, the seconds that it took, and its passes.

        With ``limit``, seconds of the processor, the passes are as many as they allow.
        """
        tensors, out = (str(self.folder / name) for name in ("in.safetensors", "out.safetensors"))
        save_file({"photo": photo[None], "start": start[None].contiguous()}, tensors)
        assert self.process.stdin is not None
        asked = self.request | {"tensors": tensors, "out": out, "lr": lr, "limit": limit}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self._answer()
        return load_file(out)["metamer"], answer["seconds"], answer["passes"]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Errors(pl.Callback):
    """Note the exact code error after every pass; the job's segments are single passes."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target, self.found = target, [math.inf]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Inversion, *_: object) -> None:
        with torch.no_grad():
            code = pl_module.phi(pl_module.reconstruction())[0]
        self.found.append(error(code, self.target))

    def passes_to(self, bar: float) -> float:
        """Return the first number of passes after which the error is no greater than ``bar``; infinity without one."""
        return next((k for k, value in enumerate(self.found) if value <= bar), math.inf)


def error(code: Tensor, target: Tensor) -> float:
    """Return ‖Φ−Φ0‖²/‖Φ0‖²."""
    return float((code - target).double().square().sum() / target.double().square().sum())


class Ours:
    """Invert photos by the default recipe.

    Args:
        phi: representation Φ.
        passes: number of passes of each job.
        prior: name of a preset of priors.
    """

    def __init__(self, phi: Network, passes: int, prior: str) -> None:
        self.phi, self.prior = phi, build(preset("prior", prior))
        self.descent = build({**preset("optim", "adam"), "steps": passes})

    def start(self, photo: Tensor) -> Tensor:
        """Return the start image of a photo, (C, H, W) in [0, 1]."""
        fixed = self.prior.for_shape(tuple(photo.shape), self.phi, scale=self.descent.scale)
        noise = self.descent.draw(tuple(photo.shape), 0, "", 0, fixed).float()
        return Pixels(self.phi.mean, fixed.scale).to_rgb(noise[None])[0]

    def __call__(self, photo: Tensor, precision: str, **options: Any) -> Inversion:
        """Return the inversion of a photo, the whole job."""
        job = {"phi": self.phi, "prior": self.prior, "descent": self.descent, "compute": Compute(precision), **options}
        return solve(photo[None], [(0, "", 0)], **job)


def times(case: str, ours: dict[str, Ours], theirs: Plenoptic, photo: Tensor, number: int) -> Ratios:
    """Print a row of times per pass for each prior; return the ratio for each prior and precision."""
    ways = list(product(ours, PRECISIONS))
    jobs = (lambda way=way: seconds(lambda: ours[way[0]](photo, way[1])) for way in ways)
    start = ours["natural"].start(photo)
    *found, peers = in_turn(number, *jobs, lambda: theirs(photo, start, RATES[0])[1])
    both = {way: Pairs(seconds_of, peers) for way, seconds_of in zip(ways, found, strict=True)}
    for prior, job in ours.items():
        pair = [both[prior, precision] for precision in PRECISIONS]
        ms = [
            1000 * value / job.descent.steps for value in (pair[0].medians[0], pair[1].medians[0], pair[0].medians[1])
        ]
        print(f"{case:>14} {prior:>8}", *(f"{value:9.1f}" for value in ms), *(f"{pairs!s:>19}" for pairs in pair))
    return {way: statistics.median(pairs.ratios) for way, pairs in both.items()}


def errors(case: str, ours: dict[str, Ours], theirs: Plenoptic, photos: Sequence[Tensor], ratios: Ratios) -> None:
    """Print a row of errors and of times to plenoptic's error for each prior and start."""
    bars: dict[str, list[tuple[float, float]]] = {"ours": [], "uniform": []}  # error and rate of each photo
    curves: dict[tuple[str, str], list[Errors]] = {way: [] for way in ratios}
    for photo in photos:
        torch.manual_seed(0)
        starts = {"ours": ours["natural"].start(photo), "uniform": torch.rand_like(photo)}
        phi = ours["natural"].phi
        with torch.no_grad():
            target = phi(photo[None])[0]
            for name, start in starts.items():
                bars[name].append(min((error(phi(theirs(photo, start, lr)[0])[0], target), lr) for lr in RATES))
        for prior, precision in ratios:
            curves[prior, precision].append(Errors(target))
            ours[prior](photo, precision, segment=1, callbacks=[curves[prior, precision][-1]])
    for prior, (start, found) in product(ours, bars.items()):
        bar, rate = (statistics.median(values) for values in zip(*found, strict=True))
        cells = [statistics.median(curve.found[-1] for curve in curves[prior, "float32"]), bar]
        row = f"{case:>14} {prior:>8} {start:>8} {cells[0]:8.2%} {cells[1]:9.2%} {rate:6g}"
        for precision in PRECISIONS:
            pairs = zip(curves[prior, precision], found, strict=True)
            needed = statistics.median(curve.passes_to(value) for curve, (value, _) in pairs)
            time_of = needed / len(curves[prior, precision][0].found[1:]) * ratios[prior, precision]
            row += f" {needed:6g} {time_of:8.3f}" if needed < math.inf else f" {'never':>6} {'never':>8}"
        print(row, flush=True)


def main() -> None:
    """Print the machine, and the rows of each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="Python of plenoptic's environment")
    parser.add_argument("--weights", type=Path, required=True, help="folder of NAME_features.safetensors")
    parser.add_argument("--photos", type=Path, help="folder of photos instead of scikit-image's three")
    parser.add_argument("--number", type=int, default=3, help="photos")
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="NETWORK:LAYER")
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    prepare_process()
    print(machine())
    print(f"{given.passes} passes, {given.pairs} pairs; times per pass in ms, ratios over plenoptic's")
    print(f"{'':>23} {'float32':>9} {'auto':>9} {'plenoptic':>9} {'ratio':>19} {'ratio, auto':>19}")
    kept = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for case in given.cases:
            name, layer = case.split(":")
            weights = (given.weights / f"{name}_features.safetensors").resolve()
            phi = invrep.representation(name, layer=layer, weights=weights)
            photos = read_photos(given.photos, given.number, phi)
            theirs = Plenoptic(given.python, Path(folder), (name, phi.paths[0], str(weights)), given.passes)
            stack.callback(theirs.close)
            ours = {prior: Ours(phi, given.passes, prior) for prior in ("natural", "none")}
            ratios = times(case, ours, theirs, photos[0], given.pairs)
            kept.append((case, ours, theirs, photos, ratios))
        print(f"plenoptic {theirs.versions['plenoptic']} with torch {theirs.versions['torch']}; {len(photos)} photos")
        print(f"{'':>23} {'its':>8} {'error':>18} {'its':>6} {'float32':>15} {'auto':>15}")
        print(
            f"{'':>14} {'prior':>8} {'start':>8} {'ours':>8} {'plenoptic':>9} {'rate':>6}",
            2 * f" {'passes':>6} {'time':>8}",
        )
        for row in kept:
            errors(*row)


def read_photos(folder: Path | None, number: int, phi: Network) -> list[Tensor]:
    """Return the first photos of a folder, or scikit-image's, in the network's size."""
    files = [bundled(photo) for photo in BUNDLED[:number]]
    if folder:
        found = find(str(folder))
        files = [found[k].open() for k in range(min(number, len(found)))]
    return [read(file, resize="squash", input_size=phi.input_size) for file in files]


if __name__ == "__main__":
    main()
