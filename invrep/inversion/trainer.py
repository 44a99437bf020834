"""Lightning's Trainer as an inversion needs it: alone, quiet, and with nothing of its own written."""

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
    """Keep remarks that are for others from every batch of photos.

    They are Lightning's for people who train networks (workers, tips, devices), and torch.compile's that a machine
    without a GPU has no CUDA. The settings are the process's: the first thread that comes sets them, and the last one
    gives back what was found.
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
_inside: list[Any] = []  # the settings' context, and one entry for each that is within


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
        options: arguments of Lightning's Trainer; ``num_nodes`` is for the launcher of ranks and not handed on, and of
            several ``devices`` the first is taken: Lightning would start a process for each.
        callbacks: Lightning callbacks.

    Raises:
        InvrepError: the Trainer does not take the options.
    """
    options = {key: value for key, value in options.items() if key != "num_nodes"}  # of ranks, which are alone
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
                plugins=[LightningEnvironment()],  # under torchrun and SLURM as well every process is alone
            )
    except (MisconfigurationException, TypeError, ValueError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in options.items())
        raise InvrepError(f"Lightning's Trainer does not take {given}: {' '.join(str(error).split())}") from None
