"""Prepare and lay out experiments: a file of ``conf/experiment`` defines a sweep and the layout of its results.

The sweep is Hydra's own (``hydra.sweeper.params``). Under ``layout``, each key is a file name without suffix. Its value
names the function of :mod:`invrep.reporting.layouts` that makes the files from the jobs' finished results.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from invrep.data.photo import NO_PHOTO
from invrep.data.photo_sources import find
from invrep.errors import InvrepError, LayerError, VocabularyError, words
from invrep.jobs.ranks import launched
from invrep.presets import build
from invrep.reporting.layouts import Cell
from invrep.results.store import Results
from invrep.results.sweep_journal import SweptJob, forget, swept
from invrep.sweeps.multirun import Multirun, count_jobs
from invrep.validation import number

log = logging.getLogger(__name__)


class Experiment(Callback):
    """Prepare an experiment's sweep, as a callback of Hydra; :func:`lay_out` completes it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Reduce the sweep to its miniature if ``quick=true``, and exit if no job can start.

        Args:
            config: config of the whole sweep, with its ``hydra`` node; changed in place.
            kwargs: further arguments of Hydra, unused.

        Raises:
            SystemExit: a photo or a weights file is missing, or a setting is wrong. Hydra would turn any other
                exception into a warning.
        """
        HydraConfig.instance().set_config(config.copy())  # for ${hydra:…}; Hydra itself sets it at the first job
        try:
            if not isinstance(config.quick, bool):
                raise InvrepError(f"quick={config.quick} is not valid: expected true or false.")
            if config.quick:
                small = {key: value for key, value in config.miniature.items() if value is not None}
                with read_write(config.hydra.sweeper):
                    # overrides on the command line take precedence
                    config.hydra.sweeper.params = {**(config.hydra.sweeper.params or {}), **small}
            else:
                with suppress(LayerError, VocabularyError):  # those of the sweep's jobs may exist
                    build(config.rep)
            _images(config, {})
        except (InvrepError, OmegaConfBaseException) as error:
            Multirun.config = None  # no job has run: an earlier sweep's results are not laid out again
            print(f"error: {error if isinstance(error, InvrepError) else words(error)}", file=sys.stderr)
            raise SystemExit(1) from None
        rank = launched()
        if rank is None or rank.index == 0:
            forget(Path(config.hydra.sweep.dir))
            count_jobs(config)


def lay_out(config: DictConfig) -> None:
    """Make an experiment's tables and figures from the results on disk, and print their paths.

    Args:
        config: config of the whole sweep, with its ``hydra`` node.

    Raises:
        InvrepError: a layout is wrong, or a file cannot be written.
    """
    folder = Path(config.hydra.sweep.dir)
    jobs = swept(folder)
    if not jobs:
        return
    cells = [_cell(config, job) for job in jobs]
    for name, layout in config.layout.items():
        for path in build(layout)(cells, folder / name):
            print(f"laid out: {path}")
    failed = sum(job.status != "done" for job in jobs)
    if failed:
        print(f"{failed} of {len(jobs)} jobs failed or are not finished, and are marked")


def _cell(config: DictConfig, job: SweptJob) -> Cell:
    """Return a job as a cell for layouts, with a value for every key that a layout may arrange by."""
    values = job.values
    flat = {key: _value(config, key) for key in _keys(config)}
    # the value of a group is the name of its choice
    known = {**flat, **config.hydra.runtime.choices, **values}
    restarts = known["restarts"]
    status = job.reason if job.status == "failed" else job.status
    return Cell(
        known, None if job.folder is None else Results(job.folder), status, _images(config, values), int(restarts)
    )


def _value(config: DictConfig, key: str) -> Any:
    """Return the value of a key; None for one that each job has for itself, by ``${hydra:…}``."""
    try:
        return OmegaConf.select(config, key)
    except InterpolationResolutionError:
        return None


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings, without ``hydra``, ``layout`` and keys such as ``_target_``."""
    for name in map(str, node):
        if name[0] != "_" and (prefix or name not in ("hydra", "layout", "miniature", "name", "place")):
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _keys(child, f"{prefix}{name}.")
            elif not OmegaConf.is_missing(node, name):
                yield f"{prefix}{name}"


def _images(config: DictConfig, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of a job's photos.

    Args:
        config: config of the whole sweep.
        values: values that the job's overrides set, by dotted key.

    Raises:
        InvrepError: a photo is missing, or ``data.limit`` is no whole number.
    """
    if "path" not in config.data:
        return (NO_PHOTO.id,)
    path, limit, root, split = (values.get(f"data.{k}", config.data.get(k)) for k in ("path", "limit", "root", "split"))
    limit = None if limit is None else number("data.limit", limit, minimum=1, whole=True, word="null")
    return tuple(find(path, limit, root=root, split=split).ids)
