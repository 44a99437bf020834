"""Codes against VLFeat, SPAMS and the authors' Matlab code on gold photos, and against plain NumPy on another."""

from functools import cache

import numpy as np
import pytest
import torch
from helpers.paths import SHARED
from helpers.vocabularies import KINDS, small

from invrep.api import representation
from invrep.data.photo_reading import bundled, read
from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.descriptors import describe, unit
from invrep.representations.vocabularies.fisher import Fisher
from invrep.representations.vocabularies.llc import LLC
from invrep.representations.vocabularies.normalisation import signed_root
from invrep.representations.vocabularies.pooling import WHOLE, pyramid
from invrep.representations.vocabularies.projection import Projection
from invrep.representations.vocabularies.sparse import SparseCodes
from invrep.representations.vocabularies.vlad import VLAD
from invrep.representations.vocabularies.vocabulary import Vocabulary
from invrep.representations.vocabularies.words import BagOfWords, Words

FILE = SHARED / "gold" / "vocab.npz"
needs_gold = pytest.mark.skipif(not FILE.exists(), reason="needs shared/gold/vocab.npz")
VLAD_FLAGS = {
    "vlad_raw": {"normalise": False},
    "vlad": {},
    "vlad_components": {"per_word": True},
    "vlad_sqrt": {"root": True},
    "vlad_sqrt_components": {"root": True, "per_word": True},
    "vlad_mass": {"mass": True},
}
FISHER_FLAGS = {
    "fisher_raw": ({"root": False, "normalise": False}, 1e-10),
    "fisher_norm": ({"root": False}, 1e-7),  # stored in float32
    "fisher_sqrt": ({"normalise": False}, 1e-7),
    "fisher_improved": ({}, 1e-10),
    "fisher_fast": ({"root": False, "normalise": False, "fast": True}, 1e-10),
    "fisher_improved_fast": ({"fast": True}, 1e-10),
}


@cache
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files if file[name].dtype.kind in "fiu"}


