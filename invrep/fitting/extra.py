"""Import scikit-learn, which only fitting needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from invrep.errors import InvrepError


def scikit_learn(module: str) -> Any:
    """Return a module of scikit-learn.

    Args:
        module: name of the module, such as ``cluster``.

    Raises:
        InvrepError: scikit-learn is not installed.
    """
    try:
        return import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise InvrepError(
            "A vocabulary is fitted by scikit-learn, which is not installed: pip install 'invrep[vocabulary]'."
        ) from None
