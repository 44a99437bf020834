"""Gather a sample of the local descriptors of photos, photo by photo."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrep.data.batching import ahead
from invrep.data.photo import Photo, Photos, content_of
from invrep.data.photo_reading import read
from invrep.errors import InvrepError, out_of_memory
from invrep.fitting.sample import Sample
from invrep.representations.base import Representation
from invrep.representations.vocabularies.descriptors import rows_of, unit
from invrep.results.atomic_files import as_written, atomic

SUFFIX = ".progress"  # of the file beside the output
REMEDY = "choose another place with output=FILE"
AHEAD = 4  # photos decoded ahead of the descriptors
EVERY, SHARE = 10.0, 0.05  # seconds between two saves, and the greatest share of the time that they take


@dataclass(frozen=True)
class Source:
    """Hold photos, and how they become descriptors.

    Attributes:
        photos: photos to read.
        descriptor: representation with positions, private, on the device that computes.
        unit: bool; whether each descriptor is divided by its norm.
        color: colour of the photos, ``rgb`` or ``gray``.
        resize: kind of resize, as :func:`invrep.data.photo_reading.read` takes it.
        values: black and white of photos of more than 8 bits; None: by their type.
    """

    photos: Photos
    descriptor: Representation
    unit: bool
    color: str
    resize: str
    values: tuple[float, float] | None = None

    def pixels(self, photo: Photo) -> tuple[Tensor, str]:
        """Return a photo's pixels, (C, H, W) in [0, 1], and the hash of its content.

        Raises:
            InvrepError: the photo cannot be read, or does not fit into memory.
        """
        try:
            file = photo.fetch()
            pixels = read(
                io.BytesIO(file),
                color=self.color,
                resize=self.resize,
                input_size=self.descriptor.input_size,
                values=self.values,
                name=photo.name,
            )
            return pixels, content_of(file)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise InvrepError(f"{photo.name} does not fit into memory; make it smaller first.") from None

    @torch.no_grad()
    def code(self, pixels: Tensor) -> list[Tensor]:
        """Return the descriptor's code of a photo.

        Raises:
            InvrepError: the descriptor rejects the photo.
        """
        mean = self.descriptor.mean
        code: list[Tensor] = self.descriptor(pixels[None].to(mean.device, mean.dtype))
        return code

    def rows(self, code: Sequence[Tensor]) -> Tensor:
        """Return the descriptors of a photo's code, (N, D) float32.

        Raises:
            InvrepError: the code has no positions.
        """
        rows = rows_of(code, self.descriptor).values[0]
        return (unit(rows) if self.unit else rows).float()


@dataclass
class Progress:
    """Keep a sample and what it holds in a file beside the output, so that a fit resumes.

    Attributes:
        path: path of the file.
        fit: identity of the fit; another fit does not resume from the file.
        done: number of photos done, from the first.
        left_out: reason for each photo that is left out, by the photo's id.
    """

    path: Path
    fit: str
    done: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def resume(self, sample: Sample) -> None:
        """Restore a sample from the file, if there is one.

        Raises:
            InvrepError: the file is of another fit, or damaged.
        """
        if not self.path.exists():
            return
        with as_written(self.path), safe_open(self.path, "np") as file:
            about = json.loads((file.metadata() or {})["progress"])
            if about["fit"] != self.fit:
                raise InvrepError(
                    f"{self.path} is the progress of a fit with other photos or settings; repeat that command, remove "
                    f"the file, or choose another output."
                )
            sample.restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118, no mapping
            self.done, self.left_out = about["done"], about["left_out"]

    def save(self, sample: Sample, *, now: bool = False) -> None:
        """Write the file, at most every ten seconds, or less often where a write takes long.

        Args:
            sample: sample of the first ``done`` photos.
            now: bool; whether to write at once.

        Raises:
            InvrepError: the file cannot be written.
        """
        began = time.monotonic()
        if not now and began - self._saved < max(EVERY, self._took / SHARE):
            return
        about = {"fit": self.fit, "done": self.done, "left_out": self.left_out}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in sample.state().items()}
        header = {"progress": json.dumps(about)}
        atomic(self.path, lambda place: save_file(tensors, place, metadata=header), remedy=REMEDY)
        self._saved = time.monotonic()
        self._took = self._saved - began


def identity(source: Source, sample: Sample, described: dict[str, Any]) -> str:
    """Return a hash of what a sample depends on: photos' ids, descriptor, reading, budget and seed."""
    how = [described, source.unit, source.color, source.resize, source.values, sample.budget, sample.seed]
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for name in source.photos.ids:
        digest.update(f"\n{name}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def gather(source: Source, sample: Sample, progress: Progress, tell: Callable[[str, int, int], None]) -> None:
    """Add the descriptors of all photos to a sample; name each unreadable or unfit photo in ``progress.left_out``.

    Args:
        source: photos and descriptor.
        sample: sample to extend.
        progress: progress of the sample; the photos before ``done`` are skipped.
        tell: function of ``"photos"``, the number of photos done and of all photos.

    Raises:
        InvrepError: no photo can be used, memory runs out, or the progress cannot be written.
    """
    total = len(source.photos)
    progress.save(sample, now=True)  # a folder that cannot be written is reported before an hour of work
    tell("photos", progress.done, total)
    for photo, found in _read_ahead(source, range(progress.done, total)):
        try:
            _add(source, sample, photo, found)
        except _LeftOut as error:
            progress.left_out[photo.id] = str(error)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise InvrepError(f"Memory has run out at {photo.name}; make it smaller, or leave it out.") from error
        progress.done += 1
        tell("photos", progress.done, total)
        if progress.done < total:
            progress.save(sample)
    if not len(sample):
        reason = next(iter(progress.left_out.values()))
        raise InvrepError(reason if total == 1 else f"None of {total} photos can be used, such as this: {reason}")
    progress.save(sample, now=True)


class _LeftOut(Exception):
    """Say why a photo is left out."""


def _read_ahead(source: Source, places: range) -> Iterator[tuple[Photo, tuple[Tensor, str] | InvrepError]]:
    def fetch(place: int) -> tuple[Photo, tuple[Tensor, str] | InvrepError]:
        photo = source.photos[place]
        try:
            return photo, source.pixels(photo)
        except InvrepError as error:
            return photo, error

    return ahead(fetch, places, AHEAD)


def _add(source: Source, sample: Sample, photo: Photo, found: tuple[Tensor, str] | InvrepError) -> None:
    """Add a photo's descriptors to a sample.

    Raises:
        _LeftOut: the photo cannot be read, or the descriptor rejects it.
        InvrepError: the descriptor has no positions, whatever the photo.
    """
    if isinstance(found, InvrepError):
        raise _LeftOut(str(found))
    pixels, content = found
    try:
        code = source.code(pixels)
    except InvrepError as error:
        raise _LeftOut(str(error)) from error
    rows = source.rows(code)
    if not bool(rows.isfinite().all()):
        raise _LeftOut(f"{photo.name} has descriptors that are NaN or infinite.")
    chosen, numbers = sample.draw(content, len(rows))
    sample.add(rows[torch.from_numpy(chosen).to(rows.device)].cpu().numpy(), numbers, len(rows))
