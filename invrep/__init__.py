"""Invert image representations under natural-image priors, to see what they keep of a photo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invrep.api import Certificates, Inverted, certify, fit_vocabulary, invert, load, representation
    from invrep.errors import InvrepError

_API = ("Certificates", "Inverted", "certify", "fit_vocabulary", "invert", "load", "representation")
__all__ = [
    "Certificates",
    "Inverted",
    "InvrepError",
    "__version__",
    "certify",
    "fit_vocabulary",
    "invert",
    "load",
    "representation",
]
_HOMES = dict.fromkeys(_API, "invrep.api")
_HOMES |= {"InvrepError": "invrep.errors"}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, since importing torch takes seconds."""
    if name == "__version__":
        from importlib.metadata import version

        return version("invrep")
    if name in ("objectives", "optim", "priors", "baselines"):  # packages with public classes
        return import_module(f"invrep.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'invrep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
