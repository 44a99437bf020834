"""Complete a multirun, also after failed jobs: tables and figures, the page, the list of failures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from invrep.errors import InvrepError
from invrep.jobs.ranks import launched
from invrep.messages import printable
from invrep.results.sweep_journal import swept
from invrep.sweeps.multirun import Multirun

LOST = "its process died; run the same command again."


@contextmanager
def ending() -> Iterator[None]:
    """Complete the multirun that ran inside this context, if there was one.

    After a failed job, Hydra calls no callback at the multirun's end and raises only the first exception. Among
    several ranks, rank 0 lays out the results.

    Raises:
        InvrepError: jobs failed by a user's mistake, or their processes died; ``details`` has a line for each.
    """
    try:
        yield
    except Exception as error:
        _lay_out()
        if Multirun.config is None or (failures := _failures(Multirun.config)) is None:
            raise
        if isinstance(error, InvrepError) or LOST in str(failures.details):
            raise failures from None
        for line in (str(failures), *failures.details):
            print(printable(line), file=sys.stderr)
        raise  # a fault of the program keeps its traceback
    except BaseException:
        _lay_out()
        raise
    else:
        _lay_out()
    finally:
        Multirun.config = None


def _lay_out() -> None:
    """Lay out the results of all jobs: the experiment's tables and figures, and the page."""
    config, rank = Multirun.config, launched()
    if config is not None and (rank is None or rank.index == 0):
        # every command reaches this function, and these imports take seconds
        from invrep.reporting.page.page import page_of
        from invrep.sweeps.experiments import lay_out

        if "layout" in config:
            lay_out(config)
        page_of(Path(config.hydra.sweep.dir))


def _failures(config: DictConfig) -> InvrepError | None:
    """Return an error with a line for each failed job; None if all jobs are done."""
    folder = Path(config.hydra.sweep.dir)
    jobs = swept(folder)
    bad = [job for job in jobs if job.status != "done"]
    if not bad:
        return None
    why = [job.message if job.status == "failed" else LOST for job in bad]
    lines = [f"  #{job.number} {' '.join(job.overrides)}: {reason}" for job, reason in zip(bad, why, strict=True)]
    return InvrepError(f"{len(bad)} of {len(jobs)} jobs of the sweep failed, all others are done ({folder}):", lines)
