"""Certify the finished pre-images of a job: ``certificate=true``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import Tensor

from invrep.data.batching import Key
from invrep.data.photo import Photos
from invrep.data.photo_sources import find
from invrep.errors import InvrepError
from invrep.evaluation.certificate.certifier import Certifier
from invrep.evaluation.certificate.null import FEW, NullPhotos
from invrep.evaluation.certificate.other_networks import OtherNetwork, at_hand, sources
from invrep.evaluation.certificate.perceptual import Lpips, backbone
from invrep.jobs.job import Job
from invrep.messages import count
from invrep.objectives.match import Match
from invrep.reporting.certificate_table import write_latex
from invrep.representations.network import Network
from invrep.representations.zoo.weights import existing
from invrep.results.exports import export_certificates

log = logging.getLogger(__name__)

NETWORKS = ("alexnet", "resnet18", "vgg16")  # those that are asked without certificate.networks
MOST_NULL = 1000  # null photos; more change a percentile by less than one in a thousand


def check_certificate(job: Job) -> None:
    """Check the settings of the certificate before the descents begin.

    Raises:
        InvrepError: the objective matches no photo, a network or a file does not exist, or there are no null photos.
    """
    settings = job.config.get("certificate")
    if settings is None:
        return
    if not (issubclass(job.kind, Match) and job.kind.needs_photo and "path" in job.config.data):
        raise InvrepError(
            f"certificate=true compares pre-images with their photo's code, which the objective {job.kind.__name__} "
            f"does not match; leave it out, or take objective=match."
        )
    sources(_networks(settings))
    if settings.lpips is not None:
        existing(settings.lpips)
    _null_photos(job)


def certify(job: Job, places: Iterable[int], *, again: bool = False) -> dict[Key, dict[str, Any]]:
    """Certify the finished pre-images of some photos, and write ``certificate.csv`` and ``certificate.tex``.

    Pre-images that are certified with the same settings are not certified again. The caller holds the folder's lock.

    Args:
        job: parts of the job, whose ``config.certificate`` is set.
        places: places of photos in the job.
        again: whether pre-images are certified again too.

    Returns:
        Rows of the certificates of these photos, by image id and restart.

    Raises:
        InvrepError: a setting is wrong, or a file cannot be written.
    """
    certifier = certifier_of(job)
    known, contents = {} if again else job.results.certificates(), _contents(job)
    quiet = replace(job, failures={})  # a photo that has gone is no failure of the inversion
    todo = []
    for place in places:
        photo = job.photos[place]
        keys = [key for key in contents.get(photo.id, {}) if not _is_done(known.get(key), contents[key[0]], certifier)]
        if keys and (size := quiet.size(photo)) is not None:
            todo.append((size, place, keys))
    # photos of one size follow each other, since the codes of the null photos are kept for one size
    for _, place, keys in track(sorted(todo), "certificates", console=job.console, transient=True, disable=not todo):
        photo = job.photos[place]
        read = quiet.read(photo)
        if read is None or any(contents[photo.id][key] != read.content for key in keys):
            job.tell(f"{photo.name} has changed since its inversion, and its pre-images get no certificate")
            continue
        images = torch.stack(list(job.results.pixels(keys).values())).to(read.pixels)
        columns = certifier(images, read.pixels)
        about = {"content": read.content, "remark": "", "settings": certifier.id}
        job.results.save_certificates(rows_of(keys, columns, about))
    write_out(job)
    wanted = {job.photos[place].id for place in places}
    return {key: row for key, row in job.results.certificates().items() if key[0] in wanted}


def write_out(job: Job) -> None:
    """Compact the table of certificates, and write its exports."""
    results = job.results
    if not results.certificate_table.settled():
        results.certificate_table.compact()
    export_certificates(results)
    write_latex(results)


def rows_of(keys: Sequence[Key], columns: Mapping[str, Tensor], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of pre-images from their columns, each (B,)."""
    lists = {name: values.tolist() for name, values in columns.items()}
    return [
        {"image": image, "restart": restart, **{name: values[k] for name, values in lists.items()}, **about}
        for k, (image, restart) in enumerate(keys)
    ]


