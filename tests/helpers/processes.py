"""Jobs in processes of their own, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT
from invrep.results.store import Results

USUAL = ("logger=none", "optim.steps=4", "log_every=2", "data.batch_size=2", "trainer.accelerator=cpu")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TORCHRUN = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "none"}


def command(place: Path, *overrides: str, usual: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Start ``python train.py …`` in a folder."""
    options = USUAL if usual else ()
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides, *options],
        cwd=place,
        env=ONE_THREAD | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def files(folder: Path) -> dict[str, str | bytes]:
    """What a job left, without seconds: exact, whatever ranks and compactions did in between."""
    results = Results(folder)
    rows = results.rows()
    assert all(row.pop("seconds") for row in rows.values())
    exports = {path.name: path.read_bytes() for path in (results.curves, results.reconstructions)}
    return exports | {"rows": repr(rows), "curves": repr(results.curve_points(rows)), "left": repr(left(folder))}


def left(folder: Path) -> list[str]:
    """The files that a job left, those of its tables by their number."""
    assert Results(folder).table.settled() and not list(folder.rglob("*.tmp"))
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".parquet")