def gold(name: str) -> torch.Tensor:
    return torch.from_numpy(stored()[name].astype(np.float64))


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the greatest difference over the greatest value."""
    return float((found.flatten() - wanted.flatten()).abs().max() / wanted.abs().max())


def cells_of(photo: int):
    frames = gold(f"frames_{photo}")
    return pyramid((frames[:, 0].unique(), frames[:, 1].unique()), stored()[f"gray_{photo}"].shape, (1, 2, 4))


@needs_gold
@pytest.mark.parametrize("photo", range(3))
def test_codes_of_stored_descriptors_are_those_of_vlfeat_spams_and_the_authors(photo):
    rows, centers = unit(gold(f"desc_{photo}")[None]), gold("kmeans_centers")
    assert torch.equal(BagOfWords(centers)(rows, WHOLE)[0, 0], gold(f"bovw_hist_{photo}"))
    for name, flags in VLAD_FLAGS.items():
        assert off(VLAD(centers, **flags)(rows, WHOLE), gold(f"{name}_{photo}")) < 1e-7
    projected = Projection(gold("pca_mean"), gold("pca_basis"))(rows)
    mixture = [gold(f"gmm_{name}") for name in ("means", "covs", "priors")]
    for name, (flags, tolerance) in FISHER_FLAGS.items():
        assert off(Fisher(*mixture, **flags)(projected, WHOLE), gold(f"{name}_{photo}")) < tolerance
    cells = cells_of(photo)
    assert off(LLC(centers, normalise=False)(rows, cells), gold(f"llc_pool_raw_{photo}")) < 1e-10
    assert off(LLC(centers)(rows, cells), gold(f"llc_pool_{photo}")) < 1e-10
    sparse = SparseCodes(gold("dict_atoms"))
    some = gold(f"sc_rows_{photo}").long()
    assert (sparse.codes(rows[:, some])[0] - gold(f"sc_spams_{photo}")).abs().max() < 1e-6
    assert off(sparse(rows, cells), gold(f"scspm_pool_{photo}")) < 1e-6


@needs_gold
@pytest.mark.parametrize("rep", KINDS)
def test_the_code_of_a_grey_photo_is_that_of_its_pyramids_cells_row_by_row(rep):
    kind = KINDS[rep]
    tensors = {"words": {"centers": "kmeans_centers"}, "dictionary": {"atoms": "dict_atoms"}}
    tensors["mixture"] = {"means": "gmm_means", "variances": "gmm_covs", "priors": "gmm_priors"}
    tensors["mixture"] |= {"pca_mean": "pca_mean", "pca_basis": "pca_basis"}
    dsift = representation("dsift", step=4, bin=8)
    held = {name: gold(key).float() for name, key in tensors[kind].items()}
    vocabulary = Vocabulary(kind, held, {"descriptor": describe(dsift), "unit": True, "color": "gray"})
    phi = representation(rep, descriptor=dsift, vocabulary=vocabulary).double()
    wanted = {"bovw": "bovw_hist", "vlad": "vlad", "fisher": "fisher_improved", "sparse": "scspm_pool"}
    code = phi(gold("gray_1")[None, None] / 255)
    flat = torch.cat([part.flatten(2).transpose(1, 2).flatten() if part.ndim > 2 else part[0] for part in code])
    # VLFeat's descriptors are float32, and its binning approximates the angle
    assert off(flat, gold(f"{wanted.get(rep, 'llc_pool')}_1")) < 2e-5


def photo_rows() -> torch.Tensor:
    dsift = representation("dsift").double()
    code = dsift(read(bundled("coffee"), color="gray")[None, :, 40:80, 60:100].double())[0]
    return unit(code.flatten(2).transpose(1, 2))


def test_vlad_and_fisher_are_those_of_loops_over_descriptors():
    rows, cells = photo_rows(), pyramid((torch.arange(9), torch.arange(9)), (9, 9), (2,))
    centers = small("words").tensors["centers"].double()
    found = VLAD(centers, root=True, per_word=True)(rows, cells)[0].unflatten(-1, centers.shape)
    tensors = {name: tensor.double() for name, tensor in small("mixture").tensors.items()}
    mean, basis = tensors.pop("pca_mean"), tensors.pop("pca_basis")
    mixture = torch.distributions.MultivariateNormal(
        tensors["means"], covariance_matrix=torch.diag_embed(tensors["variances"])
    )
    vectors = Fisher(**tensors)((rows - mean) @ basis.T, cells)[0]
    for k, cell in enumerate(cells):
        wanted = torch.zeros_like(centers)
        for row in rows[0, cell]:
            word = (row - centers).norm(dim=1).argmin()
            wanted[word] += row - centers[word]
        wanted = wanted.sign() * wanted.abs().sqrt()
        wanted = torch.nn.functional.normalize(wanted, dim=1)
        assert off(found[k], wanted / wanted.norm()) < 1e-10
        first, second = torch.zeros_like(tensors["means"]), torch.zeros_like(tensors["means"])
        for row in (rows[0, cell] - mean) @ basis.T:
            posterior = (mixture.log_prob(row) + tensors["priors"].log()).softmax(0)
            posterior[posterior < 1e-6] = 0
            from_mean = (row - tensors["means"]) / tensors["variances"].sqrt()
            first += posterior[:, None] * from_mean
            second += posterior[:, None] * (from_mean**2 - 1) / 2**0.5
        vector = torch.cat([first, second]) / tensors["priors"].repeat(2)[:, None].sqrt() / len(cell)
        vector = vector.sign() * vector.abs().sqrt()
        assert off(vectors[k], vector / vector.norm()) < 1e-10


@pytest.mark.parametrize("rep", ["vlad", "fisher", "llc", "sparse"])
def test_gradients_are_exact(rep):
    rows = photo_rows()[:, :5]
    tensors = {name: tensor.double() for name, tensor in small(KINDS[rep]).tensors.items()}
    if rep == "fisher":
        rows = (rows - tensors.pop("pca_mean")) @ tensors.pop("pca_basis").T
    classes = {"vlad": VLAD, "fisher": Fisher, "llc": LLC, "sparse": SparseCodes}
    flags = {"vlad": [{}, {"mass": True, "per_word": True}], "fisher": [{}, {"fast": True, "root": False}]}
    cells = [slice(None), torch.tensor([0, 2]), torch.tensor([], dtype=torch.long)]
    for flag in flags.get(rep, [{}]):
        encoder = classes[rep](**tensors, **flag)
        x = rows.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, encode=encoder: encode(x, cells), x, eps=1e-7, atol=1e-4)


def test_words_gradient_narrows_to_the_true_derivative_zero():
    words, rows = Words(small("words").tensors["centers"].double()), photo_rows()
    wanted = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient(softness: float) -> torch.Tensor:
        x = rows.clone().requires_grad_()
        code = words(x, Surrogate(softness))
        assert torch.equal(code, words(rows))
        return torch.autograd.grad((code * wanted).sum(), x)[0].abs()

    reached = [float((gradient(softness) > 1e-3).double().mean()) for softness in (0.3, 0.1, 0.03, 0.01)]
    assert reached[0] > 0.5 and reached == sorted(reached, reverse=True) and reached[-1] < 0.05
    assert not words(rows.clone().requires_grad_()).requires_grad


def test_the_roots_gradient_narrows_to_its_own_and_is_finite_at_zero():
    z = torch.tensor([[-4.0, 0.0, 1e-12, 9.0]], dtype=torch.float64, requires_grad=True)

    def gradient(surrogate: Surrogate | None) -> torch.Tensor:
        root = signed_root(z, surrogate)
        assert torch.allclose(root, torch.tensor([[-2, 0, 1e-6, 3]], dtype=torch.float64))
        return torch.autograd.grad(root.sum(), z)[0]

    exact = torch.tensor([[0.25, 0, 0.5e6, 1 / 6]], dtype=torch.float64)
    assert torch.allclose(gradient(None), exact) and torch.allclose(gradient(Surrogate(1e-15)), exact, rtol=1e-2)
    assert gradient(Surrogate(1.0)).max() < 1
