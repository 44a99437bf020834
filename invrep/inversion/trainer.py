"""Make Lightning's Trainer for an inversion: one process, no messages, no files."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from invrep.errors import InvrepError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence messages inside this context that would be repeated for every batch of photos.

    They are Lightning's advice for training (workers, tips, devices), and torch.compile's notice of a machine without
    CUDA. The settings belong to the process: the first thread to enter sets them, and the last to leave restores them.
    """
    with _setting:
        if not _inside:
            _inside.append(_silence())
            _inside[0].__enter__()
        _inside.append(None)
    try:
        yield
    finally:
        with _setting:
            _inside.pop()
            if len(_inside) == 1:
                _inside.pop().__exit__(None, None, None)


_setting = threading.Lock()
_inside: list[Any] = []  # the context of the settings, then one entry for each open quiet()


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def make_trainer(options: Mapping[str, Any], callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Return a Trainer for one fit on one device.

    Args:
        options: keyword arguments of Lightning's Trainer. ``num_nodes`` is ignored: it is for the launcher of ranks.
            Only the first of several ``devices`` is used: Lightning would start a process for each.
        callbacks: Lightning callbacks.

    Raises:
        InvrepError: the Trainer rejects the options, or ``precision`` is among them.
    """
    options = {key: value for key, value in options.items() if key != "num_nodes"}  # each rank has its own Trainer
    given = options.get("devices", 1)
    options["devices"] = list(given)[:1] if isinstance(given, Sequence) and not isinstance(given, str) else 1
    if "precision" in options:
        raise InvrepError(
            "trainer.precision would round the image too; compute.precision=bf16 or tf32 is for the network alone."
        )
    try:
        with quiet():
            return pl.Trainer(
                **{"accelerator": "auto", **options},
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=list(callbacks),
                plugins=[LightningEnvironment()],  # otherwise Lightning joins the ranks of torchrun or SLURM
            )
    except (MisconfigurationException, TypeError, ValueError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in options.items())
        raise InvrepError(f"Lightning's Trainer does not take {given}: {' '.join(str(error).split())}") from None
