"""Fit visual words: k-means by scikit-learn's MiniBatchKMeans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from invrep.fitting.extra import scikit_learn

EPOCHS = 20  # passes over the sample
BATCH = 4096  # descriptors of a step, or four for each word where that is more
STARTERS = 20  # descriptors for each word among which k-means++ chooses the first words


def fit_words(
    rows: np.ndarray, words: int, seed: int, tell: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """Return the centres of k-means, (K, D) float32, by mini-batches from a start by k-means++.

    Args:
        rows: descriptors in random order, (n, D) float32, at least K different ones.
        words: number K of words.
        seed: seed of the start.
        tell: function of the number of steps done and of all steps.

    Raises:
        InvrepError: scikit-learn is not installed.
    """
    cluster = scikit_learn("cluster")
    start, _ = cluster.kmeans_plusplus(rows[: max(STARTERS * words, BATCH)], words, random_state=seed)
    size = min(max(BATCH, 4 * words), len(rows))
    fitted = cluster.MiniBatchKMeans(words, init=start, n_init=1, batch_size=size, random_state=seed)
    generator = np.random.default_rng(seed)
    per_epoch = len(rows) // size
    total = EPOCHS * per_epoch
    for step in range(total):
        if step % per_epoch == 0:
            order = generator.permutation(len(rows))
        begin = size * (step % per_epoch)
        fitted.partial_fit(rows[np.sort(order[begin : begin + size])])
        tell(step + 1, total)
    centres: np.ndarray = fitted.cluster_centers_.astype(np.float32)
    return centres
