"""invrep: see what an image representation keeps, by inverting it under natural-image priors."""

import os

# By default MKL rounds a product by how its operands lie in memory on some processors, so that an image's last bits
# would depend on its place in a batch. Read by MKL at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")

from invrep.api import Inverted, invert, representation
from invrep.errors import InvrepError

__all__ = ["Inverted", "InvrepError", "invert", "representation"]
