"""Fit a dictionary for sparse codes: scikit-learn's MiniBatchDictionaryLearning (Mairal 2009)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from invrep.fitting.extra import scikit_learn

EPOCHS = 2  # passes over the sample
BATCH = 512  # descriptors of a step


def fit_dictionary(
    rows: np.ndarray,
    words: int,
    seed: int,
    weight: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Return atoms of unit norm, (K, D) float32, that minimise ½‖x − Σ a_k d_k‖² + λ·Σ|a_k| over the descriptors.

    Args:
        rows: descriptors in random order, (n, D) float32, at least K of them.
        words: number K of atoms.
        seed: seed of the start.
        weight: λ.
        tell: function of the number of steps done and of all steps.

    Raises:
        InvrepError: scikit-learn is not installed.
    """
    decomposition = scikit_learn("decomposition")
    generator = np.random.default_rng(seed)
    start = generator.permutation(np.flatnonzero(rows.any(1)))[:words]
    noise = generator.normal(size=(words - len(start), rows.shape[1]))  # where most descriptors are of flat patches
    fitted = decomposition.MiniBatchDictionaryLearning(
        words,
        alpha=weight,
        fit_algorithm="cd",
        dict_init=_unit(np.concatenate([rows[start], noise]).astype(np.float64)),
        batch_size=BATCH,
        random_state=seed,
    )
    orders = [generator.permutation(len(rows)) for _ in range(EPOCHS)]
    batches = [order[begin : begin + BATCH] for order in orders for begin in range(0, len(rows), BATCH)]
    for step, batch in enumerate(batches):
        with warnings.catch_warnings():  # a code that has not converged only makes its step less exact
            warnings.simplefilter("ignore", scikit_learn("exceptions").ConvergenceWarning)
            fitted.partial_fit(rows[batch].astype(np.float64))
        tell(step + 1, len(batches))
    return _unit(fitted.components_).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    units: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return units
