"""When an image has converged, and what an inversion makes of it."""

import pytest
import torch
from helpers.inversions import Fragile, flat, papers_prior, photographs, small_network

from invrep.api import representation
from invrep.inversion.convergence import CHECKS, converged
from invrep.inversion.module import Inversion
from invrep.inversion.outcome import outcome_of
from invrep.inversion.solver import solve
from invrep.objectives.match import Match
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.representations.base import Representation

QUIET = [1.0] * (CHECKS + 1)


def verdict(energies: list[float], *, left: float = CHECKS, tolerance: float = 1e-3, best: float = torch.inf) -> bool:
    checks = [torch.tensor([energy]) for energy in energies]
    return bool(converged(checks, torch.tensor([min(best, *energies)]), left=left, tolerance=tolerance))


@pytest.mark.parametrize(
    ("energies", "options", "expected"),
    [
        (QUIET, {}, True),
        ([1.0 - 1e-4 * k for k in range(CHECKS + 1)], {"left": CHECKS}, False),  # half the tolerance: in doubt
        (QUIET[1:], {}, False),  # a check too few
        ([*QUIET[1:], 1.0097], {}, False),  # the README's former case: a rise
        ([1.0, *[1.0097] * (CHECKS + 1)], {}, False),  # and a plateau above the best
        ([1.0, 1.002, *QUIET[2:]], {}, False),  # noise
        ([1.0 - 4e-5 * k for k in range(CHECKS + 1)], {"left": CHECKS}, True),
        ([1.0 - 1e-4 * k for k in range(4 * CHECKS)], {"left": 4 * CHECKS}, False),  # slow, but there is time
        (QUIET, {"left": 40}, False),  # a verdict on 40 intervals looks back on 10
        (QUIET * 2, {"left": 40}, True),
        ([1e-9 * energy for energy in QUIET], {}, True),  # relative
        ([-1.0 - 1e-3 * k for k in range(CHECKS + 1)], {}, False),  # of an activation
        ([torch.inf] * (CHECKS + 1), {}, False),
        ([torch.inf, *QUIET[1:]], {}, False),
        ([*QUIET, torch.nan], {}, False),
    ],
)
def test_verdicts(energies, options, expected):
    assert verdict(energies, **options) == expected


@pytest.mark.parametrize(
    ("options", "settled"),
    [
        ({"schedule": "linear"}, None),
        ({"schedule": "cosine"}, None),
        ({"schedule": "constant"}, 0),
        ({"schedule": "constant", "warm_up": 5}, 4),
        ({"schedule": [[0.1, 30], [0.01, 70]], "steps": 100}, 30),
        ({"schedule": "constant", "straight_through": True}, None),
    ],
)
def test_a_descent_settles_once_its_recipe_no_longer_changes(options, settled):
    descent = Descent(**{"steps": 100, "straight_through": False, **options})
    assert descent.settled(Representation()) == settled
    warnings = Descent(**vars(descent) | {"tolerance": 1e-3}).warnings(
        Representation(), Prior().for_shape((1, 8, 8), Representation()), (1, 8, 8)
    )
    assert len(warnings) == (settled is None) and all("stops no image early" in warning for warning in warnings)


@pytest.mark.parametrize("optim", ["adam", "cvpr15"])
def test_a_photo_is_not_stopped_while_the_rate_falls(optim):
    """Readme's 1e-3 once stopped HOG's default descent at twice its final energy."""
    photos = photographs((24, 32), "gray")[:2]
    how = {"phi": representation("hog"), "prior": papers_prior(), "segment": 2}
    config = {**preset("optim", optim), "steps": 40}
    whole, tolerant = (
        solve(photos, [(0, "a", 0), (1, "b", 0)], descent=build({**config, **more}), **how)
        for more in ({}, {"tolerance": 1e-3})
    )
    assert torch.equal(whole.image, tolerant.image) and tolerant.passes == 40 and not tolerant.status.done.any()


