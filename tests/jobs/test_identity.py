"""A job's folder: found again after code has moved, and never that of another job."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

import invrep.objectives
import invrep.priors
from invrep.jobs.identity import PARTS, named, result_name
from invrep.presets import FOLDER
from invrep.stable_names import stable_name

PRESETS = {group: sorted(path.stem for path in (FOLDER / group).glob("*.yaml")) for group in PARTS}


def folder_of(*overrides: str) -> str:
    """Return the name of a job's folder; ``rep`` is no part of its first word."""
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return result_name(compose("config", ["name=x", *overrides]), None)


def targets(group: str) -> set[str]:
    """Return every ``_target_`` in the presets of a group."""
    texts = [(FOLDER / group / f"{name}.yaml").read_text() for name in PRESETS[group]]
    return {target for text in texts for target in re.findall(r"_target_: (\S+)", text)}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Rename a class or function and move it: return its ``_target_`` in another module; the old one is gone."""
    module, names = ModuleType("elsewhere"), []
    monkeypatch.setitem(sys.modules, "elsewhere", module)

    def move(target: str) -> str:
        part = get_object(target)
        place, _, name = target.rpartition(".")
        monkeypatch.delattr(importlib.import_module(place), name)
        names.append((part, part.__name__, part.__qualname__, part.__module__))
        part.__name__, part.__qualname__, part.__module__ = f"Other{name}", f"Other{name}", "elsewhere"
        setattr(module, f"Other{name}", part)
        return f"elsewhere.Other{name}"

    yield move
    for part, *name in names:
        part.__name__, part.__qualname__, part.__module__ = name


def test_results_are_found_after_a_class_is_renamed_and_moved(job, photos, elsewhere):
    before = job(f"data.path={photos}")
    config = (before.folder / "config.yaml").read_text()
    assert not re.search(r"invrep\.\w", config) and "part: total variation" in config
    moved = {
        "rep": "invrep.representations.handcrafted.hog.HOG",
        "objective": "invrep.objectives.Match",
        "prior": "invrep.priors.Prior",
        "prior.tv": "invrep.priors.TotalVariation",
        "optim": "invrep.optim.Descent",
        "compute": "invrep.inversion.compute.Compute",
    }
    after = job(f"data.path={photos}", *(f"{key}._target_={elsewhere(old)}" for key, old in moved.items()))
    assert after.status == 0, after.err
    assert "3 of 3 are finished" in after.out and after.value == pytest.approx(before.value)
    assert (after.folder / "config.yaml").read_text().split("provenance")[0] == config.split("provenance")[0]


@pytest.mark.parametrize("target", sorted({target for group in PARTS for target in targets(group)}))
def test_every_part_has_a_stable_name(target):
    assert stable_name(get_object(target))
    assert "_target_" not in named({"_target_": target, "weight": 1})


@pytest.mark.parametrize("room", [invrep.objectives, invrep.priors])
def test_every_public_part_has_a_name_of_its_own(room):
    bases = {"FixedPrior", "InnerProduct", "Objective"}
    names = [stable_name(getattr(room, name)) for name in room.__all__ if name not in bases]
    assert None not in names and len(set(names)) == len(names)


@pytest.mark.parametrize("group", PARTS)
def test_parts_of_a_group_have_different_names(group):
    parts = {get_object(target) for target in targets(group)}
    assert len({stable_name(part) for part in parts}) == len(parts)


@pytest.mark.parametrize("group", PARTS)
def test_presets_of_a_group_never_share_a_folder(group):
    assert len({folder_of(f"{group}={name}") for name in PRESETS[group]}) == len(PRESETS[group])


def test_parts_with_equal_keys_never_share_a_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from invrep.priors import TotalVariation\n\nclass A(TotalVariation): pass\n\nclass B(A): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    commands = [
        [],
        ["prior.alpha._target_=invrep.priors.PixelNorm"],
        ["prior.tv._target_=mine.A"],
        ["prior.tv._target_=mine.B"],
        ["+prior.more={_target_:mine.A}"],
        ["+prior.other={_target_:mine.A}"],
        ["objective._target_=invrep.objectives.Caricature"],
    ]
    assert len({folder_of(*command) for command in commands}) == len(commands)


def test_what_is_the_same_shares_a_folder():
    same = [
        [],
        ["prior.tv.beta=2"],
        ["prior.tv._target_=invrep.priors.terms.TotalVariation"],  # another path of the same class
        ["trainer.devices=2", "logger=none", "data.batch_size=1", "data.limit=3", "restarts=4"],
    ]
    assert len({folder_of(*command) for command in same}) == 1
    assert folder_of("prior=cvpr15") == folder_of("prior=chroma", "prior.sigma=27098.11571533", "~prior.chroma")


def test_a_users_part_keeps_its_own_name():
    node = OmegaConf.to_container(OmegaConf.create({"_target_": "collections.OrderedDict", "x": [{"_target_": "a"}]}))
    node["x"][0]["_target_"] = "invrep.priors.AlphaNorm"
    assert named(node) == {"_target_": "collections.OrderedDict", "x": [{"part": "alpha norm"}]}
