"""Shapes are types: those in the package's signatures hold while images are inverted."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers.paths import ROOT

from invrep.data.photo_reading import bundled

CHECKED = """
import sys, types
from functools import partial
from pathlib import Path

from beartype import beartype
from jaxtyping import install_import_hook

def checked(function):
    # The others are mypy's.
    shapes = any("[Tensor" in str(annotation) for annotation in function.__annotations__.values())
    return beartype(function) if shapes else function

sys.modules["checker"] = types.ModuleType("checker")
sys.modules["checker"].checked = checked

rooms = ["api", "data", "evaluation", "inversion", "objectives", "optim", "priors"]
# all of representations but surrogate, of whose function torch reads the annotations itself
rooms += ["representations." + part for part in ("base", "geometry", "handcrafted", "network", "tracing", "zoo")]
install_import_hook([f"invrep.{room}" for room in rooms], "checker.checked")
import torch
from torch import nn

import invrep
from invrep.data.photo_reading import read
from invrep.inversion.pixels import Pixels
from invrep.objectives import Caricature, Maximise
from invrep.representations.network import Network

photo = read(Path(sys.argv[1]))
photos = torch.stack([photo[:, 100:148, 130:194], photo[:, 60:108, 200:264]])
network = Network(nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 6, 3)), mean=(0.5, 0.4, 0.3))
quick = {"steps": 4, "log_every": 2, "accelerator": "cpu"}
found = [
    invrep.invert(photos, invrep.representation("hogb"), restarts=2, prior="cvpr15", optim="cvpr15", **quick),
    invrep.invert(photos.mean(1, keepdim=True), invrep.representation("dsift"), prior="chroma", **quick),
    invrep.invert(photos, network, prior="ijcv16", optim="ijcv16", objective=Caricature, **quick),
    invrep.invert((3, 24, 32), network, objective=partial(Maximise, channels=2), **quick),
]
print(*(tuple(result.reconstructions.shape) for result in found), sep="\\n")
for wrong in (
    lambda: Pixels(torch.full((3, 1, 1), 0.5), 255.0).to_rgb(photo),
    lambda: network.encode(photo, None),
    lambda: invrep.priors.TotalVariation()(photo),
):
    try:
        wrong()
    except Exception as error:
        print(type(error).__name__)
"""


def test_shapes_hold_and_a_wrong_one_is_found(tmp_path):
    """In a process of its own, since the import hook has to come before the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", CHECKED, str(bundled("chelsea"))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "(2, 2, 3, 48, 64)",
        "(2, 1, 1, 48, 64)",
        "(2, 1, 3, 48, 64)",
        "(1, 1, 3, 24, 32)",
        *["TypeCheckError"] * 3,
    ]
