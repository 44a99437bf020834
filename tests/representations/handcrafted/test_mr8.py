"""MR8 against the authors' Matlab filters, an independent convolution and calculus."""

import numpy as np
import pytest
import torch
from helpers.paths import SHARED
from scipy.signal import convolve

from invrep.api import representation
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.representations.handcrafted.mr8 import MR8, filters
from invrep.representations.vocabularies.descriptors import describe
from invrep.representations.vocabularies.vocabulary import Vocabulary

GOLD = SHARED / "gold" / "vocab.npz"


@pytest.fixture(scope="module")
def gold():
    if not GOLD.exists():
        pytest.skip(f"{GOLD} is absent")
    return np.load(GOLD)


def test_the_filters_are_the_authors(gold):
    np.testing.assert_allclose(filters(), gold["rfs_filters"], atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("photo", range(3))
def test_equals_the_authors_matlab_code(gold, photo, dtype):
    grey = torch.tensor(gold[f"gray_{photo}"], dtype=dtype)[None, None] / 255
    for weber, key in ((False, "mr8_abs"), (True, "mr8_weber")):
        (code,) = MR8(step=4, weber=weber)(grey)
        np.testing.assert_allclose(code[0].permute(1, 2, 0), gold[f"{key}_{photo}"], atol=5e-6)


@pytest.mark.parametrize("photo", range(3))
def test_the_histogram_of_textons_is_vlfeats(gold, photo):
    settings = {"descriptor": describe(MR8()), "unit": False, "color": "gray"}
    words = Vocabulary("words", {"centers": torch.from_numpy(gold["texton_centers"])}, settings)
    phi = representation("textons", vocabulary=words).double()
    (code,) = phi(torch.from_numpy(gold[f"gray_{photo}"])[None, None].double() / 255)
    np.testing.assert_allclose(code[0], gold[f"texton_hist_{photo}"], atol=1e-7)


def test_equals_a_convolution_by_definition():
    """A photo that is not in the gold, of odd sides, so that the transforms are of odd sizes."""
    grey = read(bundled("rocket"), color="gray")[:, 30:101, 200:265].double()
    standard = ((grey - grey.mean()) / grey.std())[0].numpy()
    bank = filters()
    each = np.stack([convolve(standard, one, "valid", "direct") for one in (*bank[:12], *bank[36:])])
    expected = np.concatenate([abs(each[:12]).reshape(2, 6, *each.shape[1:]).max(1), each[12:]])
    (code,) = MR8(weber=False)(grey[None])
    np.testing.assert_allclose(code[0, [0, 1, 6, 7]], expected, atol=1e-12)
    (weber,) = MR8()(grey[None])
    norm = code.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weber, code * torch.log(1 + norm / 0.03) / norm)


@pytest.mark.parametrize("weber", [False, True])
def test_gradcheck(weber):
    image = torch.rand(1, 1, 51, 52, dtype=torch.float64).requires_grad_()
    phi = MR8(step=2, weber=weber)
    assert torch.autograd.gradcheck(lambda x: phi(x)[0], (image,), fast_mode=True)


@pytest.mark.parametrize(("option", "words"), [({"step": 0}, "step"), ({"weber": 1}, "weber must be true or false")])
def test_bad_arguments(option, words):
    with pytest.raises(InvrepError, match=words):
        MR8(**option)
