"""invrep: see what an image representation keeps, by inverting it under natural-image priors."""

from invrep.api import Inverted, invert, representation
from invrep.errors import InvrepError

__all__ = ["Inverted", "InvrepError", "invert", "representation"]
