"""Φ is tried before it is used: each answer that is no is a sentence or a mark, and never a silent wrong result."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import invrep
from invrep.api.parts import part
from invrep.errors import InvrepError, UnfitError
from invrep.inversion.solver import solve
from invrep.inversion.trial import Trial
from invrep.objectives.match import Match
from invrep.optim.descent import Descent
from invrep.representations.network import Network


def images(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x


class After(nn.Module):
    """A convolution, and a function of its output."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.function = conv(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


class Guarded(After):
    """Like it, but the convolution sees no autograd."""

    def forward(self, x: Tensor) -> Tensor:
        with self.function():
            return self.conv(x)


def dead_root(x: Tensor) -> Tensor:
    return x + (x.square().sum(1, keepdim=True) - 1e9).relu().sqrt()


NO = {
    "no_grad": (lambda: Guarded(torch.no_grad), "no gradient reaches the image"),
    "inference mode": (lambda: Guarded(torch.inference_mode), "no gradient reaches the image"),
    "a submodule's no_grad": (lambda: nn.Sequential(conv(), Guarded2()), "no gradient reaches the image"),
    "detach": (lambda: After(Tensor.detach), "no gradient reaches the image"),
    "NumPy": (lambda: After(lambda x: torch.from_numpy(x.detach().numpy())), "no gradient reaches the image"),
    "ranks": (lambda: After(lambda x: x.argsort(1).float()), "no gradient reaches the image"),
    "a constant": (lambda: After(lambda x: nn.Parameter(torch.ones(len(x), 2))), "no gradient reaches the image"),
    "rounding": (lambda: After(torch.round), "is zero at the start of the descent: it rounds"),
    "sign": (lambda: After(torch.sign), "is zero at the start of the descent: it rounds"),
    "no backward": (lambda: After(Doubled.apply), r"backward pass failed \(NotImplementedError: You must implement"),
    "√0": (lambda: After(dead_root), "gradient that is not finite, from the derivative of sqrt on"),
    "a dead layer": (lambda: After(lambda x: (x - 100).relu()), "zero, as it is for the start noise: a dead layer"),
    "weights of zero": (lambda: zeroed(conv()), "a dead layer"),
    "dropout": (lambda: After(nn.functional.dropout), r"random: .*F\.dropout has training=True"),
    "a counter": (lambda: After(Counter()), "a state that each pass changes"),
    "an exception": (lambda: After(lambda x: {}["code"]), r"KeyError: 'code'\.$"),
    "noise": (lambda: After(lambda x: x + 0.01 * torch.randn_like(x)), "random: "),
    "NaN weights": (lambda: filled(conv(), math.nan), r"weight bias holds NaN or infinity"),
    "infinite weights": (lambda: filled(conv(), math.inf), r"weight bias holds NaN or infinity"),
    "overflow": (lambda: After(lambda x: (1e30 * x).square()), "though its weights do not: it divides by zero"),
}


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.count * x