def follow(tolerance: float | None, names: str = "abc", **options) -> Inversion:
    """Invert three flat images, of which the second is far from what it can reach and soon gains little."""
    targets = flat(0.4, 0.5, 0.3)
    targets[1, 0, 0, 0] = 30
    sizes: list[int] = []

    class Counted(Fragile):
        def encode(self, images: torch.Tensor, surrogate: object) -> list[torch.Tensor]:
            sizes.append(len(images))
            return super().encode(images, surrogate)

    recipe = {"name": "SGD", "lr": 0.2, "options": {"momentum": 0.9}, "schedule": "constant", "steps": 400}
    inversion = solve(
        targets.clamp(max=0.5),
        [(k, name, 0) for k, name in enumerate(names)],
        phi=Counted(),
        prior=papers_prior(),
        objective=lambda code, **_: Match([targets]),
        descent=Descent(**recipe | {"tolerance": tolerance, "straight_through": False} | options),
        segment=10,
    )
    inversion.sizes = sizes
    return inversion


def test_images_that_have_converged_end_as_they_would_and_cost_no_more_time():
    whole, found = follow(None), follow(4e-3)
    assert found.status.done.tolist() == [False, True, True] and whole.passes == found.passes == 400
    torch.testing.assert_close(found.latest["energy"], whole.latest["energy"], rtol=0.01, atol=0)
    assert {1, 3} <= set(found.sizes[:-1]) and set(whole.sizes) == {3}
    outcome = outcome_of(found, None)
    ended = outcome.passes
    assert ended[0] == 400 and 50 < ended[1] < 400 and 50 < ended[2] < 400 and ended[1] != ended[2]
    for k in range(3):  # its own values, which stay as they were at its end
        energies = {at: float(values["energy"][k]) for at, values in outcome.curve}
        assert set(range(0, 401, 10)) <= set(energies)
        assert energies[400] == pytest.approx(float(outcome.measures["energy"][k]), rel=1e-6)
        assert {energies[at] for at in energies if at >= ended[k]} == {energies[400]}
        assert energies[ended[k] - 10] != energies[400]


def test_an_image_ends_alike_whether_or_not_its_neighbours_go_on():
    targets, found = flat(0.3, 0.3, 0.3), follow(1e-3)
    alone = solve(
        targets,
        [(k, "c", 0) for k in range(3)],
        phi=Fragile(),
        prior=papers_prior(),
        descent=found.descent,
        segment=10,
    )
    assert alone.status.done.all() and alone.status.ended.tolist() == [int(found.status.ended[2])] * 3
    torch.testing.assert_close(alone.image[2], found.image[2], rtol=1e-4, atol=1e-6)


def test_no_image_has_converged_while_the_priors_weigh_more():
    found = follow(1e9, continuation=10.0)
    assert (found.status.ended >= 200 + 10 * CHECKS).all() and found.passes < 300


def test_an_image_that_diverges_has_not_converged():
    found = follow(1e-3, lr=200.0, options=None)
    status = found.status
    assert bool((status.pace < 1).all())
    rows = status.done & (status.pace < 1)
    energies = {at: terms["energy"] for at, terms in found.curve}
    # at its stop every one had been where it was for the checks that a verdict looks back on
    for k in rows.nonzero()[:, 0].tolist():
        ended = int(status.ended[k])
        before = [float(energies[at][k]) for at in range(ended - 10 * CHECKS, ended, 10)]
        assert max(before) - min(before) <= 1e-3 * max(before)


@pytest.mark.parametrize("names", ["aa", "ab"])
def test_networks_too(names):
    photos = photographs((37, 53), "rgb")[:2]
    descent = Descent(steps=120, lr=0.01, schedule="constant", straight_through=False, noise="natural", basis="fourier")
    found = [
        solve(
            photos,
            [(k, name, 0) for k, name in enumerate(names)],
            phi=small_network(),
            prior=papers_prior(),
            descent=Descent(**vars(descent) | {"tolerance": tolerance}),
            segment=4,
        )
        for tolerance in (None, 0.01)
    ]
    torch.testing.assert_close(found[1].latest["energy"], found[0].latest["energy"], rtol=0.01, atol=0)
