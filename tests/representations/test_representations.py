"""What holds for every representation; a new one gets all of it by one line of CASES."""

import copy
import re

import pytest
import torch
from helpers.alike import assert_alike_in_any_order
from helpers.vocabularies import KINDS, small
from torch import Tensor

from invrep.api import representation
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.objectives.match import Match
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate

# config, options, channels of the images, height and width (odd and unequal where the layer allows)
CASES = [
    ("hog", {}, 1, (37, 53)),
    ("hog", {}, 3, (53, 37)),
    ("hog", {"cell": 5}, 1, (41, 36)),
    ("hog", {"straight_through": True}, 1, (37, 53)),
    ("hogb", {}, 3, (37, 53)),
    ("hog", {"variant": "cvpr15"}, 1, (37, 53)),
    ("hogb", {"variant": "cvpr15"}, 1, (53, 37)),
    ("hog", {"variant": "cvpr15"}, 3, (37, 53)),
    ("dsift", {}, 1, (37, 53)),
    ("dsift", {}, 3, (53, 37)),
    ("dsift", {"variant": "cvpr15"}, 1, (37, 53)),
    ("mr8", {}, 1, (57, 63)),
    ("mr8", {"step": 3, "weber": False}, 3, (63, 57)),
    ("gist", {}, 1, (37, 53)),
    ("gist", {"orientations": [8, 8, 4]}, 3, (53, 37)),
    ("lbp", {"method": "uniform", "cell": 8}, 1, (37, 53)),
    ("lbp", {"cell": None}, 3, (53, 37)),
    ("brief", {}, 1, (49, 57)),
    ("brief", {"bits": 300, "patch": 16, "step": 5}, 3, (57, 49)),
    ("alexnet", {"layer": "conv2"}, 3, (67, 83)),
    ("alexnet", {"layer": "pool2"}, 3, (67, 83)),
    ("alexnet", {"layer": ["relu3", "conv2"]}, 3, (67, 83)),
    ("vgg16", {"layer": "relu2"}, 3, (33, 47)),
    ("resnet18", {"layer": "layer2"}, 3, (37, 53)),
    ("bovw", {}, 1, (37, 53)),
    ("bovw", {"pyramid": [1, 2]}, 3, (53, 37)),
    ("vlad", {"root": True}, 1, (37, 53)),
    ("fisher", {}, 1, (37, 53)),
    ("fisher", {"pyramid": [2]}, 3, (53, 37)),
    ("sparse", {}, 1, (37, 53)),
    ("llc", {"absolute": True}, 1, (37, 53)),
    ("textons", {}, 1, (57, 63)),
    ("textons", {"pyramid": [2]}, 3, (63, 57)),
]


def name(case) -> str:
    rep, options, channels, (height, width) = case
    return "-".join([rep, *map(str, options.values()), f"{channels}x{height}x{width}"])


@pytest.fixture(params=CASES, ids=name)
def case(request) -> tuple[Representation, Tensor]:
    """A representation, and three parts of photos for it."""
    rep, options, channels, (height, width) = request.param
    if "layer" in options:
        options = {**options, "weights": "random"}
    if rep in KINDS:
        options = {**options, "vocabulary": small(KINDS[rep])}
    if rep == "textons":
        options = {**options, "vocabulary": small("words", descriptor="mr8")}
    color = "gray" if channels == 1 else "rgb"
    images = [
        read(bundled(photo), color=color)[:, 90 : 90 + height, 60 : 60 + width]
        for photo in ("chelsea", "coffee", "rocket")
    ]
    return representation(rep, **options), torch.stack(images)