class Guarded2(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


def zeroed(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def filled(module: nn.Conv2d, value: float) -> nn.Module:
    with torch.no_grad():
        module.bias[1] = value
    return module


@pytest.mark.parametrize("name", NO)
def test_a_module_that_cannot_be_inverted_gets_a_sentence(name):
    make, says = NO[name]
    with pytest.raises(InvrepError, match=says):
        invrep.invert(images(), make(), steps=2)


def test_a_masks_infinity_and_a_weight_that_is_not_used_are_no_fault():
    module = After(lambda x: x)
    module.register_buffer("mask", torch.full((2, 2), -math.inf))
    module.unused = filled(conv(), math.nan)
    assert invrep.invert(images(), module, steps=2).metrics["error"].isfinite().all()


def test_nothing_is_wrong_with_half_precision_and_a_pass_that_autograd_changes():
    """A transformer's layer takes a faster kernel without autograd, which rounds otherwise."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    module = After(lambda x: layer(x.flatten(2)[:, :, :16]))
    module.layer = layer
    for phi in (module, module.half(), module.bfloat16()):
        assert invrep.invert(images(), phi, steps=2).metrics["error"].isfinite().all()


class Standardised(nn.Module):
    """Divides by each image's own deviation: of a blank one 0/0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return self.conv(centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt())


def test_an_image_whose_code_is_not_finite_is_named():
    three = torch.cat([images(), torch.full((1, 3, 12, 16), 0.5), images().flip(2)])
    with pytest.raises(UnfitError, match=r"^images\[1\]: The code of Standardised holds NaN") as raised:
        invrep.invert(three, Standardised(), restarts=2, steps=2)
    assert raised.value.__cause__.rows == (2, 3)


class Edges(nn.Module):
    """Differences of neighbouring pixels: of a blank photo 0, or as good as 0 where a mean is taken first."""

    def __init__(self, rounding: bool = False) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 3:-3] - avg_pool2d(x, (1, 7), 1) if self.rounding else x.diff(dim=3)


def test_an_image_without_a_relative_error_is_marked_and_its_neighbours_are_as_without_it():
    blank = torch.full((1, 3, 12, 16), 0.3)
    two = torch.cat([images(), blank])
    with pytest.warns(UserWarning, match=r"No relative error has images\[1\]: its code is zero\.") as said:
        found = invrep.invert(two, Edges(), restarts=2, steps=4)
    assert Path(said[0].filename).name == "test_trial.py"
    assert found.remarks == ["", "its code is zero"]
    for values in (found.metrics["error"], found.metrics["root_error"], found.history[0][1]["error"]):
        assert values[0].isfinite().all() and values[1].isnan().all()
    assert found.metrics["psnr"].isfinite().all() and found.reconstructions.isfinite().all()
    with pytest.warns(UserWarning, match="zero but for rounding"):
        rounded = invrep.invert(blank, Edges(rounding=True), steps=2)
    assert 0 < rounded.metrics["code_norm"].item() < 1e-6 and rounded.metrics["error"].isnan().all()


def test_a_code_that_is_small_has_a_relative_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faint = 0.5 + 0.004 * images()  # less than one grey level of 255
        assert invrep.invert(faint, Edges(), steps=2).metrics["error"].isfinite().all()


def test_what_is_tried_costs_a_pass_for_each_batch_and_one_more_for_the_job():
    calls = []
    module = After(lambda x: (calls.append(torch.is_grad_enabled()), x.relu())[1])
    phi, trial = Network(module), Trial()
    for begun, expected in ((0, [True, False]), (1, [True])):
        calls.clear()
        with torch.no_grad():
            objective = Match(phi(images()))
        trial(phi, objective, images().flip(3))
        assert calls[1:] == expected and (trial.seconds > 0) is True, begun


def test_the_trial_takes_the_gradient_of_the_descent():
    """A ReLU that is off everywhere has no exact gradient; a descent with a surrogate has one."""
    module = nn.Sequential(conv(), nn.ReLU())
    nn.init.constant_(module[0].bias, -0.3)
    nn.init.constant_(module[0].weight, 0.01)
    grey = torch.full((1, 3, 12, 16), 0.5)
    start = grey - 0.5

    def tried(descent: Descent) -> None:
        phi = Network(module)
        rows = [(0, "a", 0)]
        asked = lambda code, **_: Match([torch.ones_like(part) for part in code])  # noqa: E731
        solve(start, rows, phi=phi, prior=part("prior", "none", {}), descent=descent, objective=asked)

    tried(part("optim", "adam", {"steps": 2}))
    with pytest.raises(UnfitError, match="behind a ReLU that is off"):
        tried(part("optim", "adam", {"steps": 2, "straight_through": False}))


class TestJob:
    @pytest.fixture
    def blank(self, tmp_path: Path) -> Path:
        """A folder with a blank photo and another one."""
        folder = tmp_path / "photos"
        folder.mkdir()
        Image.new("L", (48, 40), 128).save(folder / "blank.png")
        Image.effect_noise((48, 40), 40).save(folder / "noise.png")
        return folder

    @pytest.mark.parametrize("rep", ["hog", "dsift", "gist"])
    def test_a_blank_photo_is_named_and_left_out_of_means(self, job, blank, rep):
        outcome = job(f"rep={rep}", f"data.path={blank}")
        assert outcome.status == 0
        assert "1 photo has no relative error, since its code is zero: blank.png" in outcome.out
        alone = job(f"rep={rep}", f"data.path={blank}/noise.png", "output=alone")
        assert outcome.value == pytest.approx(alone.value, rel=1e-3)
        with (outcome.folder / "metrics.csv").open() as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        assert rows["blank.png"]["remark"] == "its code is zero" and rows["blank.png"]["error"] == ""
        assert rows["noise.png"]["remark"] == "" and float(rows["noise.png"]["error"]) == outcome.value
        assert "blank.png" in job(f"rep={rep}", f"data.path={blank}").out  # finished, and told again

    def test_blank_photos_alone_are_an_error(self, job, blank):
        outcome = job(f"data.path={blank}/blank.png")
        assert outcome.status == 1 and "error: No photo has a relative error, since its code is zero" in outcome.err
        assert outcome.out.count("nan") == 0

    def test_a_photo_whose_code_is_not_finite_fails_alone(self, job, blank):
        module = ("rep=module", f"rep.target={__name__}.Standardised", f"data.path={blank}", "data.batch_size=2")
        outcome = job(*module)
        assert outcome.status == 1 and "blank.png: The code of Standardised holds NaN" in outcome.err
        assert "diverged" not in outcome.err and "1 photo could not be inverted, all others are done" in outcome.err

    def test_weights_and_codes_with_nan_are_named(self, job, blank, tmp_path):
        save_file(filled(nn.Conv2d(3, 4, 3), math.nan).state_dict(), tmp_path / "w.safetensors")
        conv = ("rep=module", "rep.target=torch.nn.Conv2d", "rep.args={in_channels:3,out_channels:4,kernel_size:3}")
        outcome = job(*conv, "rep.weights=w.safetensors", f"data.path={blank}/noise.png")
        assert outcome.status == 1 and "The weight bias of w.safetensors holds NaN" in outcome.err
        save_file({"part0": torch.full((31, 5, 6), math.inf)}, tmp_path / "c.safetensors", {"size": "[40,48]"})
        outcome = job("objective=code", "objective.path=c.safetensors", "data=none", "data.size=[40,48]")
        assert outcome.status == 1 and "part0 of the code file 'c.safetensors' holds NaN or infinity" in outcome.err

    @pytest.mark.parametrize(
        ("target", "says"),
        [
            ("digits", "mat1 and mat2 shapes cannot be multiplied"),
            ("grey", "expected input[1, 3, 40, 48] to have 1 channels"),
            ("Halved", "leave out the casts to other types in its forward"),
            ("Timed", "missing 1 required positional argument: 't'; wrap it"),
        ],
    )
    def test_a_module_that_does_not_take_the_photos_says_so(self, job, blank, target, says):
        outcome = job("rep=module", f"rep.target={__name__}.{target}", f"data.path={blank}/noise.png")
        assert outcome.status == 1 and says in outcome.err and "Traceback" not in outcome.err
        assert target in ("Timed", "Halved") or "(rep.size, rep.channels)" in outcome.err


def digits() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 10))


def grey() -> nn.Module:
    return nn.Conv2d(1, 4, 3)


class Halved(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 4, 3, dtype=torch.float16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.half())


class Timed(nn.Module):
    def forward(self, x: Tensor, t: float) -> Tensor:
        return x * t
