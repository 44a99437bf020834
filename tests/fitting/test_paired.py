"""Paired dictionaries: learnt from windows and the patches under them, by function and by command."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from invrep import InvrepError
from invrep.data.display import to_pil
from invrep.data.photo_reading import bundled, read
from invrep.fitting import paired_windows
from invrep.fitting.paired_dictionary import load, save
from invrep.fitting.paired_windows import fit_pairs
from invrep.representations.handcrafted.hog import HOG
from invrep.representations.vocabularies.lasso import lasso
from train import command


@pytest.fixture
def cat() -> torch.Tensor:
    """The cat in grey, (1, 300, 451) in [0, 1]."""
    return read(bundled("chelsea"), color="gray")


def coded(windows: torch.Tensor, atoms: torch.Tensor) -> float:
    """Return the mean objective of a lasso of windows."""
    codes = lasso(windows, atoms, 0.02, positive=True)
    return float((0.5 * (windows - codes @ atoms).square().sum(1) + 0.02 * codes.sum(1)).mean())


def test_learnt_atoms_code_windows_better_than_windows_do_and_pair_them_with_their_patches(cat, tmp_path):
    phi = HOG(binning="bilinear")
    steps = []
    pairs = fit_pairs(phi, [("cat", cat)], atoms=32, windows=600, tell=lambda *step: steps.append(step))
    assert steps[-1] == (2, 2) and pairs.codes.shape == (32, 31 * 25) and pairs.patches.shape == (32, 28, 28)
    windows, _ = paired_windows.unit(F.unfold(phi(cat[None])[0], 5)[0].T)
    drawn = windows[torch.randperm(len(windows))[:32]] / 2**0.5
    assert coded(windows, pairs.codes) < 0.9 * coded(windows, drawn)
    # the HOG of an atom's patch is more like the atom's window than like another's
    patches = F.interpolate(pairs.patches[:, None], size=(56, 56), mode="bicubic")
    shown = paired_windows.unit(F.unfold(phi(0.5 + patches)[0][:, :, 1:6, 1:6], 5)[:, :, 0])[0]
    own = (shown @ paired_windows.unit(pairs.codes)[0].T).argmax(1)
    assert float((own == torch.arange(32)).float().mean()) > 0.5
    save(pairs, tmp_path / "pairs.safetensors")
    again = load(tmp_path / "pairs.safetensors")
    assert again.settings == pairs.settings and again.side == 56
    assert float((again.codes - pairs.codes).norm() / pairs.codes.norm()) < 0.02
    with pytest.raises(InvrepError, match="too few for 1024 atoms"):
        fit_pairs(phi, [("cat", cat[:, :100, :100])])


def test_a_dictionary_does_not_depend_on_the_order_of_photos(cat):
    photos = [("left", cat[:, :, :200]), ("right", cat[:, :, 200:])]
    one, other = (fit_pairs(HOG(), some, atoms=8, windows=300) for some in (photos, photos[::-1]))
    assert np.array_equal(one.codes.numpy(), other.codes.numpy())


def test_the_command_fits_one_for_any_code_with_positions(job, monkeypatch, tmp_path, capfd, cat):
    monkeypatch.setattr(paired_windows, "ATOMS", 16)
    monkeypatch.chdir(tmp_path)
    to_pil(cat[:, 100:228, 100:260]).save("part.png")

    def fit(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["invrep", "vocabulary", *words])
        try:
            command()
        except SystemExit as error:
            return int(error.code or 0), "".join(capfd.readouterr())
        return 0, "".join(capfd.readouterr())

    given = ("rep=hogb", "data.path=part.png", "output=hogb.safetensors")
    status, said = fit("baseline=hoggle", *given)
    assert status == 0 and "16 atoms" in said and "baseline.dictionary=hogb.safetensors" in said
    outcome = job("rep=hogb", "baseline=hoggle", "baseline.dictionary=hogb.safetensors", "data.path=part.png")
    assert outcome.status == 0 and outcome.value < 1
    other = job("rep=hog", "baseline=hoggle", "baseline.dictionary=hogb.safetensors", "data.path=part.png")
    assert other.status == 1 and "binning=bilinear" in other.err and other.err.count("\n") == 1
    assert fit("baseline=hoggle", *given)[1].count("exists already") == 1
    assert "the baseline that has one is hoggle" in fit("baseline=nearest", *given)[1]
