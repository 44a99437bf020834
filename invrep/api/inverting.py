"""Find pre-images of tensors, arrays and Pillow images."""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from rich.console import Console
from torch import Tensor, nn

from invrep.api.inverted import Inverted
from invrep.api.parts import part
from invrep.data.batching import MOST_RESTARTS
from invrep.data.display import display_for
from invrep.data.given_images import as_images, is_shape
from invrep.errors import InvrepError, UnfitError
from invrep.inversion.compute import exact
from invrep.inversion.curve import Curve
from invrep.inversion.module import Inversion
from invrep.inversion.outcome import Outcome, outcome_of
from invrep.inversion.solver import solve
from invrep.inversion.trial import Trial
from invrep.messages import count
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.representations.zoo.user_function import as_representation
from invrep.tracking.interrupt import Interrupt
from invrep.tracking.notebook_bar import NotebookBar
from invrep.tracking.progress import Bar
from invrep.validation import number


@exact()
def invert(
    images: Tensor | np.ndarray | Image | Sequence[Any],
    phi: nn.Module | Callable[[Tensor], Any],
    *,
    objective: str | Mapping[str, Any] | Callable[..., Objective] = "match",
    restarts: int = 1,
    prior: str | Mapping[str, Any] | Prior = "natural",
    optim: str | Mapping[str, Any] | Descent = "adam",
    steps: int | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    log_every: int = 20,
    batch_size: int = 32,
    accelerator: str = "auto",
    progress: bool | None = None,
) -> Inverted:
    """Find pre-images: images whose code under ``phi`` is that of the given images, or meets another objective.

    Each pre-image is independent of the others: its start depends on the seed, its id and the restart, not on its
    place in ``images``.

    Args:
        images: floating-point tensor or NumPy array (n, C, H, W) or (C, H, W) in [0, 1]; a Pillow image; or a list of
            images of one size. float64 is computed in float64, everything else in float32. Integer arrays are refused,
            since their value of white is unknown. For an objective without images: the shape (C, H, W) of a pre-image.
        phi: :class:`Representation`, module or function, such as ``model.encode_image``, on images (B, C, H, W) in
            [0, 1] with as many channels as ``images``. It returns a tensor, list, dictionary, dataclass or a nesting
            of these. The code is every floating-point or complex tensor in it.
        objective: name of a preset (``match``, ``caricature``), config of one, or function from a code to an
            :class:`Objective`. Examples are ``partial(Maximise, channels=281)`` and
            ``partial(MatchFile, path="a.safetensors")``. The arguments are (code, phi=Φ, shape=(C, H, W)).
        restarts: number of pre-images of each image.
        prior: name of a preset (``natural``, ``cvpr15``, ``none``), config of one, or :class:`Prior`.
        optim: name of a preset (``adam``, ``cvpr15``), config of one, or :class:`Descent`.
        steps: number of passes; None: the preset's.
        seed: seed of the start noise.
        ids: names of the images, which their noise depends on; None: hashes of their values.
        log_every: most passes between two points of the curve; early passes are all points.
        batch_size: number of pre-images that are computed together; fewer take less memory.
        accelerator: Lightning's accelerator, such as ``cpu`` or ``gpu``.
        progress: bool; True draws a progress bar. None: in a notebook and at Python's prompt, but not in a script.

    Returns:
        Pre-images, codes, measures and curves, see :class:`Inverted`. In a notebook or at Python's prompt, the first
        interrupt (the stop button, Ctrl-C) ends the descent after its present pass, and what it has is returned with
        ``stopped=True``. The second raises KeyboardInterrupt, as the first does in a script.

    Raises:
        InvrepError: the images or an argument are invalid, or Φ cannot be inverted: it is random, its code is not
            finite, or no gradient reaches the images.

    Example:
        >>> found = invrep.invert(images, invrep.representation("hogb"), restarts=5, prior="cvpr15", optim="cvpr15")
        >>> found.reconstructions.shape, found.metrics["error"].mean()
    """
    make = part("objective", objective, {})
    imagined = is_shape(images)
    images = _imagined(images, make) if imagined else images
    images = as_images(images, phi.color if isinstance(phi, Representation) else None)
    number("restarts", restarts, minimum=1, maximum=MOST_RESTARTS, whole=True)
    phi = as_representation(phi, images.shape[1])
    descent = part("optim", optim, {} if steps is None else {"steps": steps})
    named = [_hash(image) for image in images] if ids is None else list(ids)
    if len(named) != len(images):
        raise InvrepError(f"ids has {len(named)} names for {len(images)} images; expected one for each.")
    rows = [(k, image, restart) for k, image in enumerate(named) for restart in range(restarts)]
    size = number("batch_size", batch_size, minimum=1, whole=True)
    bar = _bar(len(rows) * math.prod(images.shape[2:]) * descent.plan(phi)[0], len(images), progress)
    parts = {"phi": phi, "objective": make, "prior": part("prior", prior, {}), "descent": descent, "seed": seed}
    trial, batches, targets = Trial(), list[_Batch](), list[list[Tensor]]()
    with bar, trial.undrawn(), Interrupt(_interactive()) as interrupt:
        for some in (rows[k : k + size] for k in range(0, len(rows), size)):
            if interrupt.heard:
                break
            first, last = some[0][0], some[-1][0]
            bar.images = first + 1, last + 1
            try:
                inversion = solve(
                    images[first : last + 1],
                    [(k - first, image, restart) for k, image, restart in some],
                    **parts,
                    segment=log_every,
                    trainer={"accelerator": accelerator},
                    callbacks=[bar, interrupt],
                    trial=trial,
                )
            except UnfitError as error:
                raise _whose(error, some) from error
            batches.append(_Batch.of(inversion, None if imagined else images[[k for k, _, _ in some]]))
        if not batches:
            raise KeyboardInterrupt
        whole, kept = _kept(sum(len(batch.codes[0]) for batch in batches), restarts)
        if not imagined:
            with torch.no_grad():
                targets = [inversion.phi(some.to(inversion.device)) for some in images[:whole].split(size)]
    stopped = whole * kept < len(rows) or any(bool(batch.cut.any()) for batch in batches)
    if stopped:
        _warn_of_stop(batches, whole, len(images), descent.plan(phi)[0])
    return _inverted(
        batches,
        targets,
        (whole, kept),
        photos=None if imagined else images[:whole],
        names=[f"images[{k}]" for k in range(whole)] if ids is None else named[:whole],
        stopped=stopped,
        display=display_for(phi),
    )


