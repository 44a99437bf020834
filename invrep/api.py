"""Offer the program in Python: a representation by its name, and the inversion of tensors."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image
from rich.console import Console
from torch import Tensor, nn

from invrep.data.batching import MOST_RESTARTS
from invrep.data.given_images import as_images, is_shape
from invrep.errors import InvrepError, UnfitError, nearest
from invrep.inversion.compute import exact
from invrep.inversion.curve import Curve
from invrep.inversion.outcome import Outcome, outcome_of
from invrep.inversion.solver import solve
from invrep.inversion.trial import Trial
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.representations.zoo.user_function import as_representation
from invrep.tracking.progress import Bar
from invrep.validation import check_kind, number

# group → an example of a preset, and the values accepted in a preset's place
PARTS = {
    "objective": ("match", "what makes an Objective from a code: a class, a partial of one, or a function"),
    "prior": ("natural", "a Prior"),
    "optim": ("adam", "a Descent"),
}


def representation(name: str, *, layer: Any = None, seed: int = 0, **options: Any) -> Representation:
    """Return a representation by the name of its config, as a module on images (B, C, H, W) in [0, 1].

    Args:
        name: name of a file in ``conf/rep``: ``hog``, ``hogb``, ``dsift``, ``alexnet``, ``vgg16``, …
        layer: layer of a network, as an alias such as ``relu5`` or ``conv1_1`` or as a module's path; several layers
            as a list, or as a dictionary with their weights. None: the network's output, or a representation without
            layers.
        seed: seed of ``weights="random"``.
        options: values for further keys of that config, for example ``weights`` or ``cell``.

    Returns:
        Φ on the CPU, in float32: images (B, C, H, W) → codes, a list with one tensor (B, …) for each layer.

    Raises:
        InvrepError: the name, layer, option or weights file does not exist, or weights cannot be downloaded.

    Example:
        >>> phi = invrep.representation("vgg16", layer="relu5", weights="random")
        >>> [code.shape for code in phi(torch.rand(1, 3, 224, 224))]
        [torch.Size([1, 512, 14, 14])]
    """
    config = preset("rep", name)
    _override(config, f"representation {name!r}", options)
    whole = OmegaConf.create({"rep": config, "layer": layer, "seed": seed})
    made: Representation = build(whole.rep)
    return made


@dataclass(frozen=True)
class Inverted:
    """Hold the result of :func:`invert` for n images with R restarts each.

    Attributes:
        reconstructions: pre-images (n, R, C, H, W) on the CPU; 0 to 1 is black to white, unclipped.
        codes: codes Φ of the reconstructions, a list of (n, R, …).
        targets: codes Φ0 of the images, a list of (n, …); empty where only a shape was given.
        metrics: measures by name, (n, R) each. For a match: ``error`` ‖Φ−Φ0‖²/‖Φ0‖², its root ``root_error``,
            ``distance`` ‖Φ−Φ0‖² and ``code_norm`` ‖Φ0‖²; otherwise ``activation``. With images: ``psnr`` in dB and
            ``ssim``. Always: ``energy`` and its terms.
        curve: list of (pass, {name: (n, R)}) with the error or activation, the energy and its terms.
        converged: bool (n, R); False where the descent diverged, which returns the last good state, or where the
            energy ended no lower than it began.
        remarks: reason why an image has no relative error, n texts; empty where it has one. The ``error`` of such an
            image is NaN; ``nanmean`` leaves it out of a mean.
    """

    reconstructions: Float[Tensor, "image restart channel row column"]
    codes: list[Float[Tensor, "image restart ..."]]
    targets: list[Float[Tensor, "image ..."]]
    metrics: dict[str, Float[Tensor, "image restart"]]
    curve: list[tuple[int, dict[str, Float[Tensor, "image restart"]]]]
    converged: Bool[Tensor, "image restart"]
    remarks: list[str]


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
    progress: bool = False,
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
        progress: bool; True draws a progress bar.

    Returns:
        Pre-images, codes, measures and curves, see :class:`Inverted`.

    Raises:
        InvrepError: the images or an argument are invalid, or Φ cannot be inverted: it is random, its code is not
            finite, or no gradient reaches the images.

    Example:
        >>> found = invrep.invert(images, invrep.representation("hogb"), restarts=5, prior="cvpr15", optim="cvpr15")
        >>> found.reconstructions.shape, found.metrics["error"].mean()
    """
    make = _part("objective", objective, {})
    imagined = is_shape(images)
    images = _imagined(images, make) if imagined else images
    images = as_images(images, phi.color if isinstance(phi, Representation) else None)
    number("restarts", restarts, minimum=1, maximum=MOST_RESTARTS, whole=True)
    phi = as_representation(phi, images.shape[1])
    descent = _part("optim", optim, {} if steps is None else {"steps": steps})
    ids = [_hash(image) for image in images] if ids is None else list(ids)
    if len(ids) != len(images):
        raise InvrepError(f"ids has {len(ids)} names for {len(images)} images; expected one for each.")
    rows = [(k, image, restart) for k, image in enumerate(ids) for restart in range(restarts)]
    size = number("batch_size", batch_size, minimum=1, whole=True)
    bar = Bar(len(rows) * math.prod(images.shape[2:]) * descent.plan(phi)[0], Console(quiet=not progress))
    trial, outcomes, codes = Trial(), [], []
    made_prior = _part("prior", prior, {})
    with bar, trial.undrawn():
        for some in (rows[k : k + size] for k in range(0, len(rows), size)):
            first = some[0][0]
            try:
                inversion = solve(
                    images[first : some[-1][0] + 1],
                    [(k - first, image, restart) for k, image, restart in some],
                    phi=phi,
                    prior=made_prior,
                    descent=descent,
                    objective=make,
                    seed=seed,
                    segment=log_every,
                    trainer={"accelerator": accelerator},
                    callbacks=[bar],
                    trial=trial,
                )
            except UnfitError as error:
                raise _whose(error, some) from error
            with torch.no_grad():
                outcomes.append(outcome_of(inversion, None if imagined else images[[k for k, _, _ in some]]))
                codes.append([code.cpu() for code in inversion.phi(inversion.reconstruction())])
        with torch.no_grad():
            targets = [] if imagined else [inversion.phi(part.to(inversion.device)) for part in images.split(size)]
    remarks = _remarks([remark for outcome in outcomes for remark in outcome.remarks], restarts)
    return _inverted(outcomes, codes, targets, remarks, (len(images), restarts))


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
    outcomes: Sequence[Outcome],
    codes: Sequence[Sequence[Tensor]],
    targets: Sequence[Sequence[Tensor]],
    remarks: list[str],
    shape: tuple[int, int],
) -> Inverted:
    """Concatenate the results of all batches.

    Args:
        outcomes: results of every batch of pre-images.
        codes: codes of every batch of pre-images, a list of (b, …) each.
        targets: codes of every batch of images, a list of (b, …) each.
        remarks: remarks, one for each of the n images.
        shape: numbers of images n and of restarts R.
    """

    def grouped(values: Sequence[Tensor]) -> Tensor:
        groups: Tensor = torch.cat(list(values)).unflatten(0, shape)
        return groups

    return Inverted(
        reconstructions=grouped([outcome.images for outcome in outcomes]),
        codes=[grouped(part) for part in zip(*codes, strict=True)],
        targets=[torch.cat(part).cpu() for part in zip(*targets, strict=True)],
        metrics={name: grouped([outcome.measures[name] for outcome in outcomes]) for name in outcomes[0].measures},
        curve=[
            (at, {name: grouped([terms[name] for terms in batches]) for name in batches[0]})
            for at, batches in _together([outcome.curve for outcome in outcomes])
        ],
        converged=grouped([torch.tensor([why is None for why in outcome.failures]) for outcome in outcomes]),
        remarks=remarks,
    )


