"""Natural-image priors: terms of the energy, and a proximal step between passes."""

from invrep.priors.box import Box
from invrep.priors.denoiser import Denoiser
from invrep.priors.ffdnet import FFDNet
from invrep.priors.prior import FixedPrior, Prior, with_denoiser
from invrep.priors.terms import AlphaNorm, ChromaVariation, PixelNorm, TotalVariation

__all__ = [
    "AlphaNorm",
    "Box",
    "ChromaVariation",
    "Denoiser",
    "FFDNet",
    "FixedPrior",
    "PixelNorm",
    "Prior",
    "TotalVariation",
    "with_denoiser",
]
