"""The same from Python: a representation by name, and the inversion of tensors."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from invrep.inversion.outcome import Curve, Outcome, outcome_of
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

# group → a preset of it, and what may be given in a preset's place
PARTS = {
    "objective": ("match", "what makes an Objective from a code: a class, a partial of one, or a function"),
    "prior": ("natural", "a Prior"),
    "optim": ("adam", "a Descent"),
}


def representation(name: str, *, layer: Any = None, seed: int = 0, **options: Any) -> Representation:
    """Return a representation by the name of its config, as a module on (B, C, H, W) images in [0, 1].

    Args:
        name: a file of ``conf/rep``: ``hog``, ``hogb``, ``dsift``, ``alexnet``, ``vgg16``, …
        layer: of a network: an alias such as ``relu5`` or ``conv1_1``, or a module's path.
        seed: of ``weights="random"``.
        options: further keys of that config, for example ``weights`` or ``cell``.

    Returns:
        Φ, which maps images to a list of tensors (one for a single layer), on the CPU, in float32.

    Raises:
        InvrepError: there is no such name, layer, option or weights file; weights cannot be had.

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
    """What :func:`invert` returns, for n images with R restarts each.

    Attributes:
        reconstructions: (n, R, C, H, W) on the CPU, in the images' units, 0 to 1, unclipped.
        codes: Φ of the reconstructions, a list of (n, R, …).
        targets: Φ of the images, a list of (n, …); empty where only their shape was given.
        metrics: name → (n, R): of a match ``error`` ‖Φ−Φ0‖²/‖Φ0‖², ``root_error``, ``distance`` and ``code_norm``,
            otherwise ``activation``; ``psnr`` and ``ssim`` where there are images; ``energy`` and its terms.
        curve: (pass, {name: (n, R)}) of the error or the activation, the energy and its terms.
        remarks: why an image has no relative error, one text for each of the n; blank for one that has. Its ``error``
            is NaN, and a mean should leave it out (``nanmean``).
        converged: (n, R) bool; False where the descent diverged, and its last good state is given, or ended with no
            lower energy than it began with.
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
    """Find images whose code under ``phi`` is that of the given images, or does what another objective asks for.

    Each pre-image is found as if it were alone: its start depends on the seed, its id and the restart, not on its
    place.

    Args:
        images: (n, C, H, W) in [0, 1], or one image (C, H, W), as a tensor or a NumPy array of floating-point numbers;
            a Pillow image; or a list of images of one size. float64 is computed in float64, all else in float32;
            integers are refused, for only a file says what their white is. Where the objective needs no image, the
            shape (C, H, W) of the one that is sought is enough.
        phi: a :class:`Representation`; any module from (B, C, H, W) in [0, 1], with as many channels as the images
            have; or a function, such as ``model.encode_image``. The code is every floating-point or complex tensor in
            what it returns: a tensor, a list, a dictionary, a dataclass or several of these.
        objective: a preset's name (``match``, ``caricature``), a config of one, or what makes an :class:`Objective`
            from a code: ``partial(Maximise, channels=281)``, ``partial(MatchFile, path="a.safetensors")``, or any
            function (code, phi=Φ, shape=(C, H, W)) such as one that returns ``Match`` of a code of yours.
        restarts: pre-images of each image.
        prior: a preset's name (``natural``, ``cvpr15``, ``none``), a config of one, or a :class:`Prior`.
        optim: a preset's name (``adam``, ``cvpr15``), a config of one, or a :class:`Descent`.
        steps: passes, where the preset's number is not wanted.
        seed: of the start noise.
        ids: a name for each image, of which its noise depends; by default a hash of its values.
        log_every: passes between two points of the curve.
        batch_size: pre-images that are computed together; fewer take less memory.
        accelerator: Lightning's, such as ``cpu`` or ``gpu``.
        progress: whether to draw a bar.

    Raises:
        InvrepError: the images or an argument do not fit, or Φ cannot be inverted: it is random, its code is not
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
    """Return an image of a shape, for an objective that needs none."""
    if getattr(getattr(objective, "func", objective), "needs_photo", False):
        raise InvrepError(f"images is the shape {tuple(shape)}, but this objective needs images.")
    if len(shape) != 3:
        raise InvrepError(f"images is the shape {tuple(shape)}; expected (channels, height, width).")
    return torch.full((1, *(number("images", side, minimum=1, whole=True) for side in shape)), 0.5)


def _whose(error: UnfitError, rows: Sequence[tuple[int, str, int]]) -> UnfitError:
    """Return the error with the images that it is about."""
    whose = ", ".join(f"images[{k}]" for k in sorted({rows[place][0] for place in error.rows}))
    return UnfitError(f"{whose}: {error}" if whose else str(error))


def _inverted(
    outcomes: Sequence[Outcome],
    codes: Sequence[Sequence[Tensor]],
    targets: Sequence[Sequence[Tensor]],
    remarks: list[str],
    shape: tuple[int, int],
) -> Inverted:
    """Put batches together.

    Args:
        outcomes: of every batch.
        codes: of every batch the codes of its pre-images.
        targets: of every batch of images their codes.
        remarks: one for each image.
        shape: numbers of images and of restarts.
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
    """Return why each image has no relative error, blank for one that has, and warn of those."""
    remarks = [next(filter(None, some), "") for some in zip(*[iter(said)] * restarts, strict=True)]
    for remark in filter(None, dict.fromkeys(remarks)):
        some = ", ".join(f"images[{k}]" for k, other in enumerate(remarks) if other == remark)
        warnings.warn(f"No relative error has {some}: {remark}.", stacklevel=4)  # past invert and its decorator
    return remarks


def _together(curves: Sequence[Curve]) -> Iterator[tuple[int, list[dict[str, Tensor]]]]:
    """Yield each recorded pass with every batch's values; a batch that has ended before keeps those of its end."""
    for at in sorted({at for curve in curves for at, _ in curve}):
        yield at, [[terms for passes, terms in curve if passes <= at][-1] for curve in curves]


def _part(group: str, given: Any, options: Mapping[str, Any]) -> Any:
    """Return a prior, a descent or an objective from a preset's name, a config or itself.

    Raises:
        InvrepError: it is a part of another kind, or no part.
    """
    example, own = PARTS[group]
    wanted = f"a preset's name such as {example!r}, a config of one, or {own}"
    if isinstance(given, str | Mapping):
        config = preset(group, given) if isinstance(given, str) else OmegaConf.create(dict(given))
        _override(config, f"{group}={given}", options)
        made = build(config)
    else:
        made = given
    kind = getattr(made, "func", made)  # of a partial
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
    keys = list(map(str, config))  # "in" is False for what has to be given
    for key, value in options.items():
        if key not in keys:
            raise InvrepError(f"{owner} has no option {key!r}; {nearest(key, [k for k in keys if k[0] != '_'])}.")
        config[key] = os.fspath(value) if isinstance(value, os.PathLike) else value
    if missing := [key for key in keys if OmegaConf.is_missing(config, key)]:
        raise InvrepError(f"{owner} needs {' and '.join(missing)}; give {', '.join(f'{key}=…' for key in missing)}.")


def _hash(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
