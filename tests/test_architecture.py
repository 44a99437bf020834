"""The rooms of the package: which may import which, and what a command and the science load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT
from importlinter.cli import lint_imports

from invrep.data.photo_reading import bundled

LIGHT = """
import contextlib, sys
from invrep.cli.command import command

for words in (["--help"], ["--version"], ["rep=hgo"], ["restrats=2"], ["--cfg", "job"], ["rep=hog", "layer=list"]):
    sys.argv = ["invrep", *words]
    with contextlib.suppress(SystemExit):
        command()
    print(*words, "loads torch" if "torch" in sys.modules else "is quick", flush=True)
"""

ALONE = """
import importlib.metadata, sys

names = {"hydra", "omegaconf", "rich", "wandb", "matplotlib"}
packages = {"hydra-core", *names}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def distribution(name, found=importlib.metadata.distribution):
    if name.lower() in packages:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path.insert(0, Blocked())
importlib.metadata.distribution = distribution

import torch
from invrep.data.photo_reading import read
from invrep.inversion.outcome import outcome_of
from invrep.inversion.solver import solve
from invrep.optim import Descent
from invrep.priors import AlphaNorm, Prior, TotalVariation
from invrep.representations.handcrafted.hog import HOG

photo = read(sys.argv[1])[None, :, 100:148, 130:194]
found = solve(
    photo,
    [(0, "cat", 0)],
    phi=HOG(),
    prior=Prior(tv=TotalVariation(), alpha=AlphaNorm()),
    descent=Descent(steps=20),
)
first, last = found.curve[0][1]["energy"], found.curve[-1][1]["energy"]
print(tuple(found.reconstruction().shape), "lower" if last < first else "no lower")
print(*outcome_of(found, photo).measures)
"""


def run(code: str, folder: Path, *words: str) -> list[str]:
    """Return the lines that a program prints in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_imports_go_down_only_and_the_science_knows_no_framework(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


def test_what_starts_no_job_loads_no_torch(tmp_path):
    lines = run(LIGHT, tmp_path)
    assert [line for line in lines if line.endswith("loads torch")] == []
    assert len([line for line in lines if line.endswith("is quick")]) == 6


def test_the_science_needs_no_framework(tmp_path):
    """Hydra, OmegaConf, rich, W&B and matplotlib are not installed, as far as Python can tell."""
    shape, measures = run(ALONE, tmp_path, str(bundled("chelsea")))[-2:]
    assert shape == "(1, 3, 48, 64) lower"
    assert {"error", "psnr", "ssim"} <= set(measures.split())
