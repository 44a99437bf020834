import numpy as np
import pytest
import torch
from helpers.inversions import Fragile, flat, papers_prior, photographs, small_network
from torch import nn

from invrep.api import representation
from invrep.inversion.measures import measure
from invrep.inversion.module import Inversion
from invrep.inversion.pixels import Pixels
from invrep.inversion.solver import solve
from invrep.objectives.activation import Caricature
from invrep.objectives.match import Match
from invrep.optim.bases import FourierBasis
from invrep.optim.descent import Descent
from invrep.optim.start_noise import generator_of
from invrep.presets import build, preset
from invrep.priors.prior import FixedPrior, Prior
from invrep.representations.base import Representation
from invrep.representations.network import Network
from invrep.representations.zoo.user_function import Function

# of three photos: each is at its place beside others, and beside itself
ORDERS = ([0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 0, 2], [0, 0, 0])


def start(phi: Representation, photos: torch.Tensor, descent: Descent | None = None) -> Inversion:
    """Return an inversion that has not begun."""
    descent = descent or Descent()
    prior = Prior().for_shape(tuple(photos.shape[1:]), phi)
    noise = torch.stack([descent.draw(tuple(photos.shape[1:]), 0, str(k), 0, prior) for k in range(len(photos))])
    with torch.no_grad():
        code = phi(photos)
    return Inversion(noise.to(photos), phi=phi, objective=Match(code), prior=prior, descent=descent)


def test_the_image_is_the_only_parameter_and_all_of_a_checkpoint():
    inversion = start(small_network(), torch.rand(2, 3, 24, 20))
    assert list(inversion.parameters()) == [inversion.image]
    assert list(inversion.state_dict()) == ["image"]


def test_pixels_round_trip():
    pixels = Pixels(torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)[:, None, None], 68.92)
    rgb = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(pixels.to_rgb(pixels.from_rgb(rgb)), rgb)
    assert float(pixels.from_rgb(pixels.mean[None] + 1)[0, 0]) == pytest.approx(255 / 68.92)


@pytest.mark.parametrize("optim", ["adam", "cvpr15"])
@pytest.mark.parametrize(
    ("make", "color", "beta"),
    [
        (lambda: representation("hog"), "gray", 2.0),
        (lambda: representation("hogb"), "rgb", 1.5),
        (small_network, "rgb", 2.0),
    ],
)
def test_an_image_is_equal_to_the_bit_whatever_stands_beside_it(make, color, beta, optim):
    photos = photographs((37, 53), color)
    config = preset("prior", "natural")
    config.tv.beta = beta
    found = {}
    for order in ORDERS:
        inversion = solve(
            photos[order],
            [(k, f"photo {n}", 0) for k, n in enumerate(order)],
            phi=make(),
            prior=build(config),
            descent=build({**preset("optim", optim), "steps": 10}),
        )
        for place, image in zip(enumerate(order), inversion.image.detach(), strict=True):
            assert torch.equal(image, found.setdefault(place, image))


def test_one_pass_agrees_across_batch_sizes():
    photos = photographs((37, 53), "rgb").double()
    whole = start(small_network().double(), photos)
    whole()["energy"].sum().backward()
    for k in range(3):
        alone = start(small_network().double(), photos[k : k + 1])
        alone.image.data = whole.image.data[k : k + 1].clone()
        alone()["energy"].sum().backward()
        torch.testing.assert_close(alone.image.grad[0], whole.image.grad[k], rtol=1e-10, atol=1e-18)


def follow(targets: torch.Tensor, names: str, **options) -> Inversion:
    return solve(
        targets.clamp(max=0.5),  # what Fragile takes
        [(k, name, 0) for k, name in enumerate(names)],
        phi=Fragile(),
        prior=Prior(),
        objective=lambda code, **_: Match([targets]),
        segment=5,
        **options,
    )


