"""Fit a mixture of Gaussians with diagonal covariances by expectation–maximisation.

scikit-learn's GaussianMixture holds several arrays of descriptors × words: 13 GB for 400 000 descriptors and 4096
words. This one walks through the descriptors in chunks; its steps are the same, and so is its likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invrep.fitting.clustering import fit_words

STEPS = 100  # greatest number of steps, scikit-learn's default
TOLERANCE = 1e-3  # gain of the mean log-likelihood by a step, below which the fit ends; scikit-learn's default
FLOOR = 0.01  # least variance of a word in a dimension, as a share of all descriptors' variance there
CHUNK = 2**22  # descriptors × words held at once; 32 MB for each array


@dataclass(frozen=True)
class Mixture:
    """Hold K Gaussians with diagonal covariances.

    Attributes:
        means: means, (K, D) float64.
        variances: variances, (K, D) float64.
        priors: weights of the Gaussians, (K,) float64, with the sum 1.
    """

    means: Tensor
    variances: Tensor
    priors: Tensor

    def log_densities(self, rows: Tensor) -> Tensor:
        """Return log(π_k N(x; μ_k, σ_k²)) of rows (n, D) float64, (n, K)."""
        inverse = 1 / self.variances
        constant = self.priors.log() - 0.5 * (
            self.variances.log().sum(1) + self.means.shape[1] * math.log(2 * math.pi) + (self.means**2 * inverse).sum(1)
        )
        return constant + rows @ (self.means * inverse).T - 0.5 * rows.square() @ inverse.T

    def mean_log_likelihood(self, rows: np.ndarray) -> float:
        """Return the mean log-likelihood of descriptors (n, D)."""
        parts = _chunks(rows, len(self.priors))
        return sum([float(self.log_densities(part).logsumexp(1).sum()) for part in parts]) / len(rows)


def fit_mixture(
    rows: np.ndarray, words: int, seed: int, tell: Callable[[int, int], None] = lambda done, total: None
) -> Mixture:
    """Return a mixture of K Gaussians, fitted from the words of k-means.

    Args:
        rows: descriptors in random order, (n, D) float32, at least K different ones.
        words: number K of Gaussians.
        seed: seed of k-means.
        tell: function of the number of steps done and of all steps.

    Raises:
        InvrepError: scikit-learn is not installed.
    """
    floor = FLOOR * torch.from_numpy(rows.var(0, dtype=np.float64)).clamp(min=1e-12)
    centres = torch.from_numpy(fit_words(rows, words, seed)).double()
    total = STEPS + 1
    # A mixture of equal, narrow Gaussians is k-means: its first step takes the moments of each word's descriptors.
    tight = Mixture(centres, torch.full_like(centres, 1e-9), torch.full((words,), 1 / words, dtype=torch.float64))
    mixture, _ = _step(rows, tight, floor)
    tell(1, total)
    before = -math.inf
    for step in range(STEPS):
        mixture, likelihood = _step(rows, mixture, floor)
        tell(step + 2, total)
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
    return mixture


def _step(rows: np.ndarray, mixture: Mixture, floor: Tensor) -> tuple[Mixture, float]:
    """Return the mixture after a step, and the mean log-likelihood before it."""
    words = len(mixture.priors)
    mass = torch.zeros(words, dtype=torch.float64)
    first, second = torch.zeros_like(mixture.means), torch.zeros_like(mixture.means)
    likelihood = 0.0
    for part in _chunks(rows, words):
        logs = mixture.log_densities(part)
        evidence = logs.logsumexp(1, keepdim=True)
        posteriors = (logs - evidence).exp_()
        likelihood += float(evidence.sum())
        mass += posteriors.sum(0)
        first += posteriors.T @ part
        second += posteriors.T @ part.square()
    mass += 10 * torch.finfo(torch.float64).eps
    means = first / mass[:, None]
    variances = torch.maximum(second / mass[:, None] - means.square(), floor)
    return Mixture(means, variances, mass / mass.sum()), likelihood / len(rows)


def _chunks(rows: np.ndarray, words: int) -> Iterator[Tensor]:
    size = max(CHUNK // words, 1)
    for begin in range(0, len(rows), size):
        yield torch.from_numpy(rows[begin : begin + size]).double()
