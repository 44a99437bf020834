"""Descent of an image: recipes, optimizers, bases of the image tensor."""

from invrep.optim.descent import Descent

__all__ = ["Descent"]
