"""Choose the vocabulary of a code, and check that it was fitted for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.vocabularies.descriptors import describe
from invrep.representations.vocabularies.vocabulary import Vocabulary, load, shipped
from invrep.validation import check_kind, number

Given = str | os.PathLike[str] | Vocabulary | None


def choose(
    name: str,
    kind: str,
    given: Given,
    *,
    descriptor: Representation,
    unit: bool,
    words: int | None = None,
    projection: int | None = None,
) -> tuple[Vocabulary, str]:
    """Return the vocabulary of a code, and how messages name it.

    Args:
        name: name of the code, such as ``fisher``.
        kind: kind of vocabulary that the code needs.
        given: path of a file, or a vocabulary; None for the one that the package has for ``name``.
        descriptor: representation that gives the code's descriptors.
        unit: whether the code divides descriptors by their norms.
        words: number of words that the vocabulary must have; None for any.
        projection: number of principal components that the vocabulary must have; None for any.

    Raises:
        InvrepError: there is no such vocabulary, or it was fitted for another code, descriptor or size.
    """
    found = shipped(name) if given is None else given if isinstance(given, Vocabulary) else load(given)
    about = describe(descriptor)
    source = f"The package's vocabulary of {name}" if given is None else "The vocabulary"
    if isinstance(given, str | os.PathLike):
        source = f"The vocabulary {str(given)!r}"
    mend = (
        f"fit another: invrep vocabulary rep={name}{_typed(about)} data.path=photos/ output=words.safetensors, then "
        f"rep.vocabulary=words.safetensors"
    )
    if found is None:
        raise InvrepError(f"The package has no vocabulary of {name}; {mend}.")
    if found.kind != kind:
        raise InvrepError(f"{source} holds {_KINDS[found.kind]}, and rep={name} needs {_KINDS[kind]}; {mend}.")
    fitted = found.settings.get("descriptor")
    if fitted is not None and _meaning(fitted, descriptor) != _meaning(about, descriptor):
        raise InvrepError(
            f"{source} has words of {_words(fitted)}, but rep.descriptor is {_words(about)}; give"
            f"{_typed(fitted, arguments=True)}, or {mend}."
        )
    if found.settings.get("unit", unit) != unit:
        lengths = {True: "of unit norm", False: "as they are"}
        raise InvrepError(
            f"{source} has words of descriptors {lengths[not unit]}, but rep.unit={str(unit).lower()} takes them "
            f"{lengths[unit]}; set rep.unit={str(not unit).lower()}."
        )
    if words is not None and number("rep.words", words, minimum=1, whole=True, word="null") != found.words:
        raise InvrepError(f"{source} has {found.words} words, not rep.words={words}; leave rep.words out, or {mend}.")
    if projection is not None:
        basis = found.tensors.get("pca_basis")
        size = 0 if basis is None else len(basis)
        if number("rep.projection", projection, minimum=0, whole=True, word="null") != size:
            raise InvrepError(
                f"{source} projects onto {size} components, not rep.projection={projection}; leave rep.projection out, "
                f"or {mend}."
            )
    check_kind("rep.descriptor", descriptor, isinstance(descriptor, Representation), "a Representation")
    return found, source


_KINDS = {"words": "words of a k-means", "mixture": "a mixture of Gaussians", "dictionary": "a dictionary of atoms"}


def _meaning(about: Mapping[str, Any], descriptor: Representation) -> dict[str, Any]:
    """Return a description without the arguments that only place descriptors."""
    kept = [each for each in about["arguments"].split(", ") if each.partition("=")[0] not in descriptor.placing]
    return {**about, "arguments": kept}


def _words(about: Mapping[str, Any]) -> str:
    inside = ", ".join(str(about[key]) for key in ("arguments", "layers", "weights") if about.get(key))
    return f"{about['name']} ({inside})" if inside else str(about["name"])


def _typed(about: Mapping[str, Any], *, arguments: bool = False) -> str:
    """Return a descriptor as the command line takes it, with the arguments of a representation without layers."""
    layer = f" rep.descriptor.layer={about['layers']}" if about["layers"] else ""
    settings = filter(None, about["arguments"].split(", ") if arguments else ())
    given = "".join(f" rep.descriptor.{each.replace('True', 'true').replace('False', 'false')}" for each in settings)
    return f" rep.descriptor={about['name']}{layer}{given}"
