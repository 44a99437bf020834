"""GIST against LMgist under Octave, torchgist, LMgist.m in plain NumPy, and calculus."""

import numpy as np
import pytest
import torch
from helpers.paths import SHARED

from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError
from invrep.representations.handcrafted.gist import GIST

GOLD = SHARED / "gold" / "vocab.npz"


def listed(code):
    """(1, filters, 4, 4) → (filters · 16,), the authors' order."""
    return code[0].transpose(1, 2).flatten().numpy()


@pytest.mark.parametrize("source", ["lmgist", "torchgist"])
@pytest.mark.parametrize("photo", range(3))
def test_equals_the_authors_matlab_code_and_torchgist(photo, source):
    if not GOLD.exists():
        pytest.skip(f"{GOLD} is absent")
    gold = np.load(GOLD)
    (code,) = GIST()(torch.from_numpy(gold[f"gist_gray_{photo}"])[None, None] / 255)
    np.testing.assert_allclose(listed(code), gold[f"gist_{source}_{photo}"], atol=1e-6)


def mirrored(x, before, after):
    return np.pad(x, [*zip(before, after, strict=True)], "symmetric")


def by_definition(grey, orientations):
    """LMgist.m line by line, of images of even sides."""
    x = mirrored(np.log(255 * (grey - grey.min()) / np.ptp(grey) + 1), (5, 5), (5, 5))
    side = max(x.shape)
    whole = mirrored(x, (0, 0), [side - size for size in x.shape])
    fx, fy = np.meshgrid(*[np.arange(-side / 2, side / 2)] * 2)
    low = np.fft.fftshift(np.exp(-(fx**2 + fy**2) * np.log(2) / 16))
    white = whole - np.fft.ifft2(np.fft.fft2(whole) * low).real
    local = np.sqrt(abs(np.fft.ifft2(np.fft.fft2(white**2) * low)))
    filtered = np.fft.fft2(mirrored((white / (0.2 + local))[5 : x.shape[0] - 5, 5 : x.shape[1] - 5], *[(32, 32)] * 2))
    rows, columns = filtered.shape
    fx, fy = np.meshgrid(np.arange(-columns / 2, columns / 2), np.arange(-rows / 2, rows / 2))
    radius, angle = np.fft.fftshift(np.hypot(fx, fy)), np.fft.fftshift(np.arctan2(fy, fx))
    found = []
    for scale, count in enumerate(orientations):
        for k in range(count):
            turned = angle + np.pi / count * k
            turned = np.where(turned > np.pi, turned - 2 * np.pi, turned)
            gain = np.exp(
                -10 * 0.35 * (radius / columns / (0.3 / 1.85**scale) - 1) ** 2
                - 2 * 16 * count**2 / 32**2 * np.pi * turned**2
            )
            energy = abs(np.fft.ifft2(filtered * gain))[32:-32, 32:-32]
            blocks = [np.split(part, 4, 1) for part in np.split(energy, 4, 0)]
            found.append([[blocks[row][column].mean() for row in range(4)] for column in range(4)])
    return np.ravel(found)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (40, 40)])
def test_equals_lmgist_of_images_that_are_not_square(size):
    colour = read(bundled("rocket"))[:, 30 : 30 + size[0], 200 : 200 + size[1]].double()
    (code,) = GIST(orientations=[8, 8, 4])(colour[None])
    np.testing.assert_allclose(listed(code), by_definition(colour.mean(0).numpy(), (8, 8, 4)), atol=1e-9)


def test_gradcheck():
    image = torch.rand(1, 1, 17, 14, dtype=torch.float64).requires_grad_()
    phi = GIST(orientations=[4, 3])
    assert torch.autograd.gradcheck(lambda x: phi(x)[0], (image,), fast_mode=True)


@pytest.mark.parametrize("wrong", ["8", [], [8, 0], [8.0], 8, [True]])
def test_bad_orientations(wrong):
    with pytest.raises(InvrepError, match=r"orientations must be a list of positive whole numbers"):
        GIST(orientations=wrong)
