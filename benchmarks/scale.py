"""What many photos cost: memory against their number, time outside the passes, images per hour against ranks.

The photos are noise of 32×32 pixels in a tar, their HOG is inverted on the CPU with one thread for each rank, in
batches as large as data.batch_size=auto makes them.

    python benchmarks/scale.py [--photos 100,1000,10000] [--listed 100000] [--ranks 1,2,3,4] [--share 200] [--side 32]
    python benchmarks/scale.py --photos 0 --listed 0 --ranks 1,2 --turns 5 --side 64

The second command compares two ranks of one thread with one rank of one thread, as pairs of whole commands that run in
turn. A figure of 0 leaves its part out. What 1, 8 and 64 GPUs would do is computed, not measured: ranks share nothing
but the list of photos, so that their rates add up, as long as the disks keep up. ``--seconds`` gives the cost of an
image on one GPU where that has been measured; by default it is this machine's.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
USUAL = ("rep=hog", "logger=none", "trainer.accelerator=cpu", "log_every=50")
SHARE = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import invrep.inversion.module as inversion
import invrep.jobs.run
from invrep.cli.command import command
inside, evaluate = 0.0, inversion.Inversion._evaluate
def timed(self):
    global inside
    began = time.perf_counter()
    try:
        return evaluate(self)
    finally:
        inside += time.perf_counter() - began
inversion.Inversion._evaluate = timed
began = time.perf_counter()
command()
print("SHARE", inside, time.perf_counter() - began)
"""


def tar(path: Path, count: int, side: int) -> Path:
    """Write a tar of square noise photos, as a data set for the web is laid out."""
    draw = np.random.default_rng(0)
    with tarfile.open(path, "w") as file:
        for k in range(count):
            photo = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(photo, "PNG", compress_level=0)
            member = tarfile.TarInfo(f"{k:06}.png")
            member.size = photo.tell()
            file.addfile(member, io.BytesIO(photo.getvalue()))
    return path


def run(place: Path, *command: str) -> tuple[float, float, str]:
    """Return the seconds of a command, its peak of resident memory in MB, and what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    with (place / "out.txt").open("w+") as out:
        process = subprocess.Popen([sys.executable, *command], cwd=place, env=environment, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {printed}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, printed


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if int(part)]


def main() -> None:
    """Print the figures, each when it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=numbers, default="100,1000,10000", help="numbers of photos to invert")
    parser.add_argument("--side", type=int, default=32, help="pixels of a photo's side")
    parser.add_argument("--listed", type=int, default=100_000, help="photos to list and plan only")
    parser.add_argument("--ranks", type=numbers, default="1,2,3,4")
    parser.add_argument("--turns", type=int, default=1, help="runs of each number of ranks, in turn")
    parser.add_argument("--share", type=int, default=200, help="photos of the run whose passes are timed")
    parser.add_argument("--passes", type=int, default=400, help="of each photo in the runs for ranks and share")
    parser.add_argument("--seconds", type=float, help="cost of an image on one GPU")
    options = parser.parse_args()
    train = str(ROOT / "train.py")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos = tar(place / "photos.tar", max(*options.photos, options.listed, options.share, 1), options.side)
        path = f"data.path={photos}"
        seconds, base, _ = run(place, "-c", "import invrep.jobs.run")
        print(f"imports alone: {seconds:.1f} s, {base:.0f} MB")
        print(f"\n{'photos':>8} {'peak MB':>8} {'seconds':>8}   whole jobs of 2 passes, batches of 64")
        for count in options.photos:
            job = (path, f"data.limit={count}", "optim.steps=2", "data.batch_size=64", f"output=memory{count}")
            seconds, peak, _ = run(place, train, *USUAL, *job)
            print(f"{count:>8} {peak:>8.0f} {seconds:>8.1f}", flush=True)
        for count in [options.photos[0], options.listed] if options.photos and options.listed else ():
            seconds, peak, _ = run(place, train, *USUAL, path, f"data.limit={count}", "dry_run=true")
            print(f"{count:>8} {peak:>8.0f} {seconds:>8.1f}   listed, sized and planned only", flush=True)
        work = (*USUAL, path, f"data.limit={options.share}", f"optim.steps={options.passes}", "data.batch_size=auto")
        cost = options.seconds
        if options.share:
            _, _, printed = run(place, "-c", SHARE, str(ROOT), *work, "output=share")
            inside, whole = map(float, printed.rpartition("SHARE")[2].split())
            outside = 100 * (1 - inside / whole)
            print(f"\nof {whole:.1f} s for {options.share} photos {outside:.1f} % are outside forward and backward")
            cost = cost or whole / options.share
        took: dict[int, list[float]] = {ranks: [] for ranks in options.ranks}
        for turn in range(options.turns if options.share else 0):
            for ranks, all_seconds in took.items():
                job = (*work, f"trainer.devices={ranks}", f"output=ranks{ranks}-{turn}")
                all_seconds.append(run(place, train, *job)[0])
        for ranks, all_seconds in took.items() if options.share else ():
            rate = 3600 * options.share / statistics.median(all_seconds)
            gains = [one / many for one, many in zip(took[options.ranks[0]], all_seconds, strict=True)]
            print(
                f"{ranks} ranks on {os.cpu_count()} cores: {rate:.0f} images an hour, start included; "
                f"{statistics.median(gains):.2f} ({min(gains):.2f}–{max(gains):.2f}) of {options.ranks[0]} ranks'",
                flush=True,
            )
        if cost:
            rates = ", ".join(f"{n} {3600 * n / cost:,.0f}" for n in (1, 8, 64))
            print(f"\ncomputed from {cost:.3g} s for an image on one device, images an hour by devices: {rates}")


if __name__ == "__main__":
    main()
