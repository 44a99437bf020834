"""Measure how near a pre-image looks to its photo: contrast, colour cast, gradients, LPIPS, other networks' error."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from skimage.color import rgb2lab
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

import invrep
from invrep.evaluation.certificate.naturalness import gradients
from invrep.evaluation.metrics import psnr, ssim
from invrep.representations.base import Representation

FILES = {"alexnet": "alexnet_features", "vgg16": "vgg16_features", "resnet18": "resnet18"}


def representation(case: str, weights: Path) -> Representation:
    """Return Φ of a case such as ``alexnet:pool5`` or ``hog``."""
    name, _, layer = case.partition(":")
    if name not in FILES:
        return invrep.representation(name)
    return invrep.representation(name, layer=layer or None, weights=weights / f"{FILES[name]}.safetensors")


def contrast(image: Tensor) -> float:
    """Return the mean over channels of the pixels' standard deviation."""
    return float(image.flatten(1).std(1).mean())


def cast(image: Tensor, photo: Tensor) -> float:
    """Return the distance between the mean Lab colours of two images."""
    lab = [torch.as_tensor(rgb2lab(x.permute(1, 2, 0).numpy())).mean((0, 1)) for x in (image, photo)]
    return float((lab[0] - lab[1]).norm())


def lpips_of(weights: Path) -> nn.Module:
    """Return LPIPS with torchmetrics' heads and the AlexNet of a file of torchvision's convolutional weights."""
    measure: nn.Module = _LPIPS(pretrained=True, net="alex", pnet_rand=True)

    def ordered(names: dict[str, Tensor]) -> list[str]:
        return sorted(names, key=lambda name: (int(name.split(".")[1]), name))

    theirs, ours = load_file(weights / "alexnet_features.safetensors"), measure.net.state_dict()
    measure.net.load_state_dict(dict(zip(ordered(ours), (theirs[name] for name in ordered(theirs)), strict=True)))
    return measure.eval()


class Looks:
    """Measure pre-images of photos under one Φ.

    Args:
        phi: the inverted Φ.
        other: a network that took no part.
        photos: images (C, H, W) whose gradients stand for those of photos.
        lpips: measure of :func:`lpips_of`.
    """

    def __init__(self, phi: Representation, other: Representation, photos: list[Tensor], lpips: nn.Module) -> None:
        self.phi, self.other, self.lpips = phi, other, lpips
        self.usual = torch.stack([gradients(photo) for photo in photos]).mean(0)

    @torch.no_grad()
    def __call__(self, image: Tensor, photo: Tensor) -> dict[str, float]:
        """Return the measures of a pre-image (C, H, W); the code error is of its values, all others of them clipped."""
        clipped = image.clamp(0, 1)

        def error(phi: Representation, x: Tensor) -> float:
            pairs = list(zip(phi(x[None]), phi(photo[None]), strict=True))
            return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs))

        return {
            "error": error(self.phi, image),
            "contrast": contrast(clipped) / contrast(photo),
            "cast": cast(clipped, photo),
            "gradients": float((gradients(clipped) - self.usual).abs().sum() / 2),
            "photo's gradients": float((gradients(photo) - self.usual).abs().sum() / 2),
            "own gradients": float((gradients(clipped) - gradients(photo)).abs().sum() / 2),
            "psnr": float(psnr(clipped[None], photo[None])),
            "ssim": float(ssim(clipped[None], photo[None])),
            "lpips": float(self.lpips(clipped[None] * 2 - 1, photo[None] * 2 - 1).mean()),
            "other network": error(self.other, clipped),
        }
