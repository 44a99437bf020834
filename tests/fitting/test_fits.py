"""Words, mixtures, projections and dictionaries, against scikit-learn's own and VLFeat's."""

import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, DictionaryLearning, sparse_encode
from sklearn.mixture import GaussianMixture

from invrep.fitting.clustering import fit_words
from invrep.fitting.dictionary import fit_dictionary
from invrep.fitting.mixture import FLOOR, Mixture, fit_mixture
from invrep.fitting.projection import fit_projection

GOLD = ROOT.parent / "shared" / "gold" / "vocab.npz"


@pytest.fixture
def rows() -> np.ndarray:
    """Descriptors about twelve centres of unequal weight and width, (3000, 6)."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(12, 6))
    label = generator.choice(12, 3000, p=np.arange(1, 13) / 78)
    return (centres[label] + (0.1 + 0.03 * label[:, None]) * generator.normal(size=(3000, 6))).astype(np.float32)


def inertia(rows: np.ndarray, centres: np.ndarray) -> float:
    return float(((rows[:, None] - centres) ** 2).sum(2).min(1).sum())


def test_words_are_as_near_as_those_of_lloyds_algorithm(rows):
    whole = KMeans(16, n_init=4, random_state=0).fit(rows)
    assert inertia(rows, fit_words(rows, 16, 0)) < 1.05 * whole.inertia_


def test_scikit_learns_steps_lead_no_further(rows):
    ours, whole = fit_mixture(rows, 12, 0), rows.astype(np.float64)
    start = {"means_init": ours.means, "precisions_init": 1 / ours.variances, "weights_init": ours.priors}
    theirs = GaussianMixture(12, covariance_type="diag", tol=1e-5, reg_covar=0, **start).fit(whole)
    same = Mixture(*(torch.from_numpy(p) for p in (theirs.means_, theirs.covariances_, theirs.weights_)))
    assert same.mean_log_likelihood(rows) == pytest.approx(theirs.score(whole), rel=1e-9)
    assert ours.mean_log_likelihood(rows) == pytest.approx(theirs.score(whole), abs=0.02)
    fresh = GaussianMixture(12, covariance_type="diag", random_state=0).fit(whole)
    assert ours.mean_log_likelihood(rows) > fresh.score(whole) - 0.2
    assert float(ours.priors.sum()) == pytest.approx(1)


def test_no_variance_falls_below_its_floor(rows):
    copies = np.concatenate([rows, np.repeat(5 * rows[:1], 200, 0)])  # as flat patches are: one point, of no variance
    mixture = fit_mixture(copies, 16, 0)
    floor = FLOOR * copies.var(0)
    assert (mixture.variances.numpy() >= floor * (1 - 1e-5)).all()
    assert (mixture.variances.numpy() < 1.01 * floor).all(1).any()


@pytest.mark.skipif(not GOLD.exists(), reason="needs the reference values")
def test_a_mixture_of_descriptors_is_as_likely_as_vlfeats():
    gold = np.load(GOLD)
    raw = np.concatenate([gold[f"desc_{k}"] for k in range(3)]).astype(np.float64)
    raw /= np.linalg.norm(raw, axis=1, keepdims=True).clip(1e-12)
    rows = ((raw - gold["pca_mean"]) @ gold["pca_basis"].T).astype(np.float32)
    theirs = Mixture(*(torch.from_numpy(gold[f"gmm_{part}"]).double() for part in ("means", "covs", "priors")))
    assert fit_mixture(rows, 16, 0).mean_log_likelihood(rows) > theirs.mean_log_likelihood(rows)


def test_a_projection_spans_what_the_exact_one_spans(rows):
    mean, basis = fit_projection(rows, 4)
    exact = PCA(4, svd_solver="full").fit(rows.astype(np.float64))
    np.testing.assert_allclose(mean, exact.mean_, atol=1e-6)
    np.testing.assert_allclose(np.abs(basis @ exact.components_.T), np.eye(4), atol=1e-4)


def test_a_dictionary_codes_as_well_as_one_of_all_descriptors_at_once(rows):
    few = rows[:400].astype(np.float64)

    def objective(atoms: np.ndarray) -> float:
        code = sparse_encode(few, atoms, algorithm="lasso_cd", alpha=0.15)
        return float(0.5 * ((few - code @ atoms) ** 2).sum() + 0.15 * np.abs(code).sum())

    atoms = fit_dictionary(rows[:400], 16, 0, 0.15).astype(np.float64)
    whole = DictionaryLearning(16, alpha=0.15, fit_algorithm="cd", max_iter=30, random_state=0).fit(few)
    assert np.linalg.norm(atoms, axis=1) == pytest.approx(1)
    assert objective(atoms) < 1.05 * objective(whole.components_)


@pytest.mark.parametrize(
    "fit",
    [
        fit_words,
        lambda *given: fit_mixture(*given).means.numpy(),
        lambda *given: fit_dictionary(*given, 0.15),
    ],
    ids=["words", "mixture", "dictionary"],
)
def test_a_seed_gives_the_same_bits_and_another_seed_others(rows, fit):
    first = fit(rows[:500], 16, 5)
    np.testing.assert_array_equal(first, fit(rows[:500], 16, 5))
    assert not np.array_equal(first, fit(rows[:500], 16, 6))