def energy(phi: Representation, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matching energy of each image and its gradient, a surrogate's where Φ has no other."""
    with torch.no_grad():
        target = phi(targets)
    x = images.clone().requires_grad_()
    value = Match(target)(phi(x, Surrogate() if phi.stepwise else None))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def test_the_code_is_a_list_of_tensors_that_differ_between_images(case):
    phi, images = case
    code = phi(images)
    assert isinstance(code, list) and all(part.shape[0] == 3 and part.dtype == images.dtype for part in code)
    assert (code[0][0] - code[0][1]).abs().max() > 0.01
    again = phi(images)
    assert all(torch.equal(a, b) for a, b in zip(code, again, strict=True))


def test_an_image_at_its_place_is_equal_to_the_bit_whatever_stands_beside_it(case):
    phi, images = case
    targets = images.roll(1, 0)
    _, gradient = energy(phi, images, targets)
    assert gradient.isfinite().all() and (gradient != 0).any()
    assert_alike_in_any_order(lambda order: energy(phi, images[order], targets[order]), 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_one_steps_gradient_agrees_across_batch_sizes(case, dtype, tolerance):
    phi, images = case
    phi, images = phi.to(dtype), images.to(dtype)
    targets = images.roll(1, 0)
    _, gradient = energy(phi, images, targets)
    for k in range(3):
        _, alone = energy(phi, images[k : k + 1], targets[k : k + 1])
        assert float((alone[0] - gradient[k]).norm() / gradient[k].norm()) < tolerance


def test_nan_in_one_image_leaves_the_others_alone(case):
    phi, images = case
    targets = images.roll(1, 0)
    value, gradient = energy(phi, images, targets)
    spoilt = images.clone()
    spoilt[1, :, 5:9, 5:9] = float("nan")
    found, found_gradient = energy(phi, spoilt, targets)
    for k in (0, 2):
        assert torch.equal(found[k], value[k]) and torch.equal(found_gradient[k], gradient[k])


def test_gradient_is_the_derivative(case):
    """Central differences along a direction, in float64, where a representation's gradient is the exact one."""
    phi, images = case
    if phi.stepwise or getattr(phi, "straight_through", False):
        pytest.skip("its gradient is a smoother one on purpose")
    # the authors' networks round the bilinear binning's slope off where a direction meets a bin's centre
    tolerance = 0.05 if getattr(phi, "variant", "") == "cvpr15" else 1e-3
    phi, images = phi.double(), images.double()
    generator = torch.Generator().manual_seed(0)
    # noise, since photos have the ties and flat parts at which the codes have kinks
    x = torch.rand(1, *images.shape[1:], generator=generator, dtype=torch.float64)
    target = images[:1]
    _, gradient = energy(phi, x, target)
    for _ in range(3):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step = 1e-9 * direction
        slope = (energy(phi, x + step, target)[0] - energy(phi, x - step, target)[0]) / 2e-9
        assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=tolerance, abs=1e-6)


def test_a_constant_image_has_finite_value_and_gradient(case):
    phi, images = case
    for level in (0.0, 0.5, 1.0):
        value, gradient = energy(phi, torch.full_like(images, level), images)
        assert value.isfinite().all() and gradient.isfinite().all()


def test_no_weight_gets_a_gradient(case):
    phi, images = case
    energy(phi, images, images.roll(1, 0))
    assert all(p.grad is None and not p.requires_grad for p in phi.parameters())


def test_casting_and_copying_leave_the_code_alone(case):
    phi, images = case
    code = phi(images)[0]
    double = phi.double()(images.double())[0]
    assert double.dtype == torch.float64
    # hard binning may put a tie elsewhere in another precision
    assert float((double - code).norm() / code.norm()) < 1e-2
    assert torch.equal(copy.deepcopy(phi).float()(images)[0], code)
    assert torch.equal(phi.float()(images)[0], code)


def test_what_is_no_batch_of_images_is_refused(case):
    phi, images = case
    for wrong in (images[0], images[:, :1].expand(-1, 2, -1, -1), (255 * images).byte()):
        with pytest.raises(InvrepError, match="takes"):
            phi(wrong)


def test_too_small_an_image_is_refused_with_the_size_that_works(case):
    phi, images = case
    try:
        phi(images[..., :1, :1])
    except InvrepError as error:
        least = max(map(int, re.findall(r"(\d+)×\1", str(error))))
    else:
        return  # one pixel is enough
    channels = images.shape[1]
    assert phi(torch.rand(1, channels, least, least))[0].numel() > 0
    with pytest.raises(InvrepError):
        phi(torch.rand(1, channels, least - 1, least - 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu(case):
    phi, images = case
    phi, images = phi.double(), images.double()
    value, gradient = energy(phi, images, images.roll(1, 0))
    images = images.cuda()
    found, found_gradient = energy(phi.cuda(), images, images.roll(1, 0))
    torch.testing.assert_close(found.cpu(), value, rtol=1e-6, atol=1e-9)
    assert float((found_gradient.cpu() - gradient).norm() / gradient.norm()) < 1e-6


def test_a_class_whose_encode_takes_no_surrogate_is_refused_where_it_is_written():
    with pytest.raises(InvrepError, match=r"Old\.encode does not take a surrogate; expected def encode\(self, images"):

        class Old(Representation):
            def encode(self, images: Tensor) -> list[Tensor]:
                return [images]


@pytest.mark.parametrize(
    ("rep", "options"),
    [
        ("dsift", {"variant": "vlfeat"}),
        ("dsift", {"variant": "cvpr15"}),
        ("hog", {"variant": "cvpr15"}),
        ("mr8", {}),
        ("lbp", {}),
        ("brief", {}),
    ],
)
def test_a_code_that_keeps_no_colour_is_that_of_the_grey_photo(rep, options):
    phi = representation(rep, **options)
    colour, grey = (read(bundled("chelsea"), color=color)[None, :, 90:140, 60:130] for color in ("rgb", "gray"))
    torch.testing.assert_close(phi(colour.double())[0], phi(grey.double())[0], rtol=1e-4, atol=1e-6)
