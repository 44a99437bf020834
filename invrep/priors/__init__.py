"""Define natural-image priors: one number for each image."""

from invrep.priors.prior import FixedPrior, Prior
from invrep.priors.terms import AlphaNorm, ChromaVariation, PixelNorm, TotalVariation

__all__ = ["AlphaNorm", "ChromaVariation", "FixedPrior", "PixelNorm", "Prior", "TotalVariation"]
