"""Score pictures of any tool as pre-images of photos: ``invrep certify --pictures FOLDER``."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import open_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invrep.data.batching import Key
from invrep.data.photo_reading import read, suffixes
from invrep.errors import InvrepError
from invrep.evaluation.metrics import psnr, ssim
from invrep.jobs.job import Job, Read
from invrep.jobs.provenance import provenance
from invrep.messages import printable
from invrep.objectives.match import Match
from invrep.results.exports import export
from invrep.results.rows import Finished
from invrep.results.store import Results

TENSORS = ".safetensors"  # of unrounded pictures, key reconstruction, as in a job's own parts/


def store_pictures(job: Job, folder: Path) -> list[int]:
    """Store pictures as the pre-images of a job of their own, and return the places of their photos.

    A picture is named as its photo, without or with the photo's suffix: ``cat.png``, ``cat.jpg.png``. ``cat.0.png`` and
    ``cat.1.png`` are restarts, as in a job's ``reconstructions``. Its size is that of the photo as Φ receives it. A
    ``.safetensors`` file with the tensor ``reconstruction``, (C, H, W) with 0 and 1 for black and white, is not rounded
    to 8 bits.

    Args:
        job: parts of the job; its ``results`` become a folder below ``output`` that is named after the pictures.
        folder: folder of the pictures.

    Raises:
        InvrepError: there are no pictures, or one has no photo, another size, or cannot be read.
    """
    found = matched(folder, job.photos.ids)
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    plain = re.sub(r"[^\w.+-]+", "_", folder.resolve().name)[:60]
    job.results = Results(job.results.folder.with_name(f"{plain}-{job.results.folder.name}-{name}"))
    with open_dict(job.config):
        job.config.pictures = str(folder)
    places = sorted({job.photos.ids.index(image) for image, _ in found})
    record = provenance(job, job.photos[places[0]])
    record.used.update(dict.fromkeys(("prior", "optim", "passes", "start_noise", "denoiser_noise", "tv_weight")))
    with job.results.held():
        job.results.save_config(record)
        for place in places:
            photo, alone = job.photos[place], replace(job, failures={})
            if (original := alone.read(photo)) is None:
                raise InvrepError(alone.failures[photo.id])
            job.results.save_photo(photo.id, original.pixels, job.config.display)
            keys = [key for key in found if key[0] == photo.id]
            for finished in _finished(job, original, [(key, found[key]) for key in keys]):
                job.results.save(finished, job.config.display)
        job.results.compact(math.nan, [])
        export(job.results)
    return places


def matched(folder: Path, images: Sequence[str]) -> dict[Key, Path]:
    """Return the picture of each photo's id and restart.

    Raises:
        InvrepError: there is no such folder or no picture in it, a picture has no photo, or two have the same.
    """
    if not folder.is_dir():
        raise InvrepError(f"There is no folder {folder}; give --pictures a folder of pictures named as their photos.")
    known = {Path(image).with_suffix("").as_posix(): image for image in images} | {image: image for image in images}
    found: dict[Key, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*suffixes(), TENSORS) and p.is_file()):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        whole, _, restart = stem.rpartition(".")
        key = (known[stem], 0) if stem in known else None
        if key is None and restart.isdecimal() and whole in known:
            key = known[whole], int(restart)
        if key is None:
            raise InvrepError(
                f"The picture {printable(str(path))} has no photo: expected the name of one of data.path, such as "
                f"{Path(images[0]).stem}.png, or {Path(images[0]).stem}.1.png of a second restart."
            )
        if key in found:
            raise InvrepError(f"{found[key]} and {path} are both restart {key[1]} of {printable(key[0])}; remove one.")
        found[key] = path
    if not found:
        raise InvrepError(
            f"No picture is in {folder}; expected files such as .png or {TENSORS}, named as their photos."
        )
    return found


@torch.no_grad()
def _finished(job: Job, original: Read, pictures: Sequence[tuple[Key, Path]]) -> Iterator[Finished]:
    """Yield the pictures of one photo with their measures, as pre-images without a descent."""
    photo, objective = original.pixels, cast(Match, job.asked_of(original.pixels))
    for key, path in pictures:
        pixels = _picture(job, path).to(photo)
        if pixels.shape != photo.shape:
            sides, wanted = ("×".join(map(str, one.shape[:0:-1])) for one in (pixels, photo))
            raise InvrepError(
                f"{path} has {sides} px and {len(pixels)} channels, but Φ receives the photo {printable(key[0])} at "
                f"{wanted} px with {len(photo)}; give pictures of that size, or data.resize."
            )
        measures = objective.measures(job.phi(pixels[None].to(job.phi.mean.device)))
        row: dict[str, Any] = {"image": key[0], "restart": key[1], "pairwise_error": math.nan, "remark": ""}
        row |= {name: float(value) for name, value in measures.items()}
        row |= {"psnr": float(psnr(pixels[None], photo[None])), "ssim": float(ssim(pixels[None], photo[None]))}
        row["content"] = original.content
        if bool(objective.empty.any()):
            row |= {"remark": "its code is zero"} | {name: math.nan for name in measures if "error" in name}
        yield Finished(row, [(0, {"error": row["error"], "energy": math.nan})], pixels.float())


def _picture(job: Job, path: Path) -> Tensor:
    if path.suffix != TENSORS:
        return read(path, color=job.config.data.color)
    try:
        pixels = load_file(path)["reconstruction"]
    except (SafetensorError, OSError, KeyError):
        raise InvrepError(f"{path} holds no tensor named reconstruction, (channels, height, width).") from None
    if pixels.ndim != 3 or not pixels.is_floating_point() or not bool(pixels.isfinite().all()):
        raise InvrepError(f"{path} holds no picture: expected finite floats (channels, height, width), 0 to 1.")
    return pixels
