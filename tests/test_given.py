"""What people hand to invert(): images of any kind, and functions in a representation's place."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import invrep
from invrep.data.given_images import as_images
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.objectives.activation import Maximise
from invrep.representations.network import Network
from invrep.representations.zoo.user_function import as_representation


def photo() -> Tensor:
    return torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))


PHOTO = photo()
WRONG: dict[str, tuple[object, str]] = {
    "None": (None, "images is None"),
    "a name": ("a.png", r"PIL\.Image\.open\('a\.png'\)"),
    "an empty list": ([], "class list"),
    "a dictionary": ({}, "class dict"),
    "text": (np.array(["a"]), "array of <U1"),
    "bytes": ((255 * PHOTO).byte().numpy(), "divide by 255"),
    "integers": ((255 * PHOTO).int(), "divide by what is white"),
    "complex numbers": (PHOTO + 0j, "complex64"),
    "sparse": (PHOTO.to_sparse(), "layout"),
    "meta": (PHOTO.to("meta"), "on meta"),
    "NaN": (PHOTO * float("nan"), "holds NaN"),
    "grey levels": (255 * PHOTO, "divide by 255"),
    "centred values": (PHOTO - 0.5, r"values from -0\.4.* undo a normalisation"),
    "two dimensions": (PHOTO[0], r"shape \(24, 32\)"),
    "no image": (torch.empty(0, 3, 24, 32), r"shape \(0, 3"),
    "channels last": (PHOTO.movedim(0, -1).numpy(), r"\(n, height, width, channels\).*movedim"),
    "two sizes": ([PHOTO, PHOTO[:, :16]], r"\(3, 24, 32\) and \(3, 16, 32\)"),
}


class TestImages:
    @pytest.mark.parametrize(
        ("given", "dtype"),
        [
            (PHOTO[None], torch.float32),
            (PHOTO.bfloat16(), torch.float32),
            (PHOTO.half(), torch.float32),
            (PHOTO.double(), torch.float64),
            (PHOTO.clone().requires_grad_(), torch.float32),
            (PHOTO.numpy(), torch.float32),
            (PHOTO.double().numpy(), torch.float64),
            (PHOTO.numpy().astype(">f4"), torch.float32),
            (PHOTO.double().numpy().astype(np.longdouble), torch.float64),
            (PHOTO.flip(1).numpy()[:, ::-1], torch.float32),
            ([PHOTO], torch.float32),
            ((PHOTO[None].numpy(),), torch.float32),
        ],
    )
    def test_tensors_and_arrays(self, given, dtype):
        images = as_images(given)
        assert images.dtype == dtype and images.shape == (1, 3, 24, 32) and not images.requires_grad
        torch.testing.assert_close(images[0], PHOTO.to(dtype), atol=0.004, rtol=0)

    def test_eight_bits_of_a_float(self):
        eight = PHOTO.to(torch.float8_e4m3fn)
        assert torch.equal(as_images(eight)[0], eight.float())

    def test_a_list_of_several_kinds(self):
        assert as_images([PHOTO, PHOTO.numpy(), Image.new("RGB", (32, 24))]).shape == (3, 3, 24, 32)

    @pytest.mark.parametrize(
        ("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("L", 1), ("I;16", 1)]
    )
    def test_a_pillow_image_has_the_channels_of_its_mode(self, mode, channels):
        assert as_images(Image.new(mode, (32, 24))).shape == (1, channels, 24, 32)

    def test_a_pillow_image_is_what_its_file_is(self):
        path = bundled("chelsea")
        with Image.open(path) as image:
            assert torch.equal(as_images(image, "gray")[0], read(path, color="gray"))

    def test_a_tensor_made_in_inference_mode(self):
        with torch.inference_mode():
            image = PHOTO.clone()
        assert not as_images(image).is_inference()

    @pytest.mark.parametrize("name", WRONG)
    def test_anything_else_is_refused_in_a_sentence(self, name):
        given, says = WRONG[name]
        with pytest.raises(InvrepError, match=says):
            invrep.invert(given, nn.Identity(), steps=1)

    def test_the_shape_alone(self):
        maximise = partial(Maximise, channels=0, weight=1)
        for shape in ((3, 12, 16), [3, 12, 16], torch.Size((3, 12, 16))):
            found = invrep.invert(shape, nn.Conv2d(3, 2, 3), objective=maximise, steps=1)
            assert found.reconstructions.shape == (1, 1, 3, 12, 16)
        for shape, says in (((12, 16), "channels, height, width"), ((3, 0, 2), "images=0")):
            with pytest.raises(InvrepError, match=says):
                invrep.invert(shape, nn.Identity(), objective=maximise)
        with pytest.raises(InvrepError, match="needs images"):
            invrep.invert((3, 12, 16), nn.Identity())


class Encoder(nn.Module):
    """A model whose code is no output of its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())

    def encode_image(self, images: Tensor, times: int = 1) -> Tensor:
        return times * self.visual(images)


