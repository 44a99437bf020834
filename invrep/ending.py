"""The end of a multirun, whether or not jobs of it failed: tables and figures, its page, the list of failures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from invrep.errors import InvrepError
from invrep.experiments import lay_out
from invrep.ranks import launched
from invrep.report import page_of
from invrep.sweep import Multirun, swept


@contextmanager
def ending() -> Iterator[None]:
    """End the multirun that was run inside, if one was.

    Hydra calls no callback at the end of a multirun in which a job has failed, and raises the first one's exception
    only. Of several ranks the first lays out.

    Raises:
        InvrepError: some jobs failed by a user's mistake, or their processes died: a line for each.
    """
    try:
        yield
    except Exception as error:
        _lay_out()
        if Multirun.config is None or (message := _failures(Multirun.config)) is None:
            raise
        if isinstance(error, InvrepError) or "its process died" in message:
            raise InvrepError(message) from None
        print(message, file=sys.stderr)
        raise  # a fault of the program's own, with its traceback
    except BaseException:
        _lay_out()
        raise
    else:
        _lay_out()
    finally:
        Multirun.config = None


def _lay_out() -> None:
    """Make what is made of all jobs' results: an experiment's tables and figures, and the page."""
    config, rank = Multirun.config, launched()
    if config is not None and (rank is None or rank.index == 0):
        if "layout" in config:
            lay_out(config)
        page_of(Path(config.hydra.sweep.dir))


def _failures(config: DictConfig) -> str | None:
    """Return which jobs have failed and why; None where none has."""
    folder = Path(config.hydra.sweep.dir)
    jobs = swept(folder)
    bad = [job for job in jobs if job.status != "done"]
    if not bad:
        return None
    lines = [f"{len(bad)} of {len(jobs)} jobs of the sweep failed, all others are done ({folder}):"]
    for job in bad:
        why = job.message if job.status == "failed" else "its process died; run the same command again."
        lines.append(f"  #{job.number} {' '.join(job.overrides)}: {why}")
    return "\n".join(lines)
