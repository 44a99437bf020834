"""Make the vocabulary codes of conf/rep: bags of words, textons, VLAD, Fisher vectors, sparse codes and LLC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from invrep.representations.base import Representation
from invrep.representations.vocabularies.choosing import Given, choose
from invrep.representations.vocabularies.code import VocabularyCode
from invrep.representations.vocabularies.fisher import Fisher
from invrep.representations.vocabularies.llc import LLC
from invrep.representations.vocabularies.sparse import SparseCodes
from invrep.representations.vocabularies.vlad import VLAD
from invrep.representations.vocabularies.vocabulary import Vocabulary
from invrep.representations.vocabularies.words import BagOfWords
from invrep.stable_names import known_as

# Each function takes:
#   descriptor: representation with positions
#   vocabulary: path of a file, a Vocabulary, or None for the package's
#   words, projection: sizes that the vocabulary must have; None for any
#   unit: whether each descriptor gets unit norm
#   pyramid: cells along a side of each level of a spatial pyramid


def _code(
    name: str,
    kind: str,
    encoder: Callable[[Vocabulary], nn.Module],
    *,
    descriptor: Representation,
    vocabulary: Given = None,
    words: int | None = None,
    projection: int | None = None,
    unit: bool = True,
    pyramid: Sequence[int] = (1,),
    stepwise: bool = False,
) -> VocabularyCode:
    found, source = choose(name, kind, vocabulary, descriptor=descriptor, unit=unit, words=words, projection=projection)
    made = encoder(found)
    return VocabularyCode(
        descriptor, found, made, name=name, unit=unit, levels=pyramid, stepwise=stepwise, source=source
    )


@known_as("bovw")
def bag_of_words(**chain: Any) -> VocabularyCode:
    """Return a bag of visual words: the histogram of nearest words, of sum 1 in every cell (Csurka 2004).

    Args:
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/bovw.yaml has them.
    """
    return _code("bovw", "words", lambda found: BagOfWords(found.tensors["centers"]), stepwise=True, **chain)


@known_as("textons")
def textons(**chain: Any) -> VocabularyCode:
    """Return a histogram of textons: a bag of words of filter responses (Leung & Malik 2001; Varma & Zisserman 2005).

    Args:
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/textons.yaml has them.
    """
    return _code("textons", "words", lambda found: BagOfWords(found.tensors["centers"]), stepwise=True, **chain)


@known_as("vlad")
def vlad(
    *, mass: bool = False, root: bool = False, per_word: bool = False, normalise: bool = True, **chain: Any
) -> VocabularyCode:
    """Return VLAD: sums of residuals to the nearest words (Jégou 2010).

    Args:
        mass: VLFeat's NormalizeMass.
        root: VLFeat's SquareRoot.
        per_word: VLFeat's NormalizeComponents.
        normalise: whether each cell's code gets unit norm; false is VLFeat's Unnormalized.
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/vlad.yaml has them.
    """

    def encoder(found: Vocabulary) -> nn.Module:
        return VLAD(found.tensors["centers"], mass=mass, root=root, per_word=per_word, normalise=normalise)

    return _code("vlad", "words", encoder, **chain)


@known_as("fisher")
def fisher(*, root: bool = True, normalise: bool = True, fast: bool = False, **chain: Any) -> VocabularyCode:
    """Return a Fisher vector: moments of the descriptors under a mixture of Gaussians (Perronnin 2010).

    Args:
        root: VLFeat's SquareRoot.
        normalise: VLFeat's Normalized; with ``root`` it is Improved.
        fast: VLFeat's Fast, where a descriptor belongs to its likeliest Gaussian alone.
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/fisher.yaml has them.
    """

    def encoder(found: Vocabulary) -> nn.Module:
        names = ("means", "variances", "priors")
        return Fisher(*(found.tensors[name] for name in names), root=root, normalise=normalise, fast=fast)

    return _code("fisher", "mixture", encoder, **chain)


@known_as("sparse")
def sparse(*, weight: float = 0.15, normalise: bool = True, **chain: Any) -> VocabularyCode:
    """Return sparse codes, pooled by the greatest absolute value (Yang 2009).

    Args:
        weight: λ of the lasso, above 0.
        normalise: whether the whole pyramid gets unit norm.
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/sparse.yaml has them.
    """

    def encoder(found: Vocabulary) -> nn.Module:
        return SparseCodes(found.tensors["atoms"], weight=weight, normalise=normalise)

    return _code("sparse", "dictionary", encoder, **chain)


@known_as("llc")
def llc(
    *, neighbours: int = 5, ridge: float = 1e-4, absolute: bool = False, normalise: bool = True, **chain: Any
) -> VocabularyCode:
    """Return locality-constrained linear codes, pooled by the greatest value (Wang 2010).

    Args:
        neighbours: number of nearest words for a descriptor.
        ridge: ridge of the weights' equations, over the trace of their matrix.
        absolute: whether the pool takes the greatest absolute value instead.
        normalise: whether the whole pyramid gets unit norm.
        chain: descriptor, vocabulary, words, projection, unit and pyramid, as conf/rep/llc.yaml has them.
    """

    def encoder(found: Vocabulary) -> nn.Module:
        centers = found.tensors["centers"]
        return LLC(centers, neighbours=neighbours, ridge=ridge, absolute=absolute, normalise=normalise)

    return _code("llc", "words", encoder, **chain)
