"""Read results back: what :meth:`Inverted.save` wrote, or the folder of a job."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from torch import Tensor

from invrep.api.inverted import Inverted
from invrep.api.saving import FILE, FORMAT, TEXTS
from invrep.data.photo_reading import read
from invrep.errors import InvrepError
from invrep.results.rows import FIRST
from invrep.results.store import Results


def load(folder: str | os.PathLike[str]) -> Inverted:
    """Read a result from the folder that :meth:`Inverted.save` or the command ``invrep`` wrote.

    Args:
        folder: path of the folder. Of a job, the images are read whose restarts are all finished; they have one size.

    Returns:
        The result. A job keeps no codes of its pre-images, so that ``codes`` and ``targets`` are then empty; its photos
        have the 8 bits of their PNG files.

    Raises:
        InvrepError: the folder holds no result, the file is damaged, or a job's images differ in size.

    Example:
        >>> found.save("cat")
        >>> invrep.load("cat").metrics["error"]
    """
    path = Path(folder)
    if (path / FILE).is_file():
        return _saved(path / FILE)
    results = Results(path)
    if results.done():
        return _of_job(results)
    raise InvrepError(f"{path} holds no result; expected the folder of found.save(FOLDER) or of a finished job.")


def _saved(path: Path) -> Inverted:
    try:
        with safe_open(path, "pt") as file:
            texts = json.loads((file.metadata() or {})["invrep"])
        if texts["format"] != FORMAT:
            raise InvrepError(
                f"{path} has format {texts['format']}, but this version reads format {FORMAT}; use the version of "
                f"invrep that wrote it."
            )
        return _restored(load_tensors(path.read_bytes()), texts)  # a file mapped into memory could be cut short later
    except (SafetensorError, LookupError, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvrepError(f"{path} cannot be read ({reason}); expected a file of found.save(FOLDER).") from None


def _restored(tensors: Mapping[str, Tensor], texts: Mapping[str, Any]) -> Inverted:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    history = under("history.")
    at = history.pop("pass").tolist()
    return Inverted(
        reconstructions=tensors["reconstructions"],
        photos=tensors.get("photos"),
        codes=_in_order(under("codes.")),
        targets=_in_order(under("targets.")),
        metrics=under("metrics."),
        history=[(passes, {name: values[k] for name, values in history.items()}) for k, passes in enumerate(at)],
        passes=tensors["passes"],
        converged=tensors["converged"],
        **{name: texts[name] for name in TEXTS},
    )


def _in_order(parts: Mapping[str, Tensor]) -> list[Tensor]:
    return [parts[str(k)] for k in range(len(parts))]


def _of_job(results: Results) -> Inverted:
    rows = results.rows()
    restarts = 1 + max(restart for _, restart in rows)
    images = [image for image in dict.fromkeys(i for i, _ in rows) if all((image, r) in rows for r in range(restarts))]
    keys = [(image, restart) for image in images for restart in range(restarts)]
    if not keys:
        raise InvrepError(f"No image of {results.folder} has all its {restarts} restarts yet; run the command again.")
    pixels = results.pixels(keys)
    if len(sizes := {tuple(picture.shape) for picture in pixels.values()}) > 1:
        raise InvrepError(
            f"The images of {results.folder} have {len(sizes)} sizes; load() reads images of one size, as "
            f"data.resize=squash gives them."
        )

    shape = (len(images), restarts)

    def grouped(values: Sequence[Any]) -> Tensor:
        groups: Tensor = torch.as_tensor(values, dtype=torch.float64).unflatten(0, shape)
        return groups

    first = rows[keys[0]]
    names = [name for name, value in first.items() if isinstance(value, float) and name not in ("passes", "seconds")]
    metrics = {name: grouped([rows[key][name] for key in keys]) for name in names}
    config = results.read_config() or {}
    pictures = [results.photo(image) for image in images]
    color = "gray" if len(pixels[keys[0]]) == 1 else "rgb"
    return Inverted(
        reconstructions=torch.stack([pixels[key] for key in keys]).unflatten(0, shape),
        photos=torch.stack([read(p, color=color) for p in pictures]) if all(p.exists() for p in pictures) else None,
        names=images,
        codes=[],
        targets=[],
        metrics={name: values for name, values in metrics.items() if name not in FIRST or not values.isnan().all()},
        history=_history(results, keys, shape),
        passes=grouped([rows[key]["passes"] for key in keys]).long(),
        converged=torch.ones(shape, dtype=torch.bool),
        remarks=[rows[image, 0]["remark"] for image in images],
        display=config.get("display") or "clip",
    )


def _history(
    results: Results, keys: Sequence[tuple[str, int]], shape: tuple[int, int]
) -> list[tuple[int, dict[str, Tensor]]]:
    """Return the curves at every pass that any of them has; between its passes, a curve keeps its latest values."""
    curves = list(results.curve_points(keys).values())
    axes = [curve["pass"] for curve in curves]
    history = []
    for at in sorted(set(chain(*axes))):
        places = [bisect_right(axis, at) - 1 for axis in axes]
        pairs = list(zip(curves, places, strict=True))
        names = [name for name in curves[0] if name != "pass"]
        values = {name: torch.tensor([curve[name][place] for curve, place in pairs]) for name in names}
        history.append((at, {name: value.unflatten(0, shape) for name, value in values.items()}))
    return history