class Holder:
    """No module, but it holds one."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, images: Tensor) -> Tensor:
        return self.module(images)


MODEL = Encoder()


def through_a_global(images: Tensor) -> Tensor:
    return MODEL.visual(images)


class TestFunctions:
    @pytest.mark.parametrize(
        "function",
        [
            MODEL.encode_image,
            partial(MODEL.encode_image, times=2),
            through_a_global,
            (lambda model: lambda images: model.visual(images))(MODEL),
            Holder(MODEL.visual),
            Holder(MODEL.visual).__call__,
            partial(torch.nn.functional.conv2d, weight=torch.ones(1, 3, 2, 2)),
        ],
    )
    def test_its_modules_run_in_evaluation_mode_and_stay_as_they_are(self, function):
        before = {name: value.clone() for name, value in MODEL.state_dict().items()}
        images = PHOTO[None]
        phi = as_representation(function, 3)
        (code,) = phi(images)
        assert torch.equal(code, phi(images)[0])
        assert MODEL.visual.training and all(p.requires_grad for p in MODEL.parameters())
        assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())
        assert invrep.invert(images, function, steps=2).metrics["error"].isfinite().all()

    @pytest.mark.parametrize("channels", [1, 4, 13])
    def test_a_module_of_any_number_of_channels(self, channels):
        found = invrep.invert(torch.rand(1, channels, 12, 16), nn.Conv2d(channels, 2, 3), steps=2)
        assert found.reconstructions.shape == (1, 1, channels, 12, 16)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("vgg16", r"invrep\.representation\('vgg16'\)"),
            (None, "phi is None"),
            ([nn.Sequential(nn.ReLU())], r"phi is \[Sequential\( \(0\): ReLU\(\) \)\]; expected"),
            (Encoder, r"class Encoder; expected a module of it: Encoder\("),
        ],
    )
    def test_anything_else_is_refused(self, given, says):
        with pytest.raises(InvrepError, match=says):
            invrep.invert(PHOTO, given)


@dataclass
class Output:
    """Of the kind that Hugging Face's models return."""

    hidden: Tensor
    loss: float | None = None


class ModelOutput(OrderedDict):
    """A dictionary of a class of its own."""


Pair = namedtuple("Pair", "first second")


class Returning(nn.Module):
    """A convolution, whose output is packed."""

    def __init__(self, pack) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pack = nn.Conv2d(3, 4, 3), pack

    def forward(self, images: Tensor) -> object:
        return self.pack(self.conv(images))


