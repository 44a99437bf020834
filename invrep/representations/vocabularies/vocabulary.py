"""Read and write vocabularies: the words, the mixture or the dictionary of a code, with the settings of its fit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from invrep.errors import InvrepError, VocabularyError
from invrep.representations.vocabularies.tensor_files import write

VERSION = 1  # of the file's layout
KEY = "invrep.vocabulary"  # of the file's metadata
SUFFIX = ".safetensors"
SHIPPED = Path(__file__).parent / "shipped"
# kind → tensors and their shapes, in letters: K words, D values of a descriptor (of its projection, where one is there)
SHAPES = {
    "words": {"centers": "KD"},
    "mixture": {"means": "KD", "variances": "KD", "priors": "K"},
    "dictionary": {"atoms": "KD"},
}
PROJECTION = {"pca_mean": "F", "pca_basis": "DF"}  # F values before the projection, D after it
FIT = "fit one with: invrep vocabulary rep=NAME data.path=photos/ output=words.safetensors"


@dataclass(frozen=True)
class Vocabulary:
    """Hold a fitted vocabulary.

    Attributes:
        kind: ``words`` of a k-means (bovw, vlad, llc), ``mixture`` of Gaussians (fisher), ``dictionary`` (sparse).
        tensors: float32 tensors by name, on the CPU. ``words``: ``centers`` (K, D). ``mixture``: ``means`` (K, D),
            ``variances`` (K, D) and ``priors`` (K,). ``dictionary``: ``atoms`` (K, D), of unit norm. A projection from
            F values adds ``pca_mean`` (F,) and ``pca_basis`` (D, F).
        settings: settings of the fit, plain values that JSON can hold. The code checks ``descriptor`` (what
            :func:`~invrep.representations.vocabularies.descriptors.describe` returns), ``unit`` (bool) and ``color``
            (``gray`` or ``rgb``). Others, such as ``seed`` and ``photos``, are a record.

    Raises:
        InvrepError: a tensor is missing, has another shape, or holds a value that the kind cannot have.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise InvrepError(f"A vocabulary of the kind {self.kind!r} is unknown; expected {', '.join(SHAPES)}.")
        projects = bool(PROJECTION.keys() & self.tensors.keys())
        wanted = SHAPES[self.kind] | (PROJECTION if projects else {})
        if self.tensors.keys() != wanted.keys():
            raise InvrepError(
                f"A vocabulary of the kind {self.kind} holds {', '.join(wanted)}, not {', '.join(self.tensors)}."
            )
        sides: dict[str, int] = {}
        for name, letters in wanted.items():
            tensor = self.tensors[name]
            if tensor.ndim != len(letters) or not all(
                side > 0 and sides.setdefault(letter, side) == side
                for letter, side in zip(letters, tensor.shape, strict=True)
            ):
                raise InvrepError(f"The vocabulary's {name} has the shape {tuple(tensor.shape)}, which does not fit.")
            if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
                raise InvrepError(f"The vocabulary's {name} must hold finite float32 values.")
        if self.kind == "mixture" and (self.tensors["variances"].min() <= 0 or self.tensors["priors"].min() < 0):
            raise InvrepError("The vocabulary's variances must be above 0, and its priors at least 0.")

    @property
    def words(self) -> int:
        """Return K, the number of words, Gaussians or atoms."""
        return len(self.tensors[next(iter(SHAPES[self.kind]))])

    @cached_property
    def id(self) -> str:
        """Return twelve hexadecimal digits that name the content: kind, tensors and settings, not the file."""
        digest = hashlib.sha256(_text(self).encode())
        for name in sorted(self.tensors):
            digest.update(f"{name}{tuple(self.tensors[name].shape)}".encode())
            digest.update(self.tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def save(vocabulary: Vocabulary, path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write a vocabulary to a .safetensors file, whole or not at all.

    Args:
        vocabulary: vocabulary to write.
        path: path of the file.
        half: bool; whether to store 16 bits of each value, which must be all that it has.

    Raises:
        InvrepError: the file cannot be written.
    """
    tensors = {name: (tensor.half() if half else tensor).contiguous() for name, tensor in vocabulary.tensors.items()}
    write(tensors, path, {KEY: _text(vocabulary)})


def load(path: str | os.PathLike[str]) -> Vocabulary:
    """Read a vocabulary from a file of :func:`save`.

    Raises:
        VocabularyError: there is no such file.
        InvrepError: it is cut short, or it is no vocabulary.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise VocabularyError(f"There is no vocabulary {str(path)!r}; {FIT}.")
    try:
        with safe_open(file, framework="pt") as opened:
            about = (opened.metadata() or {}).get(KEY)
            tensors = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118, no mapping
    except SafetensorError:
        state = "is cut short or damaged" if file.suffix == SUFFIX else "is no .safetensors file"
        raise InvrepError(f"The vocabulary {str(path)!r} {state}; {FIT}.") from None
    except OSError as error:
        raise InvrepError(f"The vocabulary {str(path)!r} cannot be read ({error.strerror}).") from None
    if about is None:
        raise InvrepError(f"{str(path)!r} holds tensors but is no vocabulary of invrep; {FIT}.")
    known = json.loads(about)
    if known["version"] != VERSION:
        raise InvrepError(
            f"The vocabulary {str(path)!r} has the layout {known['version']}, and this invrep reads {VERSION}; {FIT}."
        )
    return Vocabulary(known["kind"], tensors, known["settings"])


def shipped(name: str) -> Vocabulary | None:
    """Return the vocabulary that the package has for a code, such as ``fisher``; None if it has none."""
    path = SHIPPED / f"{name}{SUFFIX}"
    return load(path) if path.is_file() else None


def _text(vocabulary: Vocabulary) -> str:
    about = {"version": VERSION, "kind": vocabulary.kind, "settings": dict(vocabulary.settings)}
    return json.dumps(about, sort_keys=True)
