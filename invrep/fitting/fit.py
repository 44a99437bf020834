"""Fit a vocabulary to photos: a sample of their descriptors, a projection, and words, a mixture or a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invrep.errors import InvrepError
from invrep.fitting.clustering import fit_words
from invrep.fitting.dictionary import fit_dictionary
from invrep.fitting.extra import scikit_learn
from invrep.fitting.gathering import SUFFIX, Progress, Source, gather, identity
from invrep.fitting.mixture import fit_mixture
from invrep.fitting.projection import fit_projection
from invrep.fitting.sample import Sample
from invrep.representations.vocabularies.descriptors import describe
from invrep.representations.vocabularies.vocabulary import Vocabulary, save

PER_WORD, LEAST = 100, 100_000  # descriptors in the sample: for each word, and in all
WORDS = (16, 4096)  # least and greatest number of words
Tell = Callable[[str, int, int], None]  # of what is counted, how many are done, and how many there are


def quiet(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Recipe:
    """Say what a code's vocabulary is.

    Attributes:
        kind: ``words``, ``mixture`` or ``dictionary``.
        words: number K of words, Gaussians or atoms.
        projection: number of principal components; 0 for no projection, None for the usual one.
        usual: usual number of principal components, where descriptors have more values; None for no projection.
        weight: λ of a dictionary's sparse codes.
        seed: seed of the sample and of the fit.
    """

    kind: str
    words: int
    projection: int | None = None
    usual: int | None = None
    weight: float = 0.15
    seed: int = 0


def fit(source: Source, recipe: Recipe, output: Path, tell: Tell = quiet) -> tuple[Vocabulary, dict[str, str]]:
    """Fit a vocabulary to photos, and write it.

    At most max(100 000, 100·K) descriptors are held in memory, a uniform sample of all. Their number does not grow with
    that of the photos. The sample is kept beside the output until the end, so that an interrupted fit resumes; the
    result of a seed is the same on one machine, interrupted or not.

    Args:
        source: photos and descriptor.
        recipe: kind and size of the vocabulary.
        output: file to write.
        tell: function of what is counted, ``photos`` or ``steps``, how many are done, and how many there are.

    Returns:
        The vocabulary, and the reason for each photo that is left out, by the photo's id.

    Raises:
        InvrepError: scikit-learn is not installed, no photo can be used, there are fewer descriptors than words, or the
            disk refuses to write.
    """
    scikit_learn("cluster")  # before an hour of work
    sample = Sample(max(LEAST, PER_WORD * recipe.words), recipe.seed)
    described = describe(source.descriptor)
    progress = Progress(output.with_name(output.name + SUFFIX), identity(source, sample, described))
    progress.resume(sample)
    try:
        gather(source, sample, progress, tell)
    except InvrepError:
        if not len(sample):  # nothing is worth keeping for another try
            progress.path.unlink(missing_ok=True)
        raise
    rows = sample.rows()
    used = len(source.photos) - len(progress.left_out)
    different = len(np.unique(rows, axis=0)) if len(rows) < LEAST else len(rows)
    if different < recipe.words:
        progress.path.unlink(missing_ok=True)
        raise InvrepError(
            f"rep.words={recipe.words} is more than the {different} different descriptors of {used} photos; give fewer "
            f"words or more photos."
        )
    vocabulary = Vocabulary(
        recipe.kind,
        _fitted(rows, recipe, tell),
        {
            "descriptor": described,
            "unit": source.unit,
            "color": source.color,
            "resize": source.resize,
            "seed": recipe.seed,
            "photos": used,
            "descriptors": sample.seen,
            "sampled": len(rows),
        },
    )
    save(vocabulary, output)
    progress.path.unlink(missing_ok=True)
    return vocabulary, progress.left_out


def _fitted(rows: np.ndarray, recipe: Recipe, tell: Tell) -> dict[str, Tensor]:
    """Return the tensors of a vocabulary fitted to a sample, (n, D) float32."""

    def steps(done: int, total: int) -> None:
        tell("steps", done, total)

    tensors: dict[str, np.ndarray] = {}
    usual = recipe.usual if recipe.usual is not None and rows.shape[1] > recipe.usual else None
    if size := usual if recipe.projection is None else recipe.projection:
        mean, basis = fit_projection(rows, size)
        tensors |= {"pca_mean": mean, "pca_basis": basis}
        rows = (rows - mean) @ basis.T
    if recipe.kind == "words":
        tensors["centers"] = fit_words(rows, recipe.words, recipe.seed, steps)
    elif recipe.kind == "dictionary":
        tensors["atoms"] = fit_dictionary(rows, recipe.words, recipe.seed, recipe.weight, steps)
    else:
        mixture = fit_mixture(rows, recipe.words, recipe.seed, steps)
        tensors |= {name: getattr(mixture, name).numpy() for name in ("means", "variances", "priors")}
    return {name: torch.from_numpy(values).float().contiguous() for name, values in tensors.items()}
