import pytest
import torch
from torch import nn

import invrep
from invrep.errors import InvrepError
from invrep.objectives import Match
from invrep.optim import Descent
from invrep.presets import build
from invrep.priors import Prior, TotalVariation


def test_representation_by_name():
    phi = invrep.representation("vgg16", layer="relu2", weights="random")
    (code,) = phi(torch.rand(2, 3, 32, 40))
    assert code.shape == (2, 128, 16, 20) and code.min() == 0
    assert invrep.representation("hog", cell=4).cell == 4
    assert invrep.representation("torchvision", model="resnet18", layer="layer1", weights="random").stride == 4
    assert invrep.representation("module", target="torch.nn.Identity").name == "Identity"


def test_invert_returns_images_codes_and_metrics(photo):
    images = torch.stack([photo, photo.flip(2)])
    phi = invrep.representation("hogb")
    found = invrep.invert(images, phi, restarts=3, steps=30)
    assert found.reconstructions.shape == (2, 3, 3, 48, 64) and found.converged.all()
    code = phi(found.reconstructions.flatten(0, 1))[0].unflatten(0, (2, 3))
    torch.testing.assert_close(code, found.codes[0])
    target = phi(images)[0]
    torch.testing.assert_close(target, found.targets[0])
    error = (code - target[:, None]).flatten(2).square().sum(2) / target.flatten(1).square().sum(1)[:, None]
    torch.testing.assert_close(error, found.metrics["error"].float())
    assert found.metrics["psnr"].shape == found.history[-1][1]["energy"].shape == (2, 3)
    assert (found.reconstructions[:, 0] - found.reconstructions[:, 1]).abs().max() > 1e-3


def test_an_image_depends_on_no_neighbour(photo):
    phi = invrep.representation("hog")
    here, there = (
        invrep.invert(torch.stack([photo, other]), phi, steps=5).reconstructions for other in (photo.flip(2), 1 - photo)
    )
    assert torch.equal(here[0], there[0])


def test_the_users_own_module(photo):
    module = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = invrep.invert(photo, module, prior="none", steps=80)
    assert found.metrics["error"][0, 0] < 0.3 * found.history[0][1]["error"][0, 0]
    assert module.training and all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_presets_and_precision(photo):
    found = invrep.invert(photo.double(), invrep.representation("hogb"), prior="cvpr15", optim="cvpr15", steps=4)
    assert found.reconstructions.dtype == torch.float64
    with pytest.raises(InvrepError, match=r"no prior 'cvpr'; the nearest is cvpr15"):
        invrep.invert(photo, invrep.representation("hog"), prior="cvpr")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda x: invrep.representation("hogg"), "the nearest are hog"),
        (lambda x: invrep.representation("hog", cells=4), "no option 'cells'; the nearest is cell"),
        (lambda x: invrep.representation("timm"), "'timm' needs model; give model="),
        (lambda x: invrep.invert((3, 8, 8), nn.Identity(), objective="maximise"), "needs channels"),
        (lambda x: invrep.representation("module", target="torch.load", args={"f": "no.pt"}), "no.pt"),
        (lambda x: build({"_target_": "torch.load", "f": "no.pt"}), r"torch\.load cannot be built: FileNotF.*no\.pt"),
        (lambda x: invrep.invert(255 * x, invrep.representation("hog")), "divide by 255"),
        (lambda x: invrep.invert((255 * x).byte(), invrep.representation("hog")), "floating-point"),
        (lambda x: invrep.invert(x[0], invrep.representation("hog")), "shape"),
        (lambda x: invrep.invert(x, invrep.representation("hog"), restarts=0), "restarts=0"),
        (lambda x: invrep.invert(x, invrep.representation("hog"), ids=["a", "b"]), "expected one for each"),
        (lambda x: invrep.invert(x * float("nan"), invrep.representation("hog")), "expected"),
    ],
)
def test_wrong_arguments(photo, act, says):
    with pytest.raises(InvrepError, match=says):
        act(photo)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optim": Prior()}, "optim is a value of type Prior; expected .*'adam'.* or a Descent"),
        ({"optim": None}, "optim is None; expected .* or a Descent"),
        ({"optim": "naturl"}, "no optim 'naturl'; "),
        ({"optim": {"_target_": "invrep.priors.Prior"}}, "optim is a value of type Prior; expected"),
        ({"prior": Descent()}, "prior is a value of type Descent; expected .*'natural'.* or a Prior"),
        ({"prior": Prior}, "prior is the class Prior; expected .* or a Prior"),
        ({"prior": TotalVariation()}, "prior is a value of type TotalVariation; expected"),
        ({"objective": Match([torch.ones(1, 2)])}, "objective is a value of type Match; expected .*makes an Objective"),
        ({"objective": Prior()}, "objective is a value of type Prior; expected"),
        ({"objective": Prior}, "objective is the class Prior; expected"),
        (
            {"objective": lambda code, phi, shape: code},
            "function returns is a value of type list; expected an Objective",
        ),
        ({"optim": Descent(), "steps": 3}, "steps is for a preset's name"),
    ],
)
def test_a_wrong_kind_of_part_is_named(photo, given, says):
    with pytest.raises(InvrepError, match=says) as raised:
        invrep.invert(photo, invrep.representation("hog"), **given)
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize(
    ("group", "target", "says"),
    [
        ("prior", "invrep.optim.Descent", "prior is a value of type Descent; expected a Prior"),
        ("rep", "torch.nn.Identity", "rep=mine is a value of type Identity; expected a Representation"),
        ("objective", "invrep.priors.Prior", "objective is a value of type Prior; expected a class"),
    ],
)
def test_a_wrong_kind_of_part_in_a_config_is_named(job, tmp_path, group, target, says):
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "mine.yaml").write_text(f"_target_: {target}\n")
    outcome = job("--config-dir", "mine", f"{group}=mine")
    assert outcome.status == 1 and says in outcome.err and "Traceback" not in outcome.err