def certifier_of(job: Job) -> Certifier:
    """Return the certifier of a job, and say once what it leaves out.

    Raises:
        InvrepError: a setting of ``certificate`` is wrong.
    """
    settings = job.config.certificate
    names = _networks(settings)
    networks, absent = at_hand(names, job.phi)
    for why in dict.fromkeys(absent.values()):
        left = ", ".join(name for name in absent if absent[name] == why)
        job.tell(f"certificates leave out {left}, {why}")
    null = _null_photos(job)
    others = len(null.readers) - (settings["null"] is None)
    if others < FEW:
        job.tell(
            f"certificates have {count(others, 'other photo')} to compare with, and a percentile of fewer than {FEW} "
            f"means little; give certificate.null=FOLDER of a hundred or more"
        )
    lpips = _lpips(job, networks, names)
    if lpips is None:
        job.tell("certificates have no LPIPS: give certificate.lpips=FILE with torchvision's AlexNet")
    denoised = job.baseline is None and job.prior.noise(job.phi) not in (None, 0)
    if denoised:
        job.tell("certificates have no naturalness: the denoiser that would judge it took part in the descent")
    return Certifier(
        job.phi,
        lambda code, shape: cast(Match, job.objective(code, phi=job.phi, shape=shape)),
        null,
        networks,
        lpips,
        denoised,
    )


def _lpips(job: Job, networks: Sequence[OtherNetwork], names: Any) -> Lpips | None:
    """Return LPIPS, by the AlexNet of the settings, of Φ or of torch hub's cache; None without one."""
    listed = names.get("alexnet") if isinstance(names, Mapping) else None
    own = job.phi.weights_file if isinstance(job.phi, Network) and job.phi.name == "alexnet" else None
    given = job.config.certificate.lpips
    file = backbone(given, listed, own)
    try:
        return None if file is None else Lpips(file)
    except InvrepError as error:
        if given is not None:
            raise
        log.warning("%s", error)
        return None


def _networks(settings: DictConfig) -> Any:
    if settings.networks is None:
        return NETWORKS
    plain = OmegaConf.to_container(settings.networks) if OmegaConf.is_config(settings.networks) else settings.networks
    return plain


def _null_photos(job: Job) -> NullPhotos:
    """Return the null photos: of ``certificate.null``, or all of ``data.path``; at most ``MOST_NULL``, evenly spread.

    Raises:
        InvrepError: there is no such folder, or no photo in it.
    """
    data, given = job.config.data, job.config.certificate["null"]
    if given is None:
        photos = find(data.path, None, root=data.get("root"), split=data.get("split"))
    else:
        try:
            photos = find(str(given))
        except InvrepError as error:
            raise InvrepError(str(error).replace("data.path", "certificate.null")) from None
    most = min(len(photos), MOST_NULL)
    places = [k * len(photos) // most for k in range(most)]
    name = hashlib.sha256(repr([photos.ids[place] for place in places]).encode(errors="surrogateescape")).hexdigest()
    quiet = replace(job, failures={})
    return NullPhotos([partial(_pixels, quiet, photos, place) for place in places], name[:16])


def _pixels(job: Job, photos: Photos, place: int) -> Tensor | None:
    read = job.read(photos[place])
    return None if read is None else read.pixels


def _contents(job: Job) -> dict[str, dict[Key, str]]:
    """Return the content of the photo of each finished pre-image, by image id and then by key."""
    found: dict[str, dict[Key, str]] = {}
    for key, row in job.results.rows().items():
        if job.results.part(*key).exists():
            found.setdefault(key[0], {})[key] = row["content"]
    return found


def _is_done(row: Mapping[str, Any] | None, contents: Mapping[Key, str], certifier: Certifier) -> bool:
    if row is None or row["settings"] != certifier.id:
        return False
    return bool(row["content"] == contents[row["image"], row["restart"]])
