"""Small vocabularies of dense SIFT or MR8, made of a bundled photo's descriptors without a fit."""

from functools import cache

import torch

from invrep.api import representation
from invrep.data.photo_reading import bundled, read
from invrep.representations.vocabularies.descriptors import describe, rows_of, unit
from invrep.representations.vocabularies.vocabulary import Vocabulary

KINDS = {"bovw": "words", "vlad": "words", "llc": "words", "fisher": "mixture", "sparse": "dictionary"}


@cache
def small(kind: str, words: int = 12, descriptor: str = "dsift") -> Vocabulary:
    """Return a vocabulary of a kind, for ``dsift``, or of words for ``mr8``."""
    phi, scaled = representation(descriptor), descriptor == "dsift"
    photo = read(bundled("astronaut"), color="gray")[None, :, 60:160, 60:160]
    generator = torch.Generator().manual_seed(0)
    rows = rows_of(phi(photo), phi).values[0]
    rows = unit(rows) if scaled else rows
    rows = rows[torch.randperm(len(rows), generator=generator)]
    tensors = {"centers": rows[:words]}
    if kind == "dictionary":
        tensors = {"atoms": rows[:words]}
    if kind == "mixture":
        mean = rows.mean(0)
        basis = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:10]
        projected = (rows - mean) @ basis.T
        variances = projected.var(0).expand(words, -1) / 2
        priors = torch.linspace(1, 2, words)
        tensors = {"means": projected[:words], "variances": variances, "priors": priors / priors.sum()}
        tensors |= {"pca_mean": mean, "pca_basis": basis}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return Vocabulary(kind, tensors, {"descriptor": describe(phi), "unit": scaled, "color": "gray"})
