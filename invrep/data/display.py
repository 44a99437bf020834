"""Convert images for display."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from invrep.representations.base import Representation


def display_for(phi: Representation) -> str:
    """Return how images of a representation are displayed, see :func:`shown`.

    A code that ignores contrast leaves the brightness of a pre-image open, so that its own minimum and maximum become
    black and white. Any other code is of an image in [0, 1], whose values are shown as they are.
    """
    return "rescale" if phi.ignores_contrast else "clip"


def shown(image: Tensor, display: str) -> Tensor:
    """Return an image (C, H, W) for display, in [0, 1]; NaN becomes 0.

    Args:
        image: image, (C, H, W).
        display: mapping of the values. ``rescale`` maps the image's own minimum and maximum to 0 and 1, as the paper's
            figures do. ``clip`` cuts at 0 and 1.
    """
    image = image.detach().float().cpu()
    if display == "rescale":
        low, high = image.min(), image.max()
        image = (image - low) / (high - low).clamp(min=1e-12)
    return image.nan_to_num(0.0).clamp(0, 1)


def to_pil(image: Tensor) -> Image.Image:
    """Return an 8-bit Pillow image of an image (C, H, W) with values in [0, 1]."""
    picture: Image.Image = F.to_pil_image((image * 255).round().to(torch.uint8))
    return picture
