"""Compare pre-images with other photos, the *null*: how many of them come nearer to the photo's code?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import functional as F

from invrep.evaluation.certificate.codes import Code, entries, pearson_squared, ranked, spearman
from invrep.objectives.match import Match

FEW = 20  # photos; a percentile of fewer says little
AT_ONCE = 8  # photos in one pass
MOST_BYTES = 2**30  # of codes and ranks that are kept; above, each photo's comparison computes them again


def fitted(image: Float[Tensor, "channel row column"], size: tuple[int, int]) -> Float[Tensor, "channel row column"]:
    """Return an image that fills a size: scaled until it covers it, and cut at the centre.

    Args:
        image: image in [0, 1].
        size: height and width in pixels.
    """
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    scale = max(size[0] / height, size[1] / width)
    sides = [max(math.floor(side * scale + 0.5), least) for side, least in zip((height, width), size, strict=True)]
    found: Tensor = F.center_crop(F.resize(image, sides, antialias=True), list(size))
    return found.clamp(0, 1)


def digest(image: Tensor) -> bytes:
    """Return a hash of an image's pixels, in float32."""
    return hashlib.sha256(image.detach().cpu().float().contiguous().numpy().tobytes()).digest()


@dataclass(frozen=True)
class NullPhotos:
    """Hold other photos, which are read when they are needed.

    Attributes:
        readers: functions that each return a photo, (C, H, W) in [0, 1] of any size, or None for an unreadable one.
        name: identity of the photos, for results.
    """

    readers: Sequence[Callable[[], Tensor | None]]
    name: str = ""

    def of_size(self, size: tuple[int, int]) -> Iterator[Tensor]:
        """Yield the photos that can be read, each :func:`fitted` to a height and a width."""
        for read in self.readers:
            if (photo := read()) is not None:
                yield fitted(photo, size)


@dataclass(frozen=True)
class Compared:
    """Hold how near other photos come to a photo's code.

    Attributes:
        errors: relative errors of the N other photos, (N,) float64.
        rho: greatest Spearman correlation of another photo; NaN without one.
        r2: greatest squared Pearson correlation of another photo; NaN without one.
    """

    errors: Float[Tensor, " photo"]
    rho: float = math.nan
    r2: float = math.nan

    def percentile(self, errors: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the percentage of other photos whose error is below each of these, (B,); NaN without photos."""
        if not len(self.errors):
            return errors.new_full(errors.shape, math.nan)
        below = (self.errors[:, None] < errors[None].to(self.errors)).double().mean(0)
        return torch.where(errors.isnan(), torch.nan, 100 * below)


@dataclass(frozen=True)
class _Chunk:
    digests: list[bytes]
    code: Code
    ranks: list[Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.code, *self.ranks))


class Null:
    """Compare photos of one size with the null photos; the codes of these are computed once while they fit in memory.

    Args:
        photos: null photos.
        phi: function from images (B, C, H, W) in [0, 1] to codes, a list of (B, …).
        size: height and width of the photos in pixels.
        correlated: whether correlations are computed too.
    """

    def __init__(
        self, photos: NullPhotos, phi: Callable[[Tensor], Code], size: tuple[int, int], *, correlated: bool = False
    ) -> None:
        self.photos, self.phi, self.size, self.correlated = photos, phi, size, correlated
        self._kept: list[_Chunk] | None = None
        self._fits = True

    @torch.no_grad()
    def compare(self, objective: Match, photo: Float[Tensor, "channel row column"]) -> Compared:
        """Return how near the null photos come to a photo's code; the photo itself is left out.

        Args:
            objective: objective of the photo, one row.
            photo: photo of this size.
        """
        own, ranks = digest(photo), self._ranks(objective, objective.target)
        errors: list[Tensor] = []
        rho: list[Tensor] = []
        r2: list[Tensor] = []
        for chunk in self._chunks(objective):
            others = torch.tensor([one != own for one in chunk.digests])
            errors.append(objective.value(chunk.code).double().cpu()[others])
            if self.correlated:
                rho.append(spearman(objective, chunk.ranks, ranks)[others])
                r2.append(pearson_squared(objective, chunk.code).cpu()[others])
        return Compared(torch.cat(errors) if errors else torch.empty(0).double(), _most(rho), _most(r2))

    def _ranks(self, objective: Match, code: Sequence[Tensor]) -> list[Tensor]:
        return [ranked(part) for part in entries(objective, code)] if self.correlated else []

    def _chunks(self, objective: Match) -> Iterator[_Chunk]:
        """Yield the codes of the null photos in chunks, and keep them if all fit in memory."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[_Chunk] = []
        total = 0
        photos = self.photos.of_size(self.size)
        while some := list(islice(photos, AT_ONCE)):
            code = self.phi(torch.stack(some))
            chunk = _Chunk([digest(photo) for photo in some], code, self._ranks(objective, code))
            total += chunk.nbytes
            self._fits = self._fits and total <= MOST_BYTES
            kept = [*kept, chunk] if self._fits else []
            yield chunk
        if self._fits:
            self._kept = kept


def _most(values: Sequence[Tensor]) -> float:
    """Return the greatest of some values; NaN without any."""
    known = [float(value) for some in values for value in some if not value.isnan()]
    return max(known, default=math.nan)
