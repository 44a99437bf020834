"""Sparse codes against scikit-learn's, and by the conditions of optimality."""

import pytest
import torch

from invrep.representations.vocabularies.lasso import lasso


def problem(dtype, rows=60, atoms=40, values=24):
    generator = torch.Generator().manual_seed(1)
    dictionary = torch.rand(atoms, values, generator=generator, dtype=torch.float64)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)  # all in one quadrant: much alike
    x = torch.randn(rows, values, generator=generator, dtype=torch.float64).abs()
    return (x / x.norm(dim=1, keepdim=True)).to(dtype), dictionary.to(dtype)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weight", [0.15, 0.01])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_code_meets_the_conditions_of_optimality(weight, positive, dtype, tolerance):
    x, atoms = problem(dtype)
    code = lasso(x, atoms, weight, positive=positive)
    slack = (x - code @ atoms) @ atoms.T
    used = code != 0
    assert used.any(1).all() and not used.all(1).any()
    assert ((slack - weight * code.sign())[used].abs() < tolerance).all()
    assert ((slack if positive else slack.abs()) < weight + tolerance).all() and (not positive or (code >= 0).all())


def test_codes_are_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x, atoms = problem(torch.float64)
    for positive in (False, True):
        wanted = decomposition.sparse_encode(
            x.numpy(), atoms.numpy(), algorithm="lasso_cd", alpha=0.1, positive=positive, max_iter=100000
        )
        # scikit-learn stops at its own tolerance
        assert (lasso(x, atoms, 0.1, positive=positive) - torch.from_numpy(wanted)).abs().max() < 2e-4


def test_more_atoms_than_values_repeated_atoms_and_rows_without_a_code():
    x, atoms = problem(torch.float64)
    doubled = torch.cat([atoms, atoms[:7]])
    code = lasso(x, doubled, 0.05)
    assert torch.allclose(code @ doubled, lasso(x, atoms, 0.05) @ atoms, atol=1e-6)
    x[3], x[5, 2] = 0, torch.nan
    code = lasso(x.view(3, 20, -1), atoms, 0.05)
    assert code.shape == (3, 20, 40) and (code[0, 3] == 0).all() and code[0, 5].isnan().all()
    assert code[1:].isfinite().all() and (lasso(x[:5], atoms, 10.0) == 0).all()
