"""Say which codes have a vocabulary, and what it is."""

from __future__ import annotations

from dataclasses import dataclass

from invrep.errors import InvrepError


@dataclass(frozen=True)
class Needs:
    """Say what vocabulary a code takes.

    Attributes:
        kind: ``words``, ``mixture`` or ``dictionary``.
        words: usual number of words, Gaussians or atoms.
        projection: usual number of principal components; None for the descriptors themselves.
    """

    kind: str
    words: int
    projection: int | None = None


CODES = {
    "bovw": Needs("words", 1024),
    "textons": Needs("words", 512),
    "vlad": Needs("words", 256),
    "fisher": Needs("mixture", 256, 64),
    "sparse": Needs("dictionary", 256),
    "llc": Needs("words", 1024),
}


def needs_of(code: str) -> Needs:
    """Return what vocabulary a code takes.

    Args:
        code: name of a file in ``conf/rep``.

    Raises:
        InvrepError: the code has no vocabulary.
    """
    if code not in CODES:
        raise InvrepError(f"rep={code} has no vocabulary; expected one of rep={', '.join(CODES)}.")
    return CODES[code]
