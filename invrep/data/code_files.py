"""Read and write codes: a safetensors file with ``part0``, ``part1``, …, each without the batch dimension."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrep.errors import InvrepError


def save_code(path: str | os.PathLike[str], code: Sequence[Tensor], size: tuple[int, int]) -> None:
    """Write the code of one image.

    Args:
        path: file to write.
        code: parts of the code, (…) each, as a representation returns them for one image.
        size: height and width of the image in pixels, for the message where a code does not fit.
    """
    tensors = {f"part{k}": part.detach().cpu().contiguous() for k, part in enumerate(code)}
    save_file(tensors, path, metadata={"size": f"[{size[0]},{size[1]}]"})


def load_code(path: str | os.PathLike[str]) -> tuple[list[Tensor], str | None]:
    """Return a code's parts, (…) each, and its image's ``[height,width]`` in pixels; None where the file has no size.

    Raises:
        InvrepError: there is no such file, it holds no code, or the code is not finite.
    """
    try:
        with safe_open(_existing(path), "pt") as file:
            names = set(file.keys())
            if not names or names != {f"part{k}" for k in range(len(names))}:
                raise InvrepError(
                    f"The code file {str(path)!r} holds {', '.join(sorted(names)[:5]) or 'nothing'}; expected the "
                    f"tensors part0, part1, …, as save_codes=true writes them."
                )
            parts = [file.get_tensor(f"part{k}") for k in range(len(names))]
            for k, part in enumerate(parts):
                if not bool(part.isfinite().all()):
                    raise InvrepError(f"part{k} of the code file {str(path)!r} holds NaN or infinity; write it anew.")
            return parts, (file.metadata() or {}).get("size")
    except (SafetensorError, OSError) as error:
        raise InvrepError(
            f"The code file {str(path)!r} cannot be read ({str(error).splitlines()[0]}); expected a .safetensors file "
            f"as save_codes=true writes it."
        ) from None


def code_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the height and width in pixels of a code's image; None where the file has no size.

    Raises:
        InvrepError: there is no such file.
    """
    with suppress(SafetensorError, OSError, ValueError), safe_open(_existing(path), "pt") as file:
        height, width = json.loads((file.metadata() or {}).get("size", "[]"))
        if min(int(height), int(width)) > 0:
            return int(height), int(width)
    return None


def code_id(path: str | os.PathLike[str]) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of a file's content.

    Raises:
        InvrepError: there is no such file.
    """
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvrepError(
            f"There is no code file objective.path={path}; a job with save_codes=true writes one for each photo to "
            f"codes/ in its folder."
        )
    return file
