"""Run the command line of ``invrep …`` and ``python train.py …``."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from typing import Any, TextIO

import hydra
from omegaconf import DictConfig

from invrep.cli.arguments import as_typed
from invrep.cli.certify import certify
from invrep.cli.compare import compare
from invrep.cli.completion import completing
from invrep.cli.help import baselines_text, help_text
from invrep.cli.paired_dictionary import is_of_baseline, paired_dictionary
from invrep.cli.report import report
from invrep.cli.sentences import one_sentence
from invrep.cli.vocabulary import vocabulary
from invrep.importing import uncollected
from invrep.presets import FOLDER

PREAMBLE = "Error executing job with overrides"  # Hydra prints this before the error's sentence


@hydra.main(version_base="1.3", config_path=str(FOLDER.resolve()), config_name="config")
def run_job(config: DictConfig) -> float | None:
    """Run one job, of the command line or of a sweep, and return the mean of its ``metric``; see ``jobs.run``."""
    fresh = "torch" not in sys.modules  # so this process has computed nothing
    with uncollected():
        from invrep.jobs.config import check
        from invrep.jobs.local_ranks import rank_main
        from invrep.jobs.nursery import open_nursery
        from invrep.jobs.sweep_note import in_multirun

        if not in_multirun():  # a sweep's job records its error, so jobs.run checks its config
            check(config)  # a wrong value is reported before imports that take seconds
        if fresh:
            open_nursery(rank_main, config.trainer.devices)
        from invrep.jobs.run import run

    return run(config)


def command() -> None:
    """Run the command line; print a user's mistake as one sentence."""
    words = sys.argv[1:]
    if words[:1] == ["report"]:
        report(words[1:])
    elif words[:1] == ["vocabulary"]:
        (paired_dictionary if is_of_baseline(words) else vocabulary)(words[1:])
    elif words == ["baselines"]:
        print(baselines_text())
    elif words[:1] == ["certify"]:
        certify(words[1:])
    elif words[:1] == ["compare"]:
        compare(words[1:])
    elif any(word in ("-h", "--help") for word in words):
        print(help_text())
    elif words == ["--version"]:
        print(f"invrep {version('invrep')}")
    else:
        with completing(words), one_sentence(), _without_preamble():
            from invrep.jobs.machine import register
            from invrep.reporting.terminal import take_any_character
            from invrep.sweeps.completion import ending

            atexit.register(gc.freeze)  # at its end Python would search all objects twice, which takes most of a second
            register()
            take_any_character()
            with ending(), as_typed():
                run_job()


class _Stderr:
    """Pass text on to stderr, except Hydra's preamble."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith(PREAMBLE) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _without_preamble() -> Iterator[None]:
    with redirect_stderr(_Stderr(sys.stderr)):
        yield
