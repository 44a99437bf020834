"""Time forward + backward of HOG, HOGb and dense SIFT beside VLFeat's forward: ``python benchmarks/hog.py``.

VLFeat (Debian's libvlfeat1) is called by ctypes and timed in turn with ours, on one thread. Medians, milliseconds of
CPU time, which other programs on the machine lengthen less than the clock's. ``exact`` is Φ's own derivative;
``descent`` is the pass of a descent, in which hard binning takes the derivative of bilinear binning.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from collections.abc import Callable

import numpy as np
import skimage.data
import skimage.transform
import torch
from timing import machine

from invrep.representations.base import Representation
from invrep.representations.handcrafted.dsift import DSIFT
from invrep.representations.handcrafted.hog import HOG
from invrep.representations.surrogate import Surrogate

REPEATS = 31
FLOATS = ctypes.POINTER(ctypes.c_float)


def vlfeat() -> ctypes.CDLL | None:
    """Load libvl, or return None where it is not installed."""
    name = ctypes.util.find_library("vl")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.vl_hog_new.restype = library.vl_dsift_new_basic.restype = ctypes.c_void_p
    for getter in ("width", "height", "dimension"):
        getattr(library, f"vl_hog_get_{getter}").restype = ctypes.c_size_t
    return library


def vl_hog(library: ctypes.CDLL, image: np.ndarray, bilinear: bool) -> None:
    """Compute vl_hog of (C, H, W) float32, 8-pixel cells, 9 orientations."""
    channels, height, width = image.shape
    size = ctypes.c_size_t
    hog = ctypes.c_void_p(library.vl_hog_new(1, size(9), 0))
    library.vl_hog_set_use_bilinear_orientation_assignments(hog, int(bilinear))
    pixels = image.ctypes.data_as(FLOATS)
    library.vl_hog_put_image(hog, pixels, size(width), size(height), size(channels), size(8))
    shape = [getattr(library, f"vl_hog_get_{name}")(hog) for name in ("dimension", "height", "width")]
    code = np.empty(shape, np.float32)
    library.vl_hog_extract(hog, code.ctypes.data_as(FLOATS))
    library.vl_hog_delete(hog)


def vl_dsift(library: ctypes.CDLL, image: np.ndarray) -> None:
    """Compute vl_dsift of (1, H, W) float32 with step 3, bin size 5 and the Gaussian window."""
    sift = ctypes.c_void_p(library.vl_dsift_new_basic(image.shape[2], image.shape[1], 3, 5))
    library.vl_dsift_process(sift, image.ctypes.data_as(FLOATS))
    library.vl_dsift_delete(sift)


def measure(phi: Representation, image: np.ndarray, reference: Callable[[], None] | None) -> tuple[float, float, float]:
    """Return median milliseconds: forward + backward, exact and as in a descent, and the reference (NaN without)."""
    x = torch.from_numpy(image)[None].requires_grad_()
    weight = torch.randn_like(phi(x)[0])

    def pass_(surrogate: Surrogate | None) -> None:
        x.grad = None
        phi(x, surrogate=surrogate)[0].backward(weight)

    runs = [lambda: pass_(None), lambda: pass_(Surrogate())] + ([] if reference is None else [reference])
    times = np.full((REPEATS, 3), np.nan)
    for repeat in range(REPEATS):
        for index, run in enumerate(runs):
            start = time.process_time()
            run()
            times[repeat, index] = time.process_time() - start
    exact, descent, theirs = 1e3 * np.median(times, axis=0)
    return float(exact), float(descent), float(theirs)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{machine()}, {REPEATS} repeats")
    library = vlfeat()
    if library is None:
        print("libvl is not installed (Debian: libvlfeat1), so there is nothing to compare with.")
    print(f"{'':6} {'image':12} {'exact':>7} {'descent':>8} {'VLFeat fwd':>11} {'ratios':>12}")
    photo = skimage.transform.resize(skimage.data.chelsea(), (512, 512), anti_aliasing=True)
    photo = photo.astype(np.float32).transpose(2, 0, 1).copy()
    gray = photo[:1].copy()
    small = np.ascontiguousarray(gray[:, :224, :336])
    hogb = HOG(binning="bilinear")
    rows = [
        ("hog", HOG(), small),
        ("hogb", hogb, small),
        ("dsift", DSIFT(), small),
        ("hog", HOG(), gray),
        ("hog", HOG(), photo),
        ("hogb", hogb, photo),
    ]
    for name, phi, image in rows:
        reference = None
        if library is not None:

            def reference(name: str = name, image: np.ndarray = image) -> None:
                if name == "dsift":
                    vl_dsift(library, image)
                else:
                    vl_hog(library, image, name == "hogb")

        exact, descent, theirs = measure(phi, image, reference)
        shape = "×".join(map(str, image.shape))
        ratios = f"{exact / theirs:6.2f}{descent / theirs:6.2f}"
        print(f"{name:6} {shape:12} {exact:7.1f} {descent:8.1f} {theirs:11.1f} {ratios}")


if __name__ == "__main__":
    main()
