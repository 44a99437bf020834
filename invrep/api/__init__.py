"""Offer the program in Python: a representation by its name, and the inversion of tensors."""

from invrep.api.certifying import Certificates, certify
from invrep.api.inverted import Inverted
from invrep.api.inverting import invert
from invrep.api.loading import load
from invrep.api.parts import representation
from invrep.api.vocabularies import fit_vocabulary

__all__ = ["Certificates", "Inverted", "certify", "fit_vocabulary", "invert", "load", "representation"]