@dataclass(frozen=True)
class _Batch:
    """Hold the results of a batch of B pre-images.

    Attributes:
        outcome: pre-images, measures and curve.
        codes: codes of the pre-images, a list of (B, …).
        cut: bool (B,); True where an interrupt cut the descent short.
    """

    outcome: Outcome
    codes: list[Tensor]
    cut: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, inversion: Inversion, photos: Tensor | None) -> _Batch:
        """Collect the results of a fitted inversion; ``photos`` are (B, C, H, W), or None without photos."""
        status = inversion.status
        return cls(
            outcome_of(inversion, photos),
            [code.cpu() for code in inversion.phi(inversion.reconstruction())],
            (status.active & ~status.done & (inversion.passes < inversion.whole)).cpu(),
        )


def _interactive() -> bool:
    """Return whether a person types: in a notebook, or at the prompt of Python or IPython."""
    return hasattr(sys, "ps1")


def _bar(total: float, images: int, progress: bool | None) -> Bar | NotebookBar:
    """Return the progress bar of all passes; a bar that draws nothing where none is wanted.

    Args:
        total: work in pixels times passes.
        images: number of images.
        progress: whether a bar is wanted; None: where a person types.
    """
    console = Console(quiet=not (_interactive() if progress is None else progress))
    shown = console.is_jupyter and not console.quiet
    return NotebookBar(total, images) if shown else Bar(total, console, images=images)


