"""What a job says it takes, and what it takes: its plan of memory against the peak of its resident memory.

Every job runs in a process of its own on the CPU, for 40 passes or, if those would take minutes, fewer. The peak is
counted from what the process holds before it plans: Python, torch and Φ's weights.

    python benchmarks/memory.py [--weights FOLDER] [--only hog]

A plan that is one number holds if the peak is within 30 % of it; a range holds if the peak is in it.

FOLDER holds alexnet_features.safetensors, vgg16_features.safetensors and resnet18.safetensors; without it these
networks are left out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from invrep.data.photo_reading import bundled

ROOT = Path(__file__).resolve().parents[1]
USUAL = ("logger=none", "trainer.accelerator=cpu", "optim.steps=40")
JOB = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import invrep.jobs.run
from invrep.cli.command import command
def status(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0]) / 1024
assemble = invrep.jobs.run.assemble
def assembled(*arguments):
    job = assemble(*arguments)
    open("/proc/self/clear_refs", "w").write("5")  # the peak is the present state
    invrep.jobs.run.before = status("VmRSS")
    return job
invrep.jobs.run.assemble = assembled
command()
print("PEAK", status("VmHWM") - invrep.jobs.run.before)
"""
CASES = (  # photos, their side, what is asked for
    (1, 64, "rep=hog"),
    (8, 64, "rep=hog"),
    (8, 256, "rep=hog"),
    (1, 512, "rep=hog"),
    (1, 2048, "rep=hog optim.steps=6"),
    (3, 1024, "rep=hog data.batch_size=1 optim.steps=8"),
    (2, 512, "rep=hogb restarts=4 optim.steps=20"),
    (1, 1024, "rep=hogb optim.steps=10"),
    (1, 512, "rep=dsift"),
    (1, 2048, "rep=dsift optim.steps=4"),
    (1, 512, "rep=dsift prior=ijcv16 optim=ijcv16"),
    (1, 512, "rep=hog dtype=float64"),
    (1, 512, "rep=hog optim.name=LBFGS optim.options=null optim.lr=1 optim.schedule=constant optim.steps=60"),
    (8, 256, "rep=hog video=gif log_every=1"),
    (1, 512, "rep=hog checkpoint.every=2 restarts=8 optim.steps=20"),
    (1, 227, "rep=alexnet layer=relu2"),
    (8, 227, "rep=alexnet layer=relu2"),
    (8, 227, "rep=alexnet layer=pool5"),
    (8, 227, "rep=alexnet layer=relu2 compute.precision=bf16"),
    (8, 227, "rep=alexnet layer=relu2 prior=ijcv16 optim=ijcv16"),
    (1, 224, "rep=vgg16 layer=relu3_3 optim.steps=20"),
    (8, 224, "rep=vgg16 layer=relu3_3 optim.steps=4"),
    (8, 224, "rep=vgg16 layer=relu5_3 optim.steps=4"),
    (1, 512, "rep=vgg16 layer=relu3_3 data.resize=none optim.steps=6"),
    (8, 224, "rep=torchvision rep.model=resnet18 layer=layer3 optim.steps=15"),
    (
        8,
        224,
        "rep=torchvision rep.model=vit_b_16 layer=encoder.layers.encoder_layer_5 rep.weights=random optim.steps=6",
    ),
)
FILES = {"alexnet": "alexnet_features", "vgg16": "vgg16_features", "resnet18": "resnet18"}


def photos(folder: Path, count: int, side: int) -> Path:
    """Write a few different photos of one size."""
    folder.mkdir(exist_ok=True)
    whole = Image.open(bundled("astronaut")).convert("RGB")
    for k in range(count):
        whole.rotate(10 * k).resize((side, side)).save(folder / f"{k}.png")
    return folder


def measure(options: list[str], place: Path) -> tuple[list[float], float]:
    """Return the plan of a job, one number or two, and its peak, in MB."""
    command = [sys.executable, "-c", JOB, str(ROOT), *USUAL, f"output={place / 'out'}", *options]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(options)}: {run.stdout[-1000:]}{run.stderr[-2000:]}")
    said = re.search(r"pre-images?, (.*?) of memory", " ".join(run.stdout.split()))[1]
    plan = [float(number) * {"MB": 1, "GB": 1024}[unit] for number, unit in re.findall(r"([\d.]+) (MB|GB)", said)]
    return plan, float(run.stdout.rpartition("PEAK")[2])


def holds(plan: list[float], peak: float) -> bool:
    """Return whether a plan in MB has said what the peak is."""
    return plan[0] / 1.3 <= peak <= plan[0] * 1.3 if len(plan) == 1 else plan[0] <= peak <= plan[1]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print("| photos | job | plan, MB | peak, MB | holds |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for number, (count, side, asked) in enumerate(CASES):
            file = next((file for model, file in FILES.items() if model in asked), None)
            if options.only not in asked or (file is not None and options.weights is None):
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            given = [*asked.split(), f"data.path={photos(place / 'photos', count, side)}"]
            if file is not None:
                given.append(f"rep.weights={options.weights.resolve() / file}.safetensors")
            plan, peak = measure(given, place)
            numbers, good = " to ".join(f"{number:.0f}" for number in plan), "yes" if holds(plan, peak) else "no"
            print(f"| {count} of {side}×{side} | {asked} | {numbers} | {peak:.0f} | {good} |", flush=True)


if __name__ == "__main__":
    main()
