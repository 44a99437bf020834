"""Fit a projection of descriptors to fewer dimensions: scikit-learn's PCA."""

from __future__ import annotations

import numpy as np

from invrep.errors import InvrepError
from invrep.fitting.extra import scikit_learn


def fit_projection(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, (D,) float32, and the first principal components, (d, D) float32.

    Args:
        rows: descriptors, (n, D) float32.
        size: number d of components.

    Raises:
        InvrepError: d exceeds D or n, or scikit-learn is not installed.
    """
    if size > min(rows.shape):
        raise InvrepError(
            f"{len(rows)} descriptors of {rows.shape[1]} values have no {size} principal components; give "
            f"rep.projection={min(rows.shape)} or less, or 0 for none."
        )
    # Other solvers copy the rows, or draw random numbers.
    fitted = scikit_learn("decomposition").PCA(size, svd_solver="covariance_eigh").fit(rows)
    return fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32)
