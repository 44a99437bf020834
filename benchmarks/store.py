"""What the store of results costs at many pre-images: saving, resuming, finishing, in seconds and memory.

Each stage is a process of its own on a folder of pre-images of 8×8 pixels. Their curves have the 144 points that a
job of 300 passes leaves.

    python benchmarks/store.py [--rows 100000] [--folder FOLDER]

With --rows 30000, one thread and a folder in /dev/shm, on a busy machine, which seconds of CPU do not show:

| stage | seconds of CPU | MB above imports |
| --- | --- | --- |
| save 2000 pre-images | 7.6 | 68 |
| find what is finished, before the job's end | .8 | 49 |
| compact and export | 5.2 + 8.1 | 425, 612 |
| find what is finished, after it | .7 | 35 |
| mean curves | 1.1 | 165 |

The table has 91 MB, 3 kB a pre-image.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from invrep.inversion.curve import point_follows
from invrep.results.exports import export
from invrep.results.rows import Finished, row_of
from invrep.results.store import Results
from invrep.results.table import MOST_PARTS

SAVED = 2000
NAMES = ("error", "energy", "data", "tv", "alpha")
PASSES = [0]
for passed in range(1, 300):
    if passed % 20 == 0 or point_follows([(PASSES[-1], {})], passed, 0):
        PASSES.append(passed)
PASSES.append(300)


def found(number: int, draw: random.Random) -> Finished:
    """Return a pre-image as a job of 300 passes leaves it: values of float32, and errors that fall with noise."""
    row = {"image": f"photos/{number:08}.jpg", "restart": 0, "pairwise_error": math.nan, "passes": 300}
    row |= {name: draw.random() for name in (*NAMES, "root_error", "psnr", "ssim", "distance", "code_norm", "seconds")}
    falls = torch.tensor([[draw.uniform(0.9, 1.1) / (1 + at) for _ in NAMES] for at in PASSES]).tolist()
    curve = [(at, dict(zip(NAMES, values, strict=True))) for at, values in zip(PASSES, falls, strict=True)]
    return Finished(row | {"content": f"{number:016x}"}, curve, torch.zeros(1, 8, 8))


def saved(folder: Path, rows: int) -> None:
    """Save the first pre-images as a job does."""
    draw, results = random.Random(0), Results(folder)
    for k in range(min(SAVED, rows)):
        results.save(found(k, draw), "clip")


def filled(folder: Path, rows: int) -> None:
    """Make the rest, as a job has left it whose processes have brought their own parts together."""
    draw, results = random.Random(1), Results(folder)
    for first in range(SAVED, rows, MOST_PARTS):
        some = [found(k, draw) for k in range(first, min(first + MOST_PARTS, rows))]
        for one in some:
            save_file({"reconstruction": one.pixels}, results.part(*one.key))
        results.table.add([row_of(one) for one in some])


def resumed(folder: Path, rows: int) -> None:
    done = Results(folder).done()
    assert all((f"photos/{k:08}.jpg", 0) in done for k in range(rows))


def compacted(folder: Path, rows: int) -> None:
    Results(folder).compact(1.0, [f"photos/{k:08}.jpg" for k in range(rows)])


def exported(folder: Path, rows: int) -> None:
    export(Results(folder))


def averaged(folder: Path, rows: int) -> None:
    assert len(Results(folder).mean_curves()) == len(PASSES)


def measured(stage: Callable[..., None], *arguments: object) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    stage(*arguments)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{stage.__name__:>10} {seconds:8.1f} s, {cpu:8.1f} s of CPU, {peak:6.0f} MB above imports", flush=True)


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="an empty one; /dev/shm leaves the disk out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        for stage in (saved, filled, resumed, compacted, resumed, exported, averaged):
            arguments = (stage, Path(place) / "job", given.rows)
            process = multiprocessing.get_context("spawn").Process(target=measured, args=arguments)
            process.start()
            process.join()
        files = Results(Path(place) / "job").table.files()
        print(f"{len(files)} files of rows, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