class TestOutputs:
    @pytest.mark.parametrize(
        ("pack", "count"),
        [
            (Output, 1),
            (lambda y: [Output(y), {"a": (y, None)}], 2),
            (lambda y: ModelOutput(hidden=y, none=None), 1),
            (lambda y: Pair(y, [y]), 2),
            (lambda y: y.double(), 1),
        ],
    )
    def test_every_tensor_of_an_output_is_a_part_of_the_code(self, pack, count):
        module = Returning(pack)
        plain = Returning(lambda y: y)(PHOTO[None])
        parts = Network(module)(PHOTO[None])
        assert len(parts) == count and all(torch.equal(part, plain.to(part)) for part in parts)

    @pytest.mark.parametrize("conjugate", [False, True])
    def test_complex_numbers_are_pairs_of_real_ones(self, conjugate):
        phi = Network(Returning(lambda y: torch.fft.rfft2(y).conj() if conjugate else torch.fft.rfft2(y)))
        wanted = torch.fft.rfft2(Returning(lambda y: y)(PHOTO[None]))
        (code,) = phi(PHOTO[None])
        torch.testing.assert_close(torch.view_as_complex(code), wanted.conj().resolve_conj() if conjugate else wanted)
        assert invrep.invert(PHOTO, phi, steps=2).metrics["error"].isfinite().all()

    def test_one_number_for_each_image(self):
        found = invrep.invert([PHOTO, PHOTO.flip(2)], Returning(lambda y: y.square().mean((1, 2, 3))), steps=2)
        assert found.codes[0].shape == (2, 1, 1) and found.metrics["error"].isfinite().all()

    @pytest.mark.parametrize(
        ("pack", "says"),
        [
            (lambda y: y.argmax(1), "returned a tensor of int64"),
            (lambda y: y > 0, "returned a tensor of bool"),
            (lambda y: y.detach().numpy(), "an object of class ndarray"),
            (lambda y: {"a": None, "b": "text"}, "returned None and an object of class str"),
            (lambda y: [], "returned an empty list"),
            (lambda y: y.to_sparse(), "layout sparse_coo"),
            (lambda y: y.mean(), "one part for each image"),
        ],
    )
    def test_what_is_no_code_is_named(self, pack, says):
        with pytest.raises(InvrepError, match=says):
            invrep.invert(PHOTO, Returning(pack), steps=2)


class TestModules:
    @pytest.mark.parametrize("make", [torch.jit.script, partial(torch.jit.trace, example_inputs=PHOTO[None])])
    def test_torchscripts_output_and_not_its_layers(self, make):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Dropout()).eval()
        found, wanted = (invrep.invert(PHOTO, phi, steps=2) for phi in (make(module), module))
        torch.testing.assert_close(found.metrics["error"], wanted.metrics["error"])
        with pytest.raises(InvrepError, match=r"'0' of Sequential was not reached, since TorchScript calls no hooks"):
            invrep.invert(PHOTO, Network(make(module), "0"), steps=2)

    def test_layers_by_their_plain_names_within_wrappers(self):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        (wanted,) = Network(module, "1")(PHOTO[None])
        outer = nn.Sequential(torch.compile(module, backend="eager"))
        outer(PHOTO[None])
        for wrapped, names in (
            (nn.DataParallel(module), ("1", "module.1")),
            (outer[0], ("1", "_orig_mod.1")),
            (outer, ("0.1", "0._orig_mod.1")),
        ):
            for name in names:
                assert torch.equal(Network(wrapped, name)(PHOTO[None])[0], wanted), name

    def test_weights_without_values(self):
        lazy = nn.Sequential(nn.LazyConv2d(4, 3))
        with torch.device("meta"):
            meta = nn.Sequential(nn.Conv2d(3, 4, 3))
        for module, says in ((lazy, "has no shape yet"), (meta, "on the meta device")):
            for layer in (None, "0"):
                with pytest.raises(InvrepError, match=says):
                    invrep.invert(PHOTO, Network(module, layer), steps=2)
        with pytest.raises(InvrepError, match="Linear cannot be run: its weight weight is on the meta device"):
            args = {"in_features": 2, "out_features": 2, "device": "meta"}
            invrep.representation("module", target="torch.nn.Linear", args=args)
