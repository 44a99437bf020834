"""Assemble a job's parts from its config."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from torch import Tensor

from invrep.data.batching import Size, ahead
from invrep.data.code_files import code_id, code_size
from invrep.data.display import display_for
from invrep.data.photo import NO_PHOTO, Photo, Photos, alone, content_of
from invrep.data.photo_reading import in_a_sentence, read, size_of
from invrep.data.photo_sources import find
from invrep.errors import InvrepError, out_of_memory
from invrep.evaluation.top1_class import Classifier
from invrep.inversion.compute import Compute
from invrep.inversion.trial import Trial
from invrep.jobs.baseline import assemble_baseline
from invrep.jobs.identity import baseline_name, result_name
from invrep.jobs.ranks import gpus
from invrep.messages import layer_name
from invrep.objectives.base import Objective
from invrep.optim.descent import Descent
from invrep.presets import build
from invrep.priors.prior import Prior
from invrep.representations.base import Representation
from invrep.results.store import Results
from invrep.validation import check_kind, number

GREY = 128 / 255


class Read(NamedTuple):
    """Hold a photo that was read.

    Attributes:
        pixels: pixels (C, H, W) in [0, 1].
        content: hash of the file's content, see :func:`invrep.data.photo.content_of`; empty without a photo.
    """

    pixels: Tensor
    content: str


@dataclass
class Job:
    """Hold the parts of a job.

    Attributes:
        config: composed config, with automatic values of ``data`` and ``display`` filled in.
        photos: photos of the job, by their place.
        phi: representation Φ, private to the job.
        objective: class of the objective with its settings; its arguments are a code, ``phi`` and ``shape``.
        prior: preset of priors.
        descent: recipe of descent.
        results: folder of the job.
        console: console for messages to the user.
        classifier: classifier that compares the top-1 classes of photo and pre-image.
        compute: settings of the passes; all batches share them, so that each shape is compiled once.
        baseline: function from codes to pictures, which takes the place of the descent; None: a descent.
        failures: sentence about each photo that failed, by the photo's id.
        trial: record of the checks of Φ.
    """

    config: DictConfig
    photos: Photos
    phi: Representation
    objective: partial[Objective]
    prior: Prior
    descent: Descent
    results: Results
    console: Console
    classifier: Classifier
    compute: Compute
    baseline: Callable[..., Tensor] | None = None
    failures: dict[str, str] = field(default_factory=dict)
    trial: Trial = field(default_factory=Trial)

    @property
    def kind(self) -> type[Objective]:
        """Return the class of the objective."""
        return cast("type[Objective]", self.objective.func)

    @property
    def title(self) -> str:
        """Return the name of the representation, of its layer and of the baseline."""
        names = (self.config.name, layer_name(self.config.layer), baseline_name(self.config))
        return " ".join(filter(None, names))

    @property
    def passes(self) -> int:
        """Return the number of passes of each pre-image; 0 for a baseline."""
        return self.descent.plan(self.phi)[0] if self.baseline is None else 0

    @property
    def channels(self) -> int:
        """Return the number of channels of the images: 3 for RGB, 1 for grey."""
        return 3 if self.config.data.color == "rgb" else 1

    def tell(self, text: str) -> None:
        """Print a sentence for the user; square brackets are text, not markup."""
        self.console.print(text, soft_wrap=True, markup=False)

    def size(self, photo: Photo) -> Size | None:
        """Return the height and width, in pixels, of a photo after :meth:`read`.

        Returns:
            The size; None for an unreadable photo, whose reason is noted in ``failures``.
        """
        data = self.config.data
        if photo.open is None:
            return tuple(data.size)
        if data.resize != "none" and self.phi.input_size is not None:
            return self.phi.input_size.crop
        try:
            with in_a_sentence(photo.name), photo.open() as file:
                return size_of(file, photo.name)
        except InvrepError as error:
            self.failures[photo.id] = str(error)
            return None

    def read(self, photo: Photo) -> Read | None:
        """Return a photo's pixels and content hash; for ``data=none``, mid-grey pixels.

        Returns:
            The photo; None for an unreadable one, whose reason is noted in ``failures``.
        """
        data, dtype = self.config.data, getattr(torch, self.config.dtype)
        if photo.open is None:
            return Read(torch.full((self.channels, *data.size), GREY, dtype=dtype), "")
        try:
            file = photo.fetch()
            pixels = read(
                io.BytesIO(file),
                color=data.color,
                resize=data.resize,
                input_size=self.phi.input_size,
                values=data.get("range") and tuple(data.range),
                name=photo.name,
            )
        except InvrepError as error:
            self.failures[photo.id] = str(error)
            return None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self.failures[photo.id] = f"{photo.name} does not fit into memory; make it smaller first."
            return None
        return Read(pixels.to(dtype), content_of(file))

    def read_ahead(self, places: Iterable[int], most: int) -> Generator[tuple[int, Read | None], None, None]:
        """Yield each place with the result of :meth:`read`, while threads read the next photos.

        Args:
            places: places of photos in the job.
            most: greatest number of photos read ahead.
        """
        return ahead(lambda place: (place, self.read(self.photos[place])), places, most)

    @torch.no_grad()
    def asked_of(self, pixels: Tensor) -> Objective:
        """Return the objective for one photo's code.

        Args:
            pixels: pixels (C, H, W) in [0, 1].
        """
        code = self.phi(pixels[None].to(self.phi.mean.device))
        return self.objective(code, phi=self.phi, shape=tuple(pixels.shape))


def assemble(config: DictConfig, console: Console, photos: Photos | None = None) -> Job:
    """Return the parts of a job.

    Args:
        config: composed and checked config; automatic values of ``data`` and ``display`` are filled in, in place.
        console: console for messages to the user.
        photos: photos of the job; None: the photos at ``data.path``.

    Raises:
        InvrepError: a part cannot be built, or parts do not fit together.
    """
    data = config.data
    objective = build(config.objective)
    kind = getattr(objective, "func", objective)
    is_objective = isinstance(kind, type) and issubclass(kind, Objective) and kind is not objective
    check_kind("objective", kind, is_objective, "a class of objectives, with _partial_: true")
    if "path" in data:
        if photos is None:
            photos = find(data.path, data.limit, root=data.get("root"), split=data.get("split"))
        if not kind.needs_photo and kind.shows == "activation":
            raise InvrepError(f"The objective {kind.__name__} has no use for a photo; add data=none.")
    elif kind.needs_photo:
        raise InvrepError(f"The objective {kind.__name__} needs a photo; leave data=none out, or give data.path.")
    else:
        photos = alone(NO_PHOTO)
    codes = config.objective.get("path") or []
    codes = [codes] if isinstance(codes, str) else list(codes)
    ids = [code_id(path) for path in codes]
    phi = build(config.rep)
    check_kind(
        f"rep={config.name}", phi, isinstance(phi, Representation), "a Representation; of a module take rep=module"
    )
    phi = phi.private(dtype=getattr(torch, config.dtype))
    with open_dict(config):
        data.color = data.color or phi.color
        config.optim.basis = config.basis or config.optim.basis
        config.display = config.display or display_for(phi)
        if "path" in data:
            data.resize = data.resize or ("model" if phi.input_size else "none")
        else:
            data.size = _size(data.size, codes, phi, config.name)
    if (3 if data.color == "rgb" else 1) not in phi.channels:
        wanted = "gray" if phi.channels == (1,) else "rgb"
        raise InvrepError(f"data.color={data.color} does not fit rep={config.name}: expected {wanted}.")
    descent = build(config.optim)
    check_kind("optim", descent, isinstance(descent, Descent), "a Descent")
    descent.make_basis((3 if data.color == "rgb" else 1, 1, 1), phi)
    prior = build(config.prior)
    check_kind("prior", prior, isinstance(prior, Prior), "a Prior")
    baseline, dictionary = assemble_baseline(config, kind, phi)
    results = Results(Path(config.output) / result_name(config, phi.weights_id, ids, dictionary))
    compute = build(config.compute)
    check_kind("compute", compute, isinstance(compute, Compute), "a Compute")
    phi = compute.lay_out(phi, torch.device("cuda" if gpus(config.trainer.accelerator) else "cpu"))
    parts = (photos, phi, objective, prior, descent, results, console, Classifier(phi))
    return Job(config, *parts, compute, baseline)


def _size(given: Sequence[int] | None, codes: Sequence[str], phi: Representation, name: str) -> list[int]:
    """Return the height and width, in pixels, of images for ``data=none``.

    Args:
        given: value of ``data.size``; None: the size of the codes' images, else the network's published size.
        codes: paths of the code files.
        phi: representation Φ.
        name: name of the representation, for messages.

    Raises:
        InvrepError: the size is invalid, or none can be derived.
    """
    sizes = {code_size(path) for path in codes}
    if given is None and len(sizes) > 1:
        named = ", ".join("unknown" if size is None else f"[{size[0]},{size[1]}]" for size in sorted(sizes, key=str))
        raise InvrepError(
            f"The codes in objective.path are of images of several sizes, {named}; give data.size=[HEIGHT,WIDTH]."
        )
    given = next(iter(sizes), None) if given is None else given
    if given is None:
        if phi.input_size is None:
            raise InvrepError(
                f"data.size is missing: rep={name} takes images of any size; give data.size=[HEIGHT,WIDTH]."
            )
        given = phi.input_size.crop
    if not (OmegaConf.is_list(given) or isinstance(given, list | tuple)) or len(given) != 2:
        raise InvrepError(f"data.size={given} is not valid: expected [HEIGHT,WIDTH] in pixels or null.")
    return [number("data.size", side, minimum=1, whole=True) for side in given]
