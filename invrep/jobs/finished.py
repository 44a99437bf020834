"""Certify what is already there: the pre-images of a finished job, or the pictures of any tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from invrep.errors import InvrepError
from invrep.inversion.compute import exact
from invrep.jobs.certifying import certify, check_certificate
from invrep.jobs.config import check
from invrep.jobs.identity import name_of
from invrep.jobs.job import Job, assemble
from invrep.jobs.pictures import store_pictures
from invrep.jobs.process import prepare_process
from invrep.jobs.record import job_of
from invrep.messages import count
from invrep.reporting.certificate_table import certificate_means
from invrep.results.store import Results


@exact()
def certify_finished(results: Results, base: DictConfig, console: Console, given: Mapping[str, Any]) -> None:
    """Add certificates to the pre-images of a finished job, and print their means.

    Args:
        results: folder of the job.
        base: composed config with the settings of the certificate.
        console: console for messages.
        given: values of the job's record that are replaced, such as a ``data.path`` that has moved.

    Raises:
        InvrepError: the folder holds no finished job that can be certified, or a setting is wrong.
    """
    prepare_process()
    job = job_of(results, base, console, given)
    done = {image for image, _ in results.rows()}
    places = [place for place, image in enumerate(job.photos.ids) if image in done]
    if not places:
        raise InvrepError(
            f"None of the photos of {results.folder} is in data.path={job.config.data.path}; give data.path=FOLDER."
        )
    _certified(job, places)


@exact()
def certify_pictures(folder: Path, config: DictConfig, console: Console) -> None:
    """Score pictures as pre-images of photos, into a folder of results of their own, and print the means.

    Args:
        folder: folder of the pictures, see :func:`invrep.jobs.pictures.store_pictures`.
        config: composed config: ``rep``, ``layer``, ``data`` and ``certificate``.
        console: console for messages.

    Raises:
        InvrepError: a setting is wrong, or a picture fits no photo.
    """
    prepare_process()
    check(config)
    config.name = name_of(config)
    config.prior.denoiser = None  # no descent of ours made them
    job = assemble(config, console)
    check_certificate(job)
    _certified(job, store_pictures(job, folder), again=True)


def _certified(job: Job, places: list[int], *, again: bool = False) -> None:
    check_certificate(job)
    with job.results.held():
        rows = certify(job, places, again=again)
    if not rows:
        raise InvrepError(
            f"No photo in data.path={job.config.data.path} is as it was when {job.results.folder} was made; give the "
            f"photos as they were inverted by data.path=FOLDER."
        )
    images = {image for image, _ in rows}
    job.tell(f"{job.results.folder}: {count(len(rows), 'certificate')} of {count(len(images), 'photo')}")
    for mean in certificate_means(rows.values()):
        if "/" not in mean.name:
            job.tell(f"  {mean.heading}: {mean.text}")
    job.tell(f"certificates: {job.results.certificate}")
