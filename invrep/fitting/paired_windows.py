"""Learn a paired dictionary (HOGgle, Vondrick et al. 2013): windows of a code, and the grey patches under them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.fitting.extra import scikit_learn
from invrep.fitting.paired_dictionary import PairedDictionary, patch_offset, patch_side, windowed
from invrep.fitting.sample import Sample
from invrep.representations.base import Representation, as_gray
from invrep.representations.vocabularies.descriptors import describe

ATOMS, WINDOW, WEIGHT = 1024, 5, 0.02  # atoms, positions in a row of a window, λ of the lasso: the authors'
SMALL = 64  # pixels; least side of a photo at half its size, at which windows see larger things
BATCH = 512  # windows of a step
EPOCHS = 1  # passes over the sample
SWEEPS = 20  # most sweeps of the lasso's coordinate descent over the atoms
FLAT = 1 / 255  # least norm of a window, and least deviation of a patch, before both are scaled to unit norm
CHUNK = 4096  # windows that are cut out at once
DETAIL = 4  # least number of a patch's pixels for each position of the code


def fit_pairs(
    phi: Representation,
    photos: Iterable[tuple[str, Float[Tensor, "channel row column"]]],
    *,
    atoms: int | None = None,
    windows: int = 100_000,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> PairedDictionary:
    """Learn K atoms, each a window of a code with the patch under it, from a sample of all windows of some photos.

    A window and its patch have zero mean and unit norm. The atoms lower ½‖(w, p) − Σ a_k (c_k, p_k)‖² + λ Σ a_k over
    the sample, with a_k ≥ 0 and λ = .02, by scikit-learn's MiniBatchDictionaryLearning. Each photo is seen at its size
    and at half of it. The sample takes 6 kB of memory for each window of HOG.

    Args:
        phi: representation with positions.
        photos: photos (C, H, W) in [0, 1], each with a text that identifies its content.
        atoms: number K of atoms; None: 1024, the authors'.
        windows: greatest number of windows in the sample.
        seed: seed of the sample and of the learning.
        tell: function of the number of steps done and of all steps.

    Raises:
        InvrepError: Φ's code has no positions, the photos have fewer windows than atoms, or scikit-learn is missing.
    """
    atoms = atoms or ATOMS
    learning = scikit_learn("decomposition")
    sample, seen, stride = Sample(windows, seed), 0, 0
    for content, photo in photos:
        seen += 1
        stride = _add(sample, phi, photo[None], content)
        half = F.interpolate(photo[None], scale_factor=0.5, mode="area")
        if min(half.shape[2:]) >= SMALL:
            _add(sample, phi, half, f"{content}/2")
    if len(sample) < atoms:
        raise InvrepError(
            f"{seen} photos have {len(sample)} windows of {WINDOW}×{WINDOW} positions, too few for {atoms} atoms; give "
            f"more or larger photos."
        )
    rows = sample.rows()
    del sample
    fitted = learning.MiniBatchDictionaryLearning(
        atoms,
        alpha=WEIGHT,
        positive_code=True,
        fit_algorithm="cd",
        transform_max_iter=SWEEPS,
        batch_size=BATCH,
        dict_init=rows[:atoms] / np.float32(2**0.5),  # a row has norm √2, an atom at most 1
        random_state=seed,
    )
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(rows)) for _ in range(EPOCHS)]
    steps = [order[begin : begin + BATCH] for order in orders for begin in range(0, len(rows), BATCH)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Objective did not converge")  # to 1e-8, which learning needs not
        for done, step in enumerate(steps, 1):
            fitted.partial_fit(rows[np.sort(step)])
            tell(done, len(steps))
    detail = patch_side(WINDOW, stride) // pixel_of(stride)
    learnt = torch.from_numpy(fitted.components_.astype(np.float32))
    codes, patches = learnt.split([learnt.shape[1] - detail**2, detail**2], 1)
    settings = {
        "descriptor": describe(phi),
        "window": WINDOW,
        "stride": stride,
        "weight": WEIGHT,
        "seed": seed,
        "photos": seen,
        "windows": len(rows),
    }
    return PairedDictionary(codes.contiguous(), patches.reshape(-1, detail, detail).contiguous(), settings)


def pixel_of(stride: int) -> int:
    """Return the side, in pixels of the image, of one pixel of a dictionary's patch: 2 for HOG's cells of 8."""
    return max(side for side in range(1, max(stride // DETAIL, 1) + 1) if stride % side == 0)


def unit(rows: Float[Tensor, "window value"]) -> tuple[Float[Tensor, "window value"], Float[Tensor, " window"]]:
    """Return rows of zero mean and unit norm, and their norms before; a row of norm below 1/255 stays shorter."""
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1)
    return rows / norms.clamp(min=FLAT)[:, None], norms


@torch.no_grad()
def _add(sample: Sample, phi: Representation, photo: Tensor, content: str) -> int:
    """Add the windows of a photo (1, C, H, W), each with its patch, to the sample; return the stride in pixels."""
    grid = windowed(phi, phi(photo.to(phi.mean.device)), photo.shape[2:])
    stride, offset, side = grid.stride, patch_offset(grid, WINDOW), patch_side(WINDOW, grid.stride)
    within = [
        np.array([k for k in range(count - WINDOW + 1) if 0 <= offset + k * stride <= size - side], int)
        for count, size in zip(grid.values.shape[2:], photo.shape[2:], strict=True)
    ]  # windows whose patch lies within the photo
    number = len(within[0]) * len(within[1])
    if number == 0:
        return stride
    chosen, numbers = sample.draw(content, number)
    views = grid.values[0].cpu().unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
    places = as_gray(photo)[0, 0].cpu().unfold(0, side, 1).unfold(1, side, 1)
    for begin in range(0, len(chosen), CHUNK):
        some = slice(begin, begin + CHUNK)
        rows, columns = (
            torch.from_numpy(w[k]) for w, k in zip(within, divmod(chosen[some], len(within[1])), strict=True)
        )
        patches = places[offset + rows * stride, offset + columns * stride]
        windows, norms = unit(views[:, rows, columns].movedim(1, 0).flatten(1))
        patches, deviations = unit(F.avg_pool2d(patches[:, None], pixel_of(stride)).flatten(1))
        good = ((norms > FLAT) & (deviations > FLAT * patches.shape[1] ** 0.5)).numpy()
        sample.add(torch.cat([windows, patches], 1).float().numpy()[good], numbers[some][good], 0)
    sample.seen += number
    return stride
