"""Write the files of vocabularies and paired dictionaries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from invrep.errors import InvrepError


def write(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], about: Mapping[str, str]) -> None:
    """Write tensors to a .safetensors file, whole or not at all.

    Args:
        tensors: contiguous tensors by name.
        path: path of the file.
        about: metadata of the file.

    Raises:
        InvrepError: the file cannot be written.
    """
    file = Path(path)
    place = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), place, metadata=dict(about))
        os.replace(place, file)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by its own exception
        reason = getattr(error, "strerror", None) or str(error)
        raise InvrepError(f"{file} cannot be written ({reason}); choose another file with output=FILE.") from None
    finally:
        place.unlink(missing_ok=True)
