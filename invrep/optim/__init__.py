"""Descend an energy: recipes, optimizers, bases of the image tensor."""

from invrep.optim.descent import Descent

__all__ = ["Descent"]
