import math

import pytest
import torch

from invrep.errors import InvrepError
from invrep.optim.descent import Descent
from invrep.optim.optimizers import ForgettingAdaGrad, HeavyBall, names
from invrep.presets import build, preset
from invrep.priors.prior import Prior
from invrep.representations.base import Representation

PHI = Representation()


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


@pytest.mark.parametrize(("decay", "momentum"), [(0.9, 0.9), (0.99, 0.5), (0.5, 0.0)])
def test_forgetting_adagrad_is_the_authors(decay, momentum):
    x = torch.nn.Parameter(torch.tensor([30.0, -2.0, 0.01], dtype=torch.float64))
    optimiser = ForgettingAdaGrad([x], lr=3.0, decay=decay, momentum=momentum)
    y, v, squares = x.detach().clone(), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for step in range(350):
        lr = 3.0 if step < 300 else 0.3
        squares = decay * squares + (2 * y).square()
        v = momentum * v - 2 * y / (1 / lr + squares.sqrt())
        y = y + v
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        x.square().sum().backward()
        optimiser.step()
        torch.testing.assert_close(x.detach(), y, rtol=1e-9, atol=1e-12)
    assert optimiser.param_groups[0]["lr"] == 0.3


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
    prior = Prior(sigma=100.0).for_shape((3, 8, 9), PHI, scale=10)
    descent = Descent(start=0.5)
    noise = descent.draw((3, 8, 9), 1, "a.jpg", 2, prior)
    assert torch.equal(noise, descent.draw((3, 8, 9), 1, "a.jpg", 2, prior))
    assert float(noise.norm()) == pytest.approx(0.5 * 100 / 10)
    for other in ((2, "a.jpg", 2), (1, "b.jpg", 2), (1, "a.jpg", 3)):
        assert (
            abs(float(torch.corrcoef(torch.stack([noise, descent.draw((3, 8, 9), *other, prior)]).flatten(1))[0, 1]))
            < 0.3
        )


def test_a_rate_is_for_the_papers_variable_or_for_255_grey_levels_whatever_the_prior():
    assert Descent(name="HeavyBall", schedule="auto").scale == "sigma"
    assert Descent(name="ForgettingAdaGrad").scale == 1 and Descent(name="Adam").scale == 255
    assert Descent(name="ForgettingAdaGrad").lr_unit((1, 1, 8, 9)) == pytest.approx(72 * 0.05 * 80**2 / 6)
    assert Descent(name="Adam").lr_unit((1, 1, 8, 9)) == 1.0


@pytest.mark.parametrize("name", [n for n in names() if n != "LBFGS"])
def test_every_optimiser_descends_and_keeps_images_apart(name):
    if name == "Adafactor":
        with pytest.raises(InvrepError, match=r"batch_size=1"):
            Descent(name=name).optimiser(torch.nn.Parameter(torch.zeros(2, 1, 2, 2)), 0.1)
        return
    starts = torch.tensor([[4.0, -3.0], [0.5, float("nan")]])[:, None, :, None]
    lr = {"Adadelta": 1.0, "SGD": 0.1, "HeavyBall": 0.05, "ASGD": 0.1}.get(name, 0.05)
    found = []
    for rows in ([0, 1], [0, 0]):
        x = torch.nn.Parameter(starts[rows].clone())
        optimiser = Descent(name=name).optimiser(x, lr)
        for _ in range(30):
            optimiser.zero_grad()
            x.square().sum().backward()
            optimiser.step()
        found.append(x.detach()[0])
    assert found[0].square().sum() < 25
    assert torch.equal(found[0], found[1])


def test_every_schedule_warms_up():
    steps, rate = Descent(schedule=[[0.1, 10], [0.01, 10]], steps=None, warm_up=5).plan(PHI)
    assert steps == 20 and [rate(p) for p in (0, 3, 4, 10)] == pytest.approx([0.02, 0.08, 0.1, 0.01])


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
        {"decorrelate": True},  # of the basis pixel
        {"schedule": [[0.1, 10]], "polish": 5},
        {"schedule": "auto", "polish": 5},
    ],
)
def test_wrong_values_are_refused(options):
    with pytest.raises(InvrepError, match=r"expected|missing|needs|no effect|does not use"):
        Descent(**options)


@pytest.mark.parametrize(
    ("name", "option"),
    [("Adam", {"momentum": 0.9}), ("ForgettingAdaGrad", {"decay": 1})],
)
def test_wrong_options_of_the_class_are_refused(name, option):
    with pytest.raises(InvrepError, match=next(iter(option))):
        Descent(name=name, options=option).optimiser(torch.nn.Parameter(torch.zeros(1, 1, 2, 2)), 0.1)


def test_a_start_that_would_diverge_is_foreseen():
    authors = build(preset("optim", "cvpr15"))
    for shape, sigma, wrong in (
        ((1, 171, 256), "cvpr15", True),  # diverges (shared/README.md)
        ((3, 227, 227), "cvpr15", False),
        ((1, 171, 256), "natural", False),
    ):
        prior = build(preset("prior", sigma)).for_shape(shape, PHI)
        found = authors.warnings(PHI, prior, shape)
        assert len(found) == wrong, shape
        assert not wrong or "σ = 27098 is too loud for 256×171 px" in found[0]
    assert build(preset("optim", "adam")).warnings(PHI, prior, shape) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["basis=pixel", "optim.decorrelate=true"], "add basis=fourier"),
        (["optim.decorrelate=true"], "no effect on grey images"),
        (["optim=cvpr15", "optim.lr=.01"], "optim.lr=0.01 has no effect"),
        (["optim.schedule=[[.03,2],[.003,2]]", "optim.lr=.01"], "optim.lr=0.01 has no effect"),
        (["optim=ijcv16", "optim.schedule=[[1,2],[.1,2]]"], "add optim.polish=0"),
    ],
)
def test_what_has_no_effect_is_refused(job, overrides, said):
    outcome = job(*overrides, "dry_run=true")
    assert outcome.status == 1 and said in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optim.tolerance=1e-3"], "optim.tolerance=0.001 stops no image early"),
        (["rep=dsift", "optim=ijcv16"], "less than a pixel"),
        (["optim.schedule=[[.03,2],[.003,2]]"], None),  # with the preset's own rate
        (["optim=cvpr15", "optim.tolerance=1e-3", "prior.sigma=auto", "optim.steps=80"], None),
    ],
)
def test_what_will_do_nothing_is_said(job, overrides, said):
    outcome = job(*overrides, "dry_run=true")
    assert outcome.status == 0, outcome.err
    assert ("warning" not in outcome.out) if said is None else (said in " ".join(outcome.out.split()))


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_photo_whose_every_pass_diverges_is_reported(job, photos, rate):
    outcome = job(f"data.path={photos}", "data.limit=1", f"optim.lr={rate}", "optim.steps=6")
    assert outcome.status == 1 and "a.png diverged" in outcome.err and "optim.lr" in outcome.err
    assert not (outcome.folder / "grid.png").exists()
