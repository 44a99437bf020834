"""Find the photos of torchvision's datasets."""

from __future__ import annotations

import inspect
import io
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from torchvision import datasets
from torchvision.datasets import VisionDataset

from invrep.data.photo import Photo, Photos, file_below
from invrep.errors import InvrepError, nearest

DATASET = "torchvision:"


def dataset_photos(name: str, root: str | None, split: str | None, limit: int | None) -> Photos:
    """Return the photos of one of torchvision's datasets.

    Args:
        name: name of the dataset in ``torchvision.datasets``.
        root: root folder of the dataset.
        split: split of the dataset; None for torchvision's default.
        limit: largest number of photos, from the first; None for all.

    Raises:
        InvrepError: root is missing, there is no such dataset or split, or the dataset cannot be opened.
    """
    if root is None:
        raise InvrepError(
            f"data.path={DATASET}{name} needs a folder; give data=torchvision data.name={name} data.root=FOLDER"
        )
    dataset = _dataset(name, root, split)
    if isinstance(dataset, datasets.DatasetFolder):  # our reader keeps depth, EXIF and transparency
        base = os.path.abspath(dataset.root)
        ids = [Path(os.path.relpath(file, base)).as_posix() for file, _ in dataset.samples[:limit]]
        return Photos(ids, partial(file_below, Path(base)))
    count = len(dataset)
    ids = [str(k).zfill(len(str(count - 1))) for k in range(count if limit is None else min(limit, count))]
    return Photos(ids, partial(_item, name, root, split))


@lru_cache(maxsize=1)
def _dataset(name: str, root: str, split: str | None) -> VisionDataset:
    """Open one of torchvision's datasets; nothing is downloaded."""
    known = [n for n in datasets.__all__ if isinstance(getattr(datasets, n), type)]
    if name not in known:
        raise InvrepError(f"torchvision has no dataset {name!r}; {nearest(name, known)}.")
    kind = getattr(datasets, name)
    takes = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {"root": str(Path(root).expanduser())} if "root" in takes else {}
    given |= {"download": False} if "download" in takes else {}
    if split is not None:
        if "train" in takes and "split" not in takes:
            if split not in ("train", "test"):
                raise InvrepError(f"data.split={split} is not valid for {name}: expected train or test.")
            given["train"] = split == "train"
        elif "split" in takes or "image_set" in takes or name == "EMNIST":
            given["image_set" if "image_set" in takes else "split"] = split
        else:
            raise InvrepError(f"data.split={split} is not valid for {name}, which has one part; leave data.split out.")
    try:
        dataset: VisionDataset = kind(**given)
        if not isinstance(dataset[0][0], Image.Image):
            raise TypeError("its items are not photos")
    except Exception as error:
        # torchvision reports missing and invalid data by exceptions of many kinds.
        first = str(error).partition(" You can use download")[0].strip().partition("\n")[0]
        raise InvrepError(
            f"torchvision's {name} cannot be opened in data.root={root} ({first}); put it there as torchvision lays it "
            f"out: nothing is downloaded."
        ) from None
    return dataset


def _item(name: str, root: str, split: str | None, place: int, number: str) -> Photo:
    return Photo(number, f"{name} {number}", partial(_encoded, name, root, split, place))


def _encoded(name: str, root: str, split: str | None, place: int) -> BinaryIO:
    """Return a dataset's photo as an uncompressed PPM file in memory."""
    image = _dataset(name, root, split)[place][0]
    file = io.BytesIO()
    (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(file, "PPM")
    file.seek(0)
    return file