def _kept(rows: int, restarts: int) -> tuple[int, int]:
    """Return the numbers of images and of restarts that a result holds, where only the first rows have begun.

    They are the images all of whose restarts have begun. Before the first is one, they are its restarts that have.
    """
    return (rows // restarts, restarts) if rows >= restarts else (1, rows)


def _warn_of_stop(batches: Sequence[_Batch], whole: int, images: int, steps: int) -> None:
    """Warn how many passes an interrupted descent has made, and which images the result holds."""
    cut = batches[-1].cut
    passes = max((p for p, short in zip(batches[-1].outcome.passes, cut.tolist(), strict=True) if short), default=steps)
    held = f"; the result holds {whole} of {count(images, 'image')}" if whole < images else ""
    warnings.warn(f"Stopped after pass {passes} of {steps}{held}.", stacklevel=4)  # the caller of invert()


def _imagined(shape: Any, objective: Any) -> Tensor:
    """Return a mid-grey image (1, C, H, W) in place of photos, for an objective without images.

    Raises:
        InvrepError: the objective needs images, or the shape is not three whole numbers.
    """
    if getattr(getattr(objective, "func", objective), "needs_photo", False):
        raise InvrepError(f"images is the shape {tuple(shape)}, but this objective needs images.")
    if len(shape) != 3:
        raise InvrepError(f"images is the shape {tuple(shape)}; expected (channels, height, width).")
    return torch.full((1, *(number("images", side, minimum=1, whole=True) for side in shape)), 0.5)


def _whose(error: UnfitError, rows: Sequence[tuple[int, str, int]]) -> UnfitError:
    """Return the error with the names of its images in front."""
    whose = ", ".join(f"images[{k}]" for k in sorted({rows[place][0] for place in error.rows}))
    return UnfitError(f"{whose}: {error}" if whose else str(error))


def _inverted(
    batches: Sequence[_Batch], targets: Sequence[Sequence[Tensor]], shape: tuple[int, int], **about: Any
) -> Inverted:
    """Concatenate the results of all batches.

    Args:
        batches: results of every batch of pre-images; their first n · R rows are kept.
        targets: codes of every batch of images, a list of (b, …) each.
        shape: numbers of images n and of restarts R.
        about: further attributes of the result.
    """
    outcomes = [batch.outcome for batch in batches]

    def grouped(values: Sequence[Tensor]) -> Tensor:
        groups: Tensor = torch.cat(list(values))[: math.prod(shape)].unflatten(0, shape)
        return groups

    sound = [torch.tensor([why is None for why in outcome.failures]) for outcome in outcomes]
    return Inverted(
        reconstructions=grouped([outcome.images for outcome in outcomes]),
        codes=[grouped(part) for part in zip(*(batch.codes for batch in batches), strict=True)],
        targets=[torch.cat(part).cpu() for part in zip(*targets, strict=True)],
        metrics={name: grouped([outcome.measures[name] for outcome in outcomes]) for name in outcomes[0].measures},
        history=[
            (at, {name: grouped([terms[name] for terms in each]) for name in each[0]})
            for at, each in _together([outcome.curve for outcome in outcomes])
        ],
        passes=grouped([torch.tensor(outcome.passes) for outcome in outcomes]),
        converged=grouped([good & ~batch.cut for good, batch in zip(sound, batches, strict=True)]),
        remarks=_remarks([remark for outcome in outcomes for remark in outcome.remarks], shape),
        **about,
    )


def _remarks(said: Sequence[str], shape: tuple[int, int]) -> list[str]:
    """Return why each image has no relative error, an empty text where it has one, and warn once for each reason."""
    images, restarts = shape
    remarks = [next(filter(None, said[k * restarts : (k + 1) * restarts]), "") for k in range(images)]
    for remark in filter(None, dict.fromkeys(remarks)):
        some = ", ".join(f"images[{k}]" for k, other in enumerate(remarks) if other == remark)
        warnings.warn(f"No relative error has {some}: {remark}.", stacklevel=5)  # the caller of invert()
    return remarks


def _together(curves: Sequence[Curve]) -> Iterator[tuple[int, list[dict[str, Tensor]]]]:
    """Yield each recorded pass with the values of every batch; a batch that ended earlier keeps its final values."""
    axes = [[at for at, _ in curve] for curve in curves]
    for at in sorted(set(chain(*axes))):
        yield at, [curve[bisect_right(axis, at) - 1][1] for axis, curve in zip(axes, curves, strict=True)]


def _hash(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
