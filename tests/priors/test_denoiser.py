import copy

import pytest
import torch
from helpers.inversions import papers_prior, small_network
from safetensors.torch import save_file
from torch import nn

from invrep import invert, representation
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.evaluation.metrics import psnr
from invrep.optim.bases import FourierBasis
from invrep.optim.descent import Descent
from invrep.presets import build, preset
from invrep.priors import Denoiser, FFDNet, Prior
from invrep.representations.base import Representation

SHAPE = (3, 16, 16)


class Blur(nn.Module):
    """Mean over 3×3 pixels, and what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.told: list[float] = []

    def forward(self, images: torch.Tensor, sigma: float) -> torch.Tensor:
        self.told.append(sigma * 255)
        return self.weight * nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def photo(side: int = 96) -> torch.Tensor:
    return read(bundled("chelsea"))[None, :, 40 : 40 + side, 120 : 120 + side]


def found(denoiser: Denoiser, steps: int = 16, restarts: int = 1, image: torch.Tensor | None = None, **descent: object):
    image = photo(32) if image is None else image
    recipe = Descent(name="Adam", lr=0.03, steps=steps, basis="fourier", noise="natural", **descent)
    return invert(image, representation("hog"), prior=Prior(denoiser=denoiser), optim=recipe, restarts=restarts)


def test_ffdnet_removes_noise():
    """The published network gains 10 to 11 dB on photos at σ = 25."""
    clean = photo(160)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cleaned = FFDNet()(noisy, 25 / 255)
    assert 20 < float(psnr(noisy, clean)) < 20.6
    assert float(psnr(cleaned, clean)) > 30.2


def test_ffdnet_takes_odd_sides():
    images = photo(64)
    with torch.no_grad():
        whole, odd = FFDNet()(images, 0.05), FFDNet()(images[..., :63, :61], 0.05)
    assert odd.shape == (1, 3, 63, 61)
    torch.testing.assert_close(odd[..., :30, :30], whole[..., :30, :30], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("stride", "noise"), [(4, 6), (8, 12), (32, 24), (None, 24)])
def test_the_noise_follows_the_distance_between_positions(stride, noise):
    phi = Representation()
    phi.stride = stride
    assert Denoiser().fixed(phi).noise == noise


def test_a_denoiser_that_was_given_is_not_left_out_in_silence():
    phi, prior = representation("hog"), of_the_user(target=f"{__name__}.Blur")
    with pytest.raises(InvrepError, match=r"Blur has no effect by default .*such as HOG: .*prior.denoiser.noise=12"):
        prior.for_shape((3, 32, 32), phi)
    prior.denoiser.noise = 12.0
    assert prior.noise(phi) == 12


def test_without_noise_there_is_no_step():
    assert Denoiser(noise=0).fixed(Representation()) is None


def test_the_step_fades_and_its_noise_falls():
    told = Blur()
    denoiser = Denoiser(module=told, noise=10.0).fixed(Representation())
    images = torch.rand(2, *SHAPE)
    steps = [denoiser(images, p) for p in (0.0, 0.5, 1.0)]
    blurred = told(images, 0)
    torch.testing.assert_close(steps[0], blurred - images)
    torch.testing.assert_close(steps[1], (blurred - images) / 2)
    assert not steps[2].any()
    sigmas = denoiser.module.told
    assert sigmas[::2] == sigmas[1::2] == pytest.approx([10, 10 * 0.2**0.5, 2])


def test_grey_images_and_other_channels_are_denoised_one_by_one():
    denoiser = Denoiser(module=Blur(), noise=10).fixed(Representation())
    images = torch.rand(2, 4, 16, 16)
    torch.testing.assert_close(denoiser(images, 0)[:, 2:3], denoiser(images[:, 2:3], 0))
    torch.testing.assert_close(denoiser(images[:, :3], 0), denoiser(images, 0)[:, :3])


def test_the_users_module_stays_as_it_is():
    module = Blur().train()
    before = copy.deepcopy(module.state_dict())
    found(Denoiser(module=module, noise=8, every=4))
    assert module.training and module.weight.requires_grad and not module.told
    assert before == module.state_dict()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_module_may_write_into_its_images(channels):
    def clean(images: torch.Tensor, sigma: float) -> torch.Tensor:
        return images * 0.5

    def writing(images: torch.Tensor, sigma: float) -> torch.Tensor:
        return images.mul_(0.5)

    images = torch.rand(2, channels, 8, 8)
    steps = [Denoiser(module=module, noise=8).fixed(Representation())(images, 0.25) for module in (clean, writing)]
    assert torch.equal(*steps) and steps[0].abs().max() > 0.1


@pytest.mark.parametrize("native", [True, False])
def test_only_the_denoiser_computes_in_bfloat16_and_only_where_that_is_native(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    rounded: list[bool] = []

    def module(images: torch.Tensor, sigma: float) -> torch.Tensor:
        rounded.append(torch.is_autocast_enabled("cpu"))
        return images

    def pictures(prior: Prior) -> torch.Tensor:
        descent = Descent(name="Adam", lr=0.03, steps=9, basis="fourier", noise="natural")
        return invert(photo(32), small_network(), prior=prior, optim=descent).reconstructions

    unmoved = pictures(Prior(denoiser=Denoiser(module=module, noise=8, every=4)))
    assert rounded == [native] * 2
    torch.testing.assert_close(unmoved, pictures(Prior()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("every", [3, 8])
def test_steps_follow_every_so_many_passes(every):
    denoiser = Denoiser(module=Blur(), noise=8, every=every)
    found(denoiser, steps=16)
    assert len(denoiser.module.told) == 16 // every


def test_a_picture_is_smoother_and_does_not_depend_on_its_neighbours():
    plain, denoised = found(Denoiser(noise=0)), found(Denoiser(noise=16, every=4), restarts=2)
    rough = [float(x.reconstructions.diff(dim=-1).square().mean()) for x in (plain, denoised)]
    assert rough[1] < rough[0]
    alone = found(Denoiser(noise=16, every=4))
    assert torch.equal(alone.reconstructions[:, 0], denoised.reconstructions[:, 0])


def test_stages_and_jitter_share_one_count_of_passes():
    denoiser = Denoiser(module=Blur(), noise=8, every=4)
    recipe = {"polish": 4, "jitter": True}
    assert found(denoiser, steps=16, **recipe).reconstructions.shape[-2:] == (32, 32)
    assert denoiser.module.told[-1] == pytest.approx(8 * 0.2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lambda images: images,
            r"The denoiser <lambda> fails .*TypeError.*Expected a module of \(images in \[0, 1\], σ\)",
        ),
        (lambda images, sigma: images[..., 1:], r"returns shape \(1, 3, 32, 31\); expected .*\(1, 3, 32, 32\)"),
        (lambda images, sigma: [images], "returns list; expected images"),
        (lambda images, sigma: images / 0, "returns NaN or infinity for finite images"),
    ],
)
def test_a_module_that_is_no_denoiser_is_named(module, message):
    with pytest.raises(InvrepError, match=message):
        found(Denoiser(module=module, noise=8, every=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "prior.denoiser.noise=-1"),
        ({"every": 0}, "prior.denoiser.every=0"),
        ({"every": 1.5}, "every=1.5"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(InvrepError, match=message):
        Denoiser(**options)


def test_a_prior_takes_a_denoiser_only():
    with pytest.raises(InvrepError, match=r"prior.denoiser is a value of type str; expected a Denoiser"):
        Prior(denoiser="ffdnet")


def of_the_user(**options: object) -> Prior:
    config = preset("prior", "denoiser")
    for key, value in options.items():
        config[key] = value
    return build(config)


def test_a_denoiser_of_the_users_is_found_by_its_path(tmp_path):
    weights = tmp_path / "blur.safetensors"
    save_file({"weight": torch.full((), 0.5)}, weights)
    prior = of_the_user(target=f"{__name__}.Blur", weights=str(weights))
    assert isinstance(prior.denoiser.module, Blur) and float(prior.denoiser.module.weight) == 0.5
    assert prior.denoiser.noise == "auto" and set(prior.terms) == {"box", "tv", "alpha"}
    assert isinstance(of_the_user().denoiser.module, FFDNet)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "nowhere.Net"}, r"prior.target=nowhere.Net cannot be imported .*expected package.module.factory"),
        ({"target": "Blur"}, "prior.target=Blur is not valid"),
        ({"target": f"{__name__}.Blur", "args": {"width": 3}}, r"does not take prior.args=\{'width': 3\}"),
        ({"target": f"{__name__}.photo"}, "made a Tensor, expected an nn.Module"),
        ({"denoiser": None}, "prior.denoiser is None; expected a Denoiser; without one take prior=natural"),
        ({"weights": "drunet.pth"}, r"prior.weights are those of prior.target, which is missing"),
        ({"target": f"{__name__}.Blur", "weights": "absent.pth"}, "absent.pth"),
    ],
)
def test_a_denoiser_that_cannot_be_had_is_named(options, message):
    with pytest.raises(InvrepError, match=message):
        of_the_user(**options)


def test_the_plan_says_that_no_image_converges_beside_a_denoiser():
    phi, descent = Representation(), Descent(schedule="constant", straight_through=False, tolerance=1e-2, steps=400)
    for prior, said in ((Prior(), 0), (Prior(denoiser=Denoiser()), 1)):
        fixed = prior.for_shape((3, 8, 8), phi)
        found = [text for text in descent.warnings(phi, fixed, (3, 8, 8)) if "denoiser's steps fade" in text]
        assert len(found) == said


@pytest.mark.parametrize("name", ["hog", "hogb", "dsift"])
def test_codes_that_ignore_contrast_keep_the_papers_energy(name):
    phi = representation(name)
    ours = build(preset("prior", "natural")).for_shape((3, 32, 32), phi)
    theirs = papers_prior().for_shape((3, 32, 32), phi)
    assert ours.factors == theirs.factors and ours.denoiser is None
    descent = build(preset("optim", "adam"))
    basis = descent.make_basis((3, 32, 32), phi)
    assert descent.top(phi) == 0.03 and basis.colour is None
    assert torch.equal(basis.scale, FourierBasis((3, 32, 32)).scale)


def test_the_weights_of_the_package_draw_no_random_numbers():
    before = torch.get_rng_state()
    FFDNet()
    assert torch.equal(torch.get_rng_state(), before)
