"""Define FFDNet, a denoiser of photos (Zhang, Zuo & Zhang, FFDNet, IEEE TIP 2018)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from invrep.stable_names import known_as

WEIGHTS = Path(__file__).parent / "ffdnet_color.safetensors"  # MIT, see ffdnet_color.license beside it
WIDTH, DEPTH = 96, 12  # channels and convolutions of the colour network


@known_as("ffdnet")
class FFDNet(nn.Module):
    """Remove Gaussian noise of a given strength from RGB images, with the weights of the package.

    The network sees each square of 2×2 pixels as one position of 12 channels, beside a map of the noise's strength.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [13, *[WIDTH] * (DEPTH - 1), 12]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            # on no device, since initial weights would be drawn from the user's random numbers
            layers += [nn.Conv2d(before, after, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*layers[:-1])
        self.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()}, assign=True)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "batch 3 row column"], sigma: float) -> Float[Tensor, "batch 3 row column"]:
        """Return the denoised images, (B, 3, H, W) in [0, 1].

        Args:
            images: images, (B, 3, H, W) in [0, 1].
            sigma: standard deviation of the noise, where 0 to 1 is black to white.
        """
        height, width = images.shape[-2:]
        even = functional.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        blocks = functional.pixel_unshuffle(even, 2)
        noise = blocks.new_full((len(blocks), 1, *blocks.shape[-2:]), sigma)
        found: Tensor = self.model(torch.cat([blocks, noise], 1))
        return functional.pixel_shuffle(found, 2)[..., :height, :width]