def _remarks(said: Sequence[str], restarts: int) -> list[str]:
    """Return why each image has no relative error, an empty text where it has one, and warn once for each reason."""
    remarks = [next(filter(None, some), "") for some in zip(*[iter(said)] * restarts, strict=True)]
    for remark in filter(None, dict.fromkeys(remarks)):
        some = ", ".join(f"images[{k}]" for k, other in enumerate(remarks) if other == remark)
        warnings.warn(f"No relative error has {some}: {remark}.", stacklevel=4)  # the caller of invert()
    return remarks


def _together(curves: Sequence[Curve]) -> Iterator[tuple[int, list[dict[str, Tensor]]]]:
    """Yield each recorded pass with the values of every batch; a batch that ended earlier keeps its final values."""
    axes = [[at for at, _ in curve] for curve in curves]
    for at in sorted(set(chain(*axes))):
        yield at, [curve[bisect_right(axis, at) - 1][1] for axis, curve in zip(axes, curves, strict=True)]


def _part(group: str, given: Any, options: Mapping[str, Any]) -> Any:
    """Return a prior, descent or objective from a preset's name, a config or the part itself.

    Args:
        group: ``objective``, ``prior`` or ``optim``.
        given: name of a preset, config of one, or the part.
        options: values for keys of the preset's config.

    Raises:
        InvrepError: ``given`` is none of these, an option does not exist, or options come with a finished part.
    """
    example, own = PARTS[group]
    wanted = f"a preset's name such as {example!r}, a config of one, or {own}"
    if isinstance(given, str | Mapping):
        config = preset(group, given) if isinstance(given, str) else OmegaConf.create(dict(given))
        _override(config, f"{group}={given}", options)
        made = build(config)
    else:
        made = given
    kind = getattr(made, "func", made)  # the class or function of a partial
    if group != "objective":
        good = isinstance(made, Prior if group == "prior" else Descent)
    elif isinstance(kind, type):
        good = issubclass(kind, Objective)
    else:
        good = callable(kind) and not isinstance(kind, nn.Module)
    check_kind(group, made, good, wanted)
    if made is given and options:
        raise InvrepError("steps is for a preset's name; a Descent has its own.")
    return made


def _override(config: DictConfig, owner: str, options: Mapping[str, Any]) -> None:
    keys = list(map(str, config))  # OmegaConf's "in" is False for a mandatory key without a value
    for key, value in options.items():
        if key not in keys:
            raise InvrepError(f"{owner} has no option {key!r}; {nearest(key, [k for k in keys if k[0] != '_'])}.")
        config[key] = os.fspath(value) if isinstance(value, os.PathLike) else value
    if missing := [key for key in keys if OmegaConf.is_missing(config, key)]:
        raise InvrepError(f"{owner} needs {' and '.join(missing)}; give {', '.join(f'{key}=…' for key in missing)}.")


def _hash(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