def test_an_image_that_fails_keeps_its_last_good_state_and_leaves_the_others():
    # at a constant rate it runs into the bright each time that it has been put back, however slowly
    descent = Descent(steps=900, lr=0.03, schedule="constant")
    inversion = follow(flat(0.4, 0.5, 0.9), "abc", descent=descent)
    assert inversion.status.active.tolist() == [True, True, False]
    assert inversion.reconstruction().isfinite().all()
    assert 0.5 < float(inversion.reconstruction()[2].mean()) <= 0.55
    others = follow(flat(0.4, 0.5, 0.4), "aba", descent=descent)
    assert others.status.active.all() and torch.equal(inversion.image[:2], others.image[:2])
    assert (inversion.status.pace[:2] == 1).all()
    assert inversion.status.whys()[:2] == [None, None] and "its code became NaN" in inversion.status.whys()[2]


class Cliff(torch.autograd.Function):
    """The identity, of which a bright image has no derivative."""

    @staticmethod
    def forward(ctx, images: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(images)
        return images.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        bright = ctx.saved_tensors[0].mean((1, 2, 3), keepdim=True) > 0.55
        return torch.where(bright, torch.nan, gradient)


def test_what_is_no_divergence_is_not_called_one():
    rows = [(0, "a", 0), (1, "b", 0)]
    targets = flat(0.4, 0.9)
    options = {"phi": Network(Function(Cliff.apply)), "prior": Prior(), "segment": 5}
    steady = Descent(steps=400, lr=0.03, schedule="constant")
    inversion = solve(targets, rows, descent=steady, **options)
    assert inversion.status.whys()[0] is None and "its gradient became NaN" in inversion.status.whys()[1]
    assert inversion.reconstruction().isfinite().all()


def test_an_image_that_diverges_goes_on_with_a_smaller_step():
    photo = photographs((24, 32), "gray")[:2]
    prior = Prior(**papers_prior().terms)
    config = {**preset("optim", "cvpr15"), "schedule": [[0.5, 100], [0.05, 100]]}  # a hundred times the paper's
    rows = [(0, "a", 0), (1, "b", 0)]
    inversion = solve(photo, rows, phi=representation("hogb"), prior=prior, descent=build(config), segment=10)
    assert inversion.status.active.all() and (inversion.status.pace < 1).all()
    assert (inversion.curve[-1][1]["energy"] < 0.5 * inversion.curve[0][1]["energy"]).all()


@pytest.mark.parametrize("name", ["LBFGS", "NAdam"])
def test_an_optimiser_with_other_states_survives_a_divergence(name):
    inversion = follow(flat(0.9), "a", descent=Descent(name=name, lr=0.2, steps=60, schedule="constant"))
    assert (inversion.status.pace < 1).all() and inversion.reconstruction().isfinite().all()


@pytest.mark.parametrize("options", [{"lr": 1e6}, {"lr": 1e30}, {"name": "SGD", "lr": 1e12}])
def test_an_image_whose_every_pass_diverges_has_failed(options):
    """Three segments are fewer than the retries."""
    inversion = follow(flat(0.4, 0.3), "ab", descent=Descent(steps=15, **options))
    assert not inversion.status.active.any()
    assert all("lower the learning rate" in why for why in inversion.status.whys())
    assert inversion.reconstruction().isfinite().all()


def test_an_image_that_ends_no_lower_than_it_began_has_failed():
    descent = Descent(name="SGD", lr=1e-30, steps=5, schedule="constant")  # rounded away
    inversion = follow(flat(0.4), "a", descent=descent)
    (why,) = inversion.status.whys()
    assert (inversion.status.pace == 1).all() and "no lower energy than it began with" in why
    good = follow(flat(0.4), "a", descent=Descent(steps=5))
    assert good.status.active.all() and good.status.whys() == [None]


# --- stages, jitter, bases -----------------------------------------------------------------------------------------


def test_the_ijcv_descent_equals_a_loop_written_out():
    """Both stages, with the energy, the steps, the ball and the crops as paper.md §1 and §2 state them."""
    photo = photographs((21, 26), "rgb")[:1].double()
    network = small_network().double()
    network.stride = 12  # T = 3
    descent = build({**preset("optim", "ijcv16"), "steps": 12, "polish": 4})
    config = build(preset("prior", "ijcv16"))
    inversion = solve(photo, [(0, "a", 3)], phi=network, prior=config, descent=descent, seed=7, segment=5)
    assert inversion.passes == 12 and [at for at, _ in inversion.curve] == [*range(9), *range(8, 13)]

    mean = 255 * network.mean
    (target,) = network(photo)

    def energy(x, crop):
        code = network((crop + mean) / 255)[0]
        n = x.shape[2] * x.shape[3]
        d1 = torch.cat([x.diff(dim=3), torch.zeros_like(x[..., :1])], 3)
        d2 = torch.cat([x.diff(dim=2), torch.zeros_like(x[:, :, :1])], 2)
        return (
            (code - target).square().sum() / target.square().sum()
            + (6.5 / 80) ** 2 / n * (d1**2 + d2**2).sum()
            + (1 / 80) ** 6 / n * x.square().sum(1).pow(3).sum()
        )

    uniform = 2 * torch.rand((3, 23, 28), generator=generator_of(7, "a", 3), dtype=torch.float64) - 1
    x = (uniform / uniform.flatten().quantile(0.95, interpolation="lower") * 80 / 3**0.5)[None]
    offsets = torch.randint(3, (8, 2), generator=generator_of(7, "a", 3, "jitter"))
    for stage, passes in ((1, 8), (2, 4)):
        v, g = torch.zeros_like(x), torch.zeros_like(x)
        height, width = (23, 28) if stage == 1 else (21, 26)
        lr = height * width * 0.05 * 80**2 / 6 / (1 if stage == 1 else 10)
        for k in range(passes):
            x = x.detach().requires_grad_()
            i, j = offsets[k].tolist() if stage == 1 else (0, 0)
            energy(x, x[:, :, i : i + 21, j : j + 26]).backward()
            g = 0.9 * g + x.grad**2
            v = 0.9 * v - x.grad / (1 / lr + g.sqrt())
            x = (x + v).detach()
            x = x * (160 / x.norm(dim=1, keepdim=True)).clamp(max=1)
        if stage == 1:
            x = x[:, :, 1:22, 1:27]
    torch.testing.assert_close(inversion.reconstruction(), (x + mean) / 255, rtol=1e-8, atol=1e-10)


def test_jitter_depends_on_no_neighbour():
    photos = photographs((37, 53), "rgb")
    found = {}
    for order in ORDERS:
        network = small_network()
        network.stride = 16
        inversion = solve(
            photos[order],
            [(k, f"photo {n}", 0) for k, n in enumerate(order)],
            phi=network,
            prior=build(preset("prior", "ijcv16")),
            descent=build({**preset("optim", "ijcv16"), "steps": 10}),
        )
        assert inversion.jitter is None and inversion.reconstruction().shape == photos.shape
        for place, image in zip(enumerate(order), inversion.image.detach(), strict=True):
            assert torch.equal(image, found.setdefault(place, image))


@pytest.mark.parametrize("decorrelate", [False, True])
def test_the_fourier_basis_is_one_and_its_image_a_photo_of_scaled_cosines(decorrelate):
    from scipy.fft import idctn

    basis = FourierBasis((3, 21, 34), decorrelate=decorrelate)
    image = torch.rand(2, 3, 21, 34, dtype=torch.float64)
    torch.testing.assert_close(basis.synthesise(basis.analyse(image)), image)
    z = torch.zeros(1, 3, 21, 34, dtype=torch.float64)
    z[0, 1, 2, 5] = 2.0
    f = ((2 / 42) ** 2 + (5 / 68) ** 2) ** 0.5
    lowest = basis.scale[0, 0] * (1 / 34)
    assert float(basis.scale[2, 5] * f) == pytest.approx(float(lowest))
    wave = torch.from_numpy(idctn((z[0, 1] * basis.scale).numpy(), norm="ortho"))
    found = basis.synthesise(z)[0]
    mixed = torch.tensor([0.0, 1, 0], dtype=torch.float64) if basis.colour is None else basis.colour[:, 1]
    torch.testing.assert_close(found, mixed[:, None, None] * wave)


@pytest.mark.parametrize("options", [{}, {"decorrelate": True}])
def test_the_descent_in_the_fourier_basis(options):
    photos = photographs((37, 53), "rgb")
    descent = Descent(basis="fourier", noise="natural", steps=30, warm_up=3, **options)
    found = {}
    for order in ORDERS:
        rows = [(k, f"photo {n}", 0) for k, n in enumerate(order)]
        inversion = solve(photos[order], rows, phi=representation("hogb"), prior=Prior(), descent=descent)
        assert list(inversion.parameters()) == [inversion.image]
        for place, image in zip(enumerate(order), inversion.image.detach(), strict=True):
            assert torch.equal(image, found.setdefault(place, image))
    assert (inversion.curve[-1][1]["error"] < 0.5 * inversion.curve[0][1]["error"]).all()


def test_curve_counts_passes_and_its_energy_is_the_sum_of_its_terms():
    photos = photographs((24, 32), "gray")[:1]
    inversion = solve(
        photos,
        [(0, "a", 0)],
        phi=representation("hogb"),
        prior=Prior(**_terms()),
        descent=Descent(steps=65),
        segment=10,
    )
    assert [at for at, _ in inversion.curve] == list(range(66))
    for _, terms in inversion.curve:
        assert set(terms) == {"error", "energy", "data", "tv", "alpha"}
        torch.testing.assert_close(terms["energy"], terms["data"] + terms["tv"] + terms["alpha"])
    assert inversion.curve[-1][1]["energy"] < 0.5 * inversion.curve[0][1]["energy"]


@pytest.mark.parametrize("objective", [Match, Caricature])
def test_continuation_weighs_the_priors_more_at_first_and_shows_the_energy_as_it_is(objective):
    photos = photographs((24, 32), "gray")[:1]
    steps = 12

    def run(prior: Prior, **options: object) -> Inversion:
        descent = Descent(basis="fourier", noise="natural", schedule="linear", steps=steps, **options)
        how = {"phi": representation("hogb"), "objective": objective, "segment": 1}
        return solve(photos, [(0, "a", 0)], prior=prior, descent=descent, **how)

    plain, heavy = run(Prior(**_terms())), run(Prior(**_terms()), continuation=7.0)
    for _, terms in heavy.curve:
        torch.testing.assert_close(terms["energy"], terms["data"] + terms["tv"] + terms["alpha"])
    if objective is Caricature:  # there is no noise to be rid of
        assert torch.equal(heavy.image, plain.image)
        return
    factors = [heavy.descent.prior_factor(k / steps) for k in range(steps)]
    assert factors == pytest.approx([7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1, 1])

    class Falling(Prior):  # the same descent, written with the weights themselves
        def for_shape(self, *shape: object, **unit: object) -> FixedPrior:
            fixed, passes = super().for_shape(*shape, **unit), iter(factors)
            weights = dict(fixed.factors)

            class Fixed(FixedPrior):
                def __call__(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
                    now = next(passes, 1.0) if torch.is_grad_enabled() else 1.0
                    self.factors.update({name: weight * now for name, weight in weights.items()})
                    return super().__call__(image)

            return Fixed(**vars(fixed))

    written = run(Falling(**_terms()))
    torch.testing.assert_close(heavy.image, written.image, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(plain.image, written.image, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("optim", ["adam", "cvpr15", "ijcv16", "SGD", "RMSprop"])
@pytest.mark.parametrize("prior", ["natural", "cvpr15", "ijcv16", "none"])
def test_every_descent_goes_with_every_prior(prior, optim):
    if optim in ("SGD", "RMSprop"):
        descent = Descent(name=optim, lr=0.2 if optim == "SGD" else 0.01, steps=60)
    else:
        descent = build({**preset("optim", optim), "steps": 60})
    priors = build({**preset("prior", prior), "sigma": "auto"})  # the published σ is for larger images
    photos = photographs((24, 32), "gray")[:1]
    inversion = solve(photos, [(0, "a", 0)], phi=representation("hogb"), prior=priors, descent=descent)
    begun, ended = inversion.curve[0][1]["error"], inversion.latest["error"]
    assert (ended < 0.6 * begun).all() and (optim != "adam" or float(ended) < 0.02)


def _terms() -> dict[str, nn.Module]:
    return papers_prior().terms


@pytest.mark.parametrize("name", ["LBFGS", "Rprop"])
def test_other_optimisers_run_through_the_loop(name):
    photos = photographs((24, 32), "gray")[:1]
    inversion = solve(
        photos,
        [(0, "a", 0)],
        phi=representation("hogb"),
        prior=Prior(**_terms()),
        descent=Descent(name=name, lr=1.0 if name == "LBFGS" else 0.01, schedule="constant", steps=60),
    )
    assert 60 <= inversion.passes <= 85
    assert inversion.curve[-1][1]["energy"] < 0.7 * inversion.curve[0][1]["energy"]


def test_the_authors_descent_equals_a_loop_written_out():
    """Heavy ball in the paper's variable x, in float64, against the formulas of paper.md §1 and §2."""
    photos = photographs((21, 26), "rgb")[:1].double()
    phi = small_network().double()
    phi.receptive_field = 11
    prior, descent = (
        build({**preset(group, "cvpr15"), **more})
        for group, more in (("prior", {"sigma": 2789.0}), ("optim", {"schedule": [[1e-4, 10], [1e-5, 20], [1e-6, 10]]}))
    )
    inversion = solve(photos, [(0, "a", 3)], phi=phi, prior=prior, descent=descent, seed=7)
    sigma = 2789.0  # the published σ is for larger images
    x = descent.draw((3, 21, 26), 7, "a", 3, prior.for_shape((3, 21, 26), phi, scale="sigma"))[None].requires_grad_()
    start = x.detach()
    mean = 255 * torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    target = phi(photos)[0].detach()
    v = torch.zeros_like(x)
    for step in range(40):
        lr = 1e-4 if step < 10 else 1e-5 if step < 30 else 1e-6
        if step in (10, 30):
            v.zero_()
        energy = (phi((sigma * x + mean) / 255)[0] - target).square().sum() / target.square().sum()
        energy = energy + 4e-10 * sigma**4 * (x**6).sum()
        energy = energy + 0.5 * (x.diff(dim=2).square().sum() + x.diff(dim=3).square().sum())
        (gradient,) = torch.autograd.grad(energy, x)
        v = 0.9 * v - lr * gradient
        x = (x + v).detach().requires_grad_()
    assert float((x - start).norm() / start.norm()) > 0.01
    np.testing.assert_allclose(inversion.image.detach(), x.detach(), rtol=1e-6, atol=1e-12)


def test_measure_is_of_the_final_images():
    photos = photographs((24, 32), "gray")
    phi = representation("hogb")
    inversion = solve(
        photos, [(k, str(k), 0) for k in range(3)], phi=phi, prior=Prior(**_terms()), descent=Descent(steps=15)
    )
    found = measure(inversion, photos)
    with torch.no_grad():
        code, target = phi(inversion.reconstruction())[0], phi(photos)[0]
    error = (code - target).flatten(1).square().sum(1) / target.flatten(1).square().sum(1)
    torch.testing.assert_close(found["error"].float(), error)
    torch.testing.assert_close(found["root_error"].float(), error.sqrt())
    torch.testing.assert_close(found["distance"] / found["code_norm"], found["error"], rtol=1e-5, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pass_on_the_gpu_agrees_with_the_cpu():
    photos = photographs((37, 53), "rgb").double()
    gradients = []
    for device in ("cpu", "cuda"):
        inversion = start(small_network().double(), photos).to(device)
        inversion.setup("fit")
        inversion()["energy"].sum().backward()
        gradients.append(inversion.image.grad.cpu())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-14)
