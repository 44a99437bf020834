"""How near our VLAD and Fisher vectors are to VLFeat's, on photos of yours and with the package's vocabularies.

libvl encodes the same descriptors, dense SIFT of each grey photo, in double precision. The table has the largest
‖ours − VLFeat's‖/‖VLFeat's‖ of the photos for every flag, ours in double and in single precision. libvl is Debian's
libvlfeat1.

    python benchmarks/vocabulary_codes.py --photos FOLDER [--number 10]
"""

from __future__ import annotations

import argparse
import ctypes
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import torch
from timing import machine
from torch import Tensor

import invrep
from invrep.data.photo_reading import read
from invrep.data.photo_sources import find
from invrep.representations.geometry import InputSize
from invrep.representations.vocabularies.descriptors import rows_of, unit
from invrep.representations.vocabularies.fisher import Fisher
from invrep.representations.vocabularies.pooling import WHOLE
from invrep.representations.vocabularies.projection import Projection
from invrep.representations.vocabularies.vlad import VLAD
from invrep.representations.vocabularies.vocabulary import shipped

DOUBLE = 2  # VL_TYPE_DOUBLE
# flags of vl/vlad.h and vl/fisher.h, and our arguments
VLADS = {
    0: {},
    1: {"per_word": True},
    2: {"root": True},
    3: {"per_word": True, "root": True},
    4: {"normalise": False},
    8: {"mass": True},
}
FISHERS = {
    0: {"root": False, "normalise": False},
    1: {"root": True, "normalise": False},
    2: {"root": False, "normalise": True},
    3: {},
    7: {"fast": True},
}


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Return the address of a contiguous array of doubles."""
    assert array.dtype == np.float64 and array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def theirs_vlad(library: ctypes.CDLL, rows: np.ndarray, centers: np.ndarray, flags: int) -> np.ndarray:
    """Return VLFeat's VLAD of rows (N, D) with hard assignments."""
    nearest = ((rows[:, None] - centers) ** 2).sum(2).argmin(1)
    assignments = np.eye(len(centers))[nearest]
    code = np.zeros(centers.size)
    sizes = (ctypes.c_size_t(centers.shape[1]), ctypes.c_size_t(len(centers)))
    library.vl_vlad_encode(
        pointer(code), DOUBLE, pointer(centers), *sizes, pointer(rows), ctypes.c_size_t(len(rows)),
        pointer(assignments), flags,
    )  # fmt: skip
    return code


def theirs_fisher(library: ctypes.CDLL, rows: np.ndarray, mixture: list[np.ndarray], flags: int) -> np.ndarray:
    """Return VLFeat's Fisher vector of rows (N, D) under means, variances and priors."""
    means, variances, priors = mixture
    code = np.zeros(2 * means.size)
    sizes = (ctypes.c_size_t(means.shape[1]), ctypes.c_size_t(len(means)))
    library.vl_fisher_encode(
        pointer(code), DOUBLE, pointer(means), *sizes, pointer(variances), pointer(priors), pointer(rows),
        ctypes.c_size_t(len(rows)), flags,
    )  # fmt: skip
    return code


def apart(ours: Tensor, theirs: np.ndarray) -> float:
    """Return the relative distance of two codes."""
    return float(np.linalg.norm(ours.flatten().double().numpy() - theirs) / np.linalg.norm(theirs))


def arrays(tensors: list[Tensor]) -> list[np.ndarray]:
    """Return tensors as arrays of doubles."""
    return [tensor.double().numpy() for tensor in tensors]


def main() -> None:
    """Print a row for each code and flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--side", type=int, default=128, help="pixels of the photos' sides")
    given = parser.parse_args()
    library = ctypes.CDLL(find_library("vl") or "libvl.so.1")
    files, size = find(str(given.photos)), InputSize((given.side, given.side), given.side)
    sift = invrep.representation("dsift")
    words, mixture = shipped("vlad"), shipped("fisher")
    assert words is not None and mixture is not None
    centers = words.tensors["centers"]
    gaussians = [mixture.tensors[name] for name in ("means", "variances", "priors")]
    project = Projection(mixture.tensors["pca_mean"], mixture.tensors["pca_basis"]).double()
    worst: dict[tuple[str, int], list[float]] = {}
    for file in [files[k] for k in range(min(given.number, len(files)))]:
        photo = read(file.open(), name=file.name, color="gray", resize="squash", input_size=size)[None]
        with torch.no_grad():
            rows = unit(rows_of(sift(photo.double()), sift).values)
            projected = project(rows)
            for flags, options in VLADS.items():
                theirs = theirs_vlad(library, *arrays([rows[0].contiguous(), centers]), flags)
                pair = [apart(VLAD(centers.to(x.dtype), **options)(x, WHOLE), theirs) for x in (rows, rows.float())]
                worst[("VLAD", flags)] = [*map(max, pair, worst.get(("VLAD", flags), [0, 0]))]
            for flags, options in FISHERS.items():
                theirs = theirs_fisher(library, projected[0].contiguous().numpy(), arrays(gaussians), flags)
                pair = [
                    apart(Fisher(*(g.to(x.dtype) for g in gaussians), **options)(x, WHOLE), theirs)
                    for x in (projected, projected.float())
                ]
                worst[("Fisher", flags)] = [*map(max, pair, worst.get(("Fisher", flags), [0, 0]))]
    print(machine())
    print(f"{given.number} photos of {given.side}×{given.side}, largest relative distance from VLFeat's code")
    for (code, flags), (double, single) in worst.items():
        options = (VLADS if code == "VLAD" else FISHERS)[flags]
        print(f"{code:>8} {options!s:50} double {double:.1e}  single {single:.1e}")


if __name__ == "__main__":
    main()
