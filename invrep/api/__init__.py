"""Offer the program in Python: a representation by its name, and the inversion of tensors."""

from invrep.api.inverted import Inverted
from invrep.api.inverting import invert
from invrep.api.loading import load
from invrep.api.parts import representation

__all__ = ["Inverted", "invert", "load", "representation"]
