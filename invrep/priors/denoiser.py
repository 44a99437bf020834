"""Draw images towards photos between passes: a denoiser as a proximal step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.errors import InvrepError, out_of_memory, words
from invrep.priors.ffdnet import FFDNet
from invrep.representations.base import Representation
from invrep.stable_names import known_as
from invrep.validation import number

MOST_NOISE = 24.0  # grey levels
NOISE_PER_PIXEL = 1.5  # grey levels for each pixel between two positions of a code
LAST_NOISE = 0.2  # share of the noise that is left at the last pass


@known_as("denoiser")
class Denoiser:
    """Move images towards their denoised version D: rgb ← rgb + (1 − p)·(D(rgb, σ·.2^p) − rgb), p the share of passes.

    A denoiser moves an image up the gradient of the log density of photos (Venkatakrishnan et al., Plug-and-Play
    priors, 2013). Between passes it replaces a term of the energy, for one evaluation of D in ``every`` passes and none
    of its gradient. Its steps vanish towards the end, so the last passes match the code. Grey images, and images
    with another number of channels than three, are denoised channel by channel. Not in the papers.

    Args:
        module: D: module or function (images (B, 3, H, W) in [0, 1], σ in the same unit) → images; None: FFDNet, whose
            weights come with the package.
        noise: σ in grey levels, the standard deviation of the noise that D is told at the start, at least 0 (no steps);
            ``auto``: 1.5 times the distance in pixels between neighbouring positions of the code, at most 24, since
            the fewer positions a code has, the more of the picture the prior has to supply; 0 for a Φ that ignores
            contrast.
        every: number of passes from one step to the next.

    Raises:
        InvrepError: the noise is negative, or ``every`` is no positive whole number.
    """

    def __init__(
        self,
        *,
        module: Callable[[Tensor, float], Tensor] | None = None,
        noise: float | str = "auto",
        every: int = 8,
    ) -> None:
        self.noise = noise if noise == "auto" else number("prior.denoiser.noise", noise, minimum=0, word="auto")
        self.every = number("prior.denoiser.every", every, minimum=1, whole=True)
        self.module = FFDNet() if module is None else copy.deepcopy(module)  # the user's own module stays as it is
        if isinstance(self.module, nn.Module):
            self.module.eval().requires_grad_(False)

    def automatic(self, phi: Representation) -> float:
        """Return the value of the noise ``auto`` for a representation, in grey levels."""
        if phi.ignores_contrast:
            return 0.0
        return min(NOISE_PER_PIXEL * float(phi.stride or phi.grid or math.inf), MOST_NOISE)

    def fixed(self, phi: Representation) -> Denoiser | None:
        """Return the denoiser with its noise resolved for a representation; None where it makes no step.

        Raises:
            InvrepError: a module was given, and ``auto`` leaves it out.
        """
        if self.noise == "auto" and phi.ignores_contrast and not isinstance(self.module, FFDNet):
            raise InvrepError(
                f"The denoiser {_name(self.module)} has no effect by default on a code that ignores contrast, such as "
                f"HOG: give its noise in grey levels, for instance prior.denoiser.noise=12."
            )
        other = copy.copy(self)
        other.noise = self.automatic(phi) if self.noise == "auto" else self.noise
        return other if other.noise else None

    @torch.no_grad()
    def __call__(
        self, rgb: Float[Tensor, "batch channel row column"], progress: float
    ) -> Float[Tensor, "batch channel row column"]:
        """Return the step of each image, to be added to it.

        Args:
            rgb: images, 0 to 1 is black to white.
            progress: share p of the descent's passes that are done, in (0, 1].

        Raises:
            InvrepError: the module fails, or returns something else than finite images of the same shape.
        """
        assert not isinstance(self.noise, str)  # fixed() resolves it
        sigma = self.noise * LAST_NOISE**progress / 255
        colour = rgb.shape[1] == 3
        images = rgb if colour else rgb.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)
        images = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)  # a module may write here
        if isinstance(self.module, nn.Module):
            self.module.to(images.device)
        # One image at a time on a CPU, where the rounding of a product depends on the number of its rows.
        clean = torch.cat([self._clean(some, sigma) for some in (images.split(len(images) if images.is_cuda else 1))])
        if not colour:
            clean = clean.mean(1).view_as(rgb)
        return (clean.to(rgb) - rgb).mul_(1 - progress)

    def _clean(self, images: Tensor, sigma: float) -> Tensor:
        name = "The denoiser" if isinstance(self.module, FFDNet) else f"The denoiser {_name(self.module)}"
        try:
            clean = self.module(images, sigma)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise InvrepError(
                f"{name} fails on images of shape {tuple(images.shape)}: {words(error)}. Expected a module of (images "
                f"in [0, 1], σ)."
            ) from error
        if not isinstance(clean, Tensor) or clean.shape != images.shape:
            found = f"shape {tuple(clean.shape)}" if isinstance(clean, Tensor) else type(clean).__name__
            raise InvrepError(f"{name} returns {found}; expected images of shape {tuple(images.shape)}.")
        if not clean.isfinite().all() and images.isfinite().all():
            raise InvrepError(f"{name} returns NaN or infinity for finite images.")
        return clean.float()


def _name(module: object) -> str:
    return str(getattr(module, "__name__", type(module).__name__))
