"""How near our codes are to VLFeat's, and our energies to those that the authors' own code recorded.

Codes: ‖ours − VLFeat's‖/‖VLFeat's‖, the largest of the photos of vlfeat.npz. Energies: the authors' recipe from their
recorded start and code (authors.npz), |ours − theirs|/theirs of the total energy, the largest over photos and HOG, HOGb
and DSIFT, in the first 20 passes, throughout and at the end.

    python benchmarks/exactness.py --gold ../shared/gold
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from timing import machine
from torch import Tensor

import invrep
from invrep.inversion.module import Inversion
from invrep.inversion.trainer import make_trainer, quiet
from invrep.jobs.process import prepare_process
from invrep.objectives.match import Match
from invrep.presets import build, preset
from invrep.representations.handcrafted.dsift import DSIFT

REPS = ("hog", "hogb", "dsift")


def images_of(array: np.ndarray) -> Tensor:
    """Return an image (1, C, H, W) from (H, W, C) or (H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(array).transpose(2, 0, 1)))[None]


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the relative L2 distance of two codes of one shape."""
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def code_error(rep: str, gold: np.lib.npyio.NpzFile, name: str) -> float:
    """Return the distance of a photo's code from VLFeat's, both in its order of values."""
    if rep != "dsift":
        (code,) = invrep.representation(rep)(images_of(gold[f"{name}/rgb"]))
        return distance(code[0].permute(1, 2, 0).double().numpy(), gold[f"{name}/{rep}"].astype(np.float64))
    (code,) = DSIFT(step=3)(images_of(gold[f"{name}/gray"]))
    listed = code[0].flatten(1).T.double().numpy()  # VLFeat lists descriptors row by row, times 512
    return distance(listed, gold[f"{name}/dsift"].astype(np.float64) / 512)


def energies(rep: str, gold: np.lib.npyio.NpzFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return our total energy and theirs before each pass of their recipe, (passes,)."""
    start = torch.from_numpy(gold[f"{name}/start"])[None, None].float()
    code = torch.from_numpy(gold[f"{name}/{rep}/code"]).permute(2, 0, 1)[None].float()
    phi = invrep.representation(rep, variant="cvpr15")
    prior = build(preset("prior", "cvpr15")).for_shape(tuple(start.shape[1:]), phi, scale="sigma")
    descent = build(preset("optim", "cvpr15"))
    inversion = Inversion(
        start / prior.scale, phi=phi, objective=Match([code]), prior=prior, descent=descent, segment=1
    )
    with quiet():
        make_trainer({"accelerator": "cpu"}, []).fit(inversion)
    ours = np.array([float(terms["energy"]) for _, terms in inversion.curve])
    theirs = gold[f"{name}/{rep}/energy"][3]
    return ours[: len(theirs)], theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=Path, required=True)
    given = parser.parse_args()
    prepare_process()
    print(machine())
    vlfeat, authors = np.load(given.gold / "vlfeat.npz"), np.load(given.gold / "authors.npz")
    photos = sorted({key.partition("/")[0] for key in vlfeat.files})
    with torch.no_grad():
        for rep in REPS:
            print(f"{rep} against VLFeat, {len(photos)} photos: {max(code_error(rep, vlfeat, p) for p in photos):.1e}")
    pairs = [energies(rep, authors, name) for rep in REPS for name in ("chelsea", "coffee")]
    gaps = [np.abs(ours / theirs - 1) for ours, theirs in pairs]
    for words, part in (("first 20 passes", slice(20)), ("throughout", slice(None)), ("end", slice(-1, None))):
        print(f"total energy, {words}: within {100 * max(gap[part].max() for gap in gaps):.2f} %", flush=True)


if __name__ == "__main__":
    main()
