"""What a job costs before its first pass, against importing Lightning alone.

Both run in turn as processes of their own, with a warm page cache: ``invrep optim.steps=1``, HOG of the bundled photo
into a new folder, and ``python -c "import pytorch_lightning"``. The first ratio ends with the job's first forward and
backward pass, and with the import; the second one with the processes.

    python benchmarks/start.py [--pairs 5] [--threads 1] [KEY=VALUE …]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Pairs, machine

ROOT = Path(__file__).parents[1]
STAMP = "print('STAMP', time.monotonic() - began, time.process_time(), flush=True)"
IMPORT = f"import sys, time, pytorch_lightning; began = float(sys.argv[1]); {STAMP}"
JOB = f"""
import sys, time
import invrep.jobs.process as process
from invrep.cli.command import command
began, prepare = float(sys.argv.pop(1)), process.prepare_process
def prepared():  # called when everything is imported
    from invrep.inversion.module import Inversion
    from invrep.inversion.trial import Trial
    evaluate, tried = Inversion._evaluate, Trial.__call__
    def stamped(self):
        loss = evaluate(self)
        {STAMP}
        Inversion._evaluate = evaluate
        return loss
    def watched(*arguments):  # rehearsals of passes for the plan of memory have no trial
        Inversion._evaluate = stamped
        return tried(*arguments)
    Trial.__call__ = watched
    prepare()
process.prepare_process = prepared
command()
"""


def run(*command: str, threads: int) -> tuple[float, ...]:
    """Return the wall and CPU seconds of a process up to its stamp, and as a whole with its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    code, *arguments = command
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "out.txt").open("w+") as out:
        began = time.monotonic()
        line = [sys.executable, "-c", code, str(began), *arguments]
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read()
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}: {printed}")
    stamp = map(float, printed.partition("STAMP")[2].split()[:2])
    return (*stamp, whole, usage.ru_utime + usage.ru_stime)


def main() -> None:
    """Print a table: seconds of both, and the ratio's median, least and greatest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="settings of the job, such as logger=none")
    options = parser.parse_args()
    print(machine())
    jobs, imports = [], []
    for pair in range(options.pairs + 1):
        job = run(JOB, "optim.steps=1", *options.overrides, threads=options.threads)
        alone = run(IMPORT, threads=options.threads)
        if pair:  # the first one warms the page cache
            jobs.append(job)
            imports.append(alone)
    print(f"{options.pairs} pairs; seconds of the job and of the import, and their ratio with its range")
    names = ("first pass, wall", "first pass, CPU", "whole process, wall", "whole process, CPU")
    for name, *both in zip(names, zip(*jobs, strict=True), zip(*imports, strict=True), strict=True):
        found = Pairs(*map(list, both))
        print(f"{name:>20} {found.medians[0]:7.2f} {found.medians[1]:7.2f}   {found}")


if __name__ == "__main__":
    main()
