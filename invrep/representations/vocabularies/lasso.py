"""Solve many lasso problems at once: min ½‖x − Σ a_k d_k‖² + λ·Σ|a_k| for each row x.

Accelerated proximal gradient steps (Beck & Teboulle 2009; restarts of O'Donoghue & Candès 2015) come near the solution.
From there, Newton steps on the set of atoms in use reach it to rounding (primal-dual active sets; Hintermüller 2002). A
row is done once it meets the conditions of optimality.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

ROUND = 20  # proximal steps between two attempts of Newton's
NEWTON = 4  # Newton steps in an attempt
ROUNDS = 100
LEAST, MORE = (
    24,
    8,
)  # atoms in use with which a row takes Newton steps: in the first attempt, and more in each later one
PIECE = 2**22  # values of the systems of equations that are solved at once


@torch.no_grad()
def lasso(
    rows: Float[Tensor, "*batch value"], atoms: Float[Tensor, "atom value"], weight: float, *, positive: bool = False
) -> Float[Tensor, "*batch atom"]:
    """Return the sparse code of each row, without a gradient.

    A code does not depend on the values of other rows but for rounding, and not at all where the call has the same rows
    of one image.

    Args:
        rows: vectors, (…, D).
        atoms: dictionary, (K, D).
        weight: λ, above 0.
        positive: whether every coefficient is at least 0.

    Shape:
        - returns: (…, K). A row that is not finite has NaN.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    sound = flat.isfinite().all(1)
    codes = flat.new_full((len(flat), len(atoms)), torch.nan)
    if bool(sound.any()):
        codes[sound] = _solve(flat[sound], atoms, weight, positive)
    return codes.view(*rows.shape[:-1], len(atoms))


class _Problem(NamedTuple):
    gram: Tensor  # (K, K)
    products: Tensor  # of rows and atoms, (N, K)
    weight: float
    positive: bool

    def of(self, rows: Tensor) -> _Problem:
        return self._replace(products=self.products[rows])

    def slack(self, codes: Tensor) -> Tensor:
        """Return the derivative of −½‖x − Σ a_k d_k‖² in each coefficient."""
        return self.products - codes @ self.gram


def _solve(rows: Tensor, atoms: Tensor, weight: float, positive: bool) -> Tensor:
    small = atoms.T @ atoms if atoms.shape[1] < len(atoms) else atoms @ atoms.T
    step = 1 / float(torch.linalg.eigvalsh(small)[-1].clamp(min=torch.finfo(rows.dtype).tiny))
    whole = _Problem(atoms @ atoms.T, rows @ atoms.T, weight, positive)
    found = torch.zeros_like(whole.products)
    left = torch.arange(len(rows), device=rows.device)
    problem, state = whole, _State(found.clone(), found.clone(), torch.ones_like(found[:, :1]))
    for attempt in range(ROUNDS):
        state = _proximal(problem, state, step)
        # Far from the solution many atoms are in use, and their equations take most of the time in vain.
        better, done = _newton(problem, state.codes, LEAST + MORE * attempt)
        found[left] = torch.where(done[:, None], better, state.codes)
        if bool(done.all()):
            break
        left, state = left[~done], _State(*(part[~done] for part in state))
        problem = whole.of(left)
    return found


class _State(NamedTuple):
    codes: Tensor  # (N, K)
    ahead: Tensor  # the codes and their momentum, (N, K)
    pace: Tensor  # which sets the momentum of each row, (N, 1)


def _proximal(problem: _Problem, state: _State, step: float) -> _State:
    """Return the state after a round of accelerated steps, each row with its own momentum."""
    codes, ahead, pace = state
    for _ in range(ROUND):
        new = _shrink(ahead + step * problem.slack(ahead), step * problem.weight, problem.positive)
        uphill = ((ahead - new) * (new - codes)).sum(1, keepdim=True) > 0
        pace = torch.where(uphill, 1, pace)
        following = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        ahead = new + (pace - 1) / following * (new - codes)
        codes, pace = new, following
    return _State(codes, ahead, pace)


def _shrink(x: Tensor, by: float, positive: bool) -> Tensor:
    return (x - by).clamp(min=0) if positive else x - x.clamp(-by, by)


def _newton(problem: _Problem, codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return codes after Newton steps, and which of them meet the conditions of optimality, (N,) bool.

    Args:
        problem: problem of the rows.
        codes: codes to begin with, (N, K).
        most: atoms in use beyond which a row takes no step.
    """
    tolerance = 100 * torch.finfo(codes.dtype).eps * (problem.weight + problem.products.abs().amax(1, keepdim=True))
    signs = codes.sign()
    done = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
    best = codes.clone()
    for _ in range(NEWTON):
        todo = (~done & (signs.count_nonzero(1) <= most)).nonzero()[:, 0]
        if not len(todo):
            break
        some, sign = problem.of(todo), signs[todo]
        new = on_support(some.products, some.gram, problem.weight, sign)
        slack = some.slack(new)
        off = slack if problem.positive else slack.abs()
        good = (off <= problem.weight + tolerance[todo]).all(1) & (new * sign >= 0).all(1) & new.isfinite().all(1)
        best[todo[good]], done[todo[good]] = new[good], True
        signs[todo] = _shrink(new + slack, problem.weight, problem.positive).sign()
    return best, done


def on_support(
    products: Float[Tensor, "row atom"],
    gram: Float[Tensor, "atom atom"],
    weight: float,
    signs: Float[Tensor, "row atom"],
) -> Float[Tensor, "row atom"]:
    """Return the coefficients of the atoms in use, differentiably: G_SS⁻¹·(products_S − λ·signs_S), zeros elsewhere.

    Args:
        products: products of rows and atoms, (N, K).
        gram: products of atoms, (K, K).
        weight: λ.
        signs: sign of each coefficient, (N, K); 0 for an atom that is not in use.
    """
    most = max(int(signs.count_nonzero(1).max()), 1)
    share = max(PIECE // most**2, 1)
    pieces = [
        _solved(some, gram, weight, sign, most)
        for some, sign in zip(products.split(share), signs.split(share), strict=True)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _solved(products: Tensor, gram: Tensor, weight: float, signs: Tensor, most: int) -> Tensor:
    used, atoms = signs.abs().topk(most, dim=1)  # signs 1 first, then zeros, whose equations are a = 0
    ridge = 10 * torch.finfo(gram.dtype).eps  # for atoms that occur twice
    pairs = used[:, :, None] * used[:, None, :]
    system = gram[atoms[:, :, None], atoms[:, None, :]] * pairs + torch.diag_embed(1 - used + ridge * used)
    wanted = (products.gather(1, atoms) - weight * signs.gather(1, atoms)) * used
    found = torch.linalg.solve_ex(system, wanted[..., None]).result[..., 0]
    return torch.zeros_like(products).scatter(1, atoms, found * used)
