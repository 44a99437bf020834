import math

import pytest
import torch

from invrep.config import build, preset
from invrep.errors import InvrepError
from invrep.optimisers import Descent, HeavyBall, names
from invrep.priors import Prior
from invrep.representations.base import Representation

PHI = Representation()
FIXED = Prior().for_shape((1, 2, 2), PHI)


def test_heavy_ball_is_the_authors_with_momentum_reset():
    x = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimiser = HeavyBall([x], lr=0.1, momentum=0.9)
    y, v = x.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(12):
        lr = 0.1 if step < 5 else 0.01
        if step == 5:
            v.zero_()
        v = 0.9 * v - lr * 2 * y
        y = y + v
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        x.square().sum().backward()
        optimiser.step()
        torch.testing.assert_close(x.detach(), y)


def test_cvpr15_schedule_is_the_papers():
    steps, rate = Descent(name="HeavyBall", schedule="auto", steps=None).plan(PHI)
    assert steps == 400
    assert [rate(p) for p in (0, 99, 100, 299, 300, 399)] == [4e-3, 4e-3, 4e-4, 4e-4, 4e-5, 4e-5]


def test_a_stage_schedule_stretches_to_the_number_of_passes():
    steps, rate = Descent(name="HeavyBall", schedule=[[1.0, 1], [0.1, 3]], steps=40).plan(PHI)
    assert steps == 40
    assert [rate(p) for p in (0, 9, 10, 39, 50)] == [1.0, 1.0, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_named_schedules(schedule, middle):
    steps, rate = Descent(lr=1.0, steps=10, schedule=schedule).plan(PHI)
    assert (steps, rate(0)) == (10, 1.0)
    assert rate(5) == pytest.approx(middle)


def test_noise_depends_on_seed_id_and_restart_only():
    prior = Prior(sigma=100.0, scale=10.0).for_shape((3, 8, 9), PHI)
    descent = Descent(start=0.5)
    noise = descent.draw((3, 8, 9), 1, "a.jpg", 2, prior)
    assert torch.equal(noise, descent.draw((3, 8, 9), 1, "a.jpg", 2, prior))
    assert float(noise.norm()) == pytest.approx(0.5 * 100 / 10)
    for other in ((2, "a.jpg", 2), (1, "b.jpg", 2), (1, "a.jpg", 3)):
        assert (
            abs(float(torch.corrcoef(torch.stack([noise, descent.draw((3, 8, 9), *other, prior)]).flatten(1))[0, 1]))
            < 0.3
        )


def test_learning_rate_of_the_heavy_ball_is_for_the_papers_variable():
    fixed = Prior(sigma=1000.0, scale=10.0).for_shape((1, 8, 8), PHI)
    assert Descent(name="HeavyBall", schedule="auto").lr_unit(fixed, (1, 1, 8, 9)) == pytest.approx(1e4)
    assert Descent(name="Adam").lr_unit(fixed, (1, 1, 8, 9)) == 1.0


@pytest.mark.parametrize("name", [n for n in names() if n != "LBFGS"])
def test_every_optimiser_descends_and_keeps_images_apart(name):
    if name == "Adafactor":
        with pytest.raises(InvrepError, match=r"batch_size=1"):
            Descent(name=name).optimiser(torch.nn.Parameter(torch.zeros(2, 1, 2, 2)), 0.1, FIXED)
        return
    starts = torch.tensor([[4.0, -3.0], [0.5, float("nan")]])[:, None, :, None]
    lr = {"Adadelta": 1.0, "SGD": 0.1, "HeavyBall": 0.05, "ASGD": 0.1}.get(name, 0.05)
    found = []
    for rows in ([0, 1], [0, 0]):
        x = torch.nn.Parameter(starts[rows].clone())
        optimiser = Descent(name=name).optimiser(x, lr, FIXED)
        for _ in range(30):
            optimiser.zero_grad()
            x.square().sum().backward()
            optimiser.step()
        found.append(x.detach()[0])
    assert found[0].square().sum() < 25
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    "options",
    [
        {"name": "Adamm"},
        {"lr": -1},
        {"steps": 2.5},
        {"steps": "many"},
        {"schedule": "cosin"},
        {"schedule": [[0.1]]},
        {"schedule": [[0.1, 0]]},
        {"steps": None},
        {"straight_through": 1},
        {"continuation": 0.5},
        {"start": math.inf},
    ],
)
def test_wrong_values_are_refused(options):
    with pytest.raises(InvrepError, match=r"expected|missing|needs"):
        Descent(**options)


def test_wrong_options_of_the_class_are_refused():
    with pytest.raises(InvrepError, match=r"momentum"):
        Descent(options={"momentum": 0.9}).optimiser(torch.nn.Parameter(torch.zeros(1, 1, 2, 2)), 0.1, FIXED)


def test_a_start_that_would_diverge_is_foreseen():
    authors = build(preset("optim", "cvpr15"))
    for shape, sigma, wrong in (
        ((1, 171, 256), "cvpr15", True),  # diverges (shared/README.md)
        ((3, 227, 227), "cvpr15", False),
        ((1, 171, 256), "natural", False),
    ):
        prior = build(preset("prior", sigma)).for_shape(shape, PHI)
        found = authors.warning(PHI, prior, shape)
        assert (found is not None) == wrong, shape
        assert found is None or "σ = 27098 is too loud for 256×171 px" in found
    assert build(preset("optim", "adam")).warning(PHI, prior, shape) is None
