"""Offer the methods that an inversion is compared with: functions from a code to a picture.

Each takes a code Φ0, a list of (B, …), and the representation Φ, and returns pictures (B, C, H, W); 0 to 1 is black to
white. ``shape`` is (C, H, W) of a picture. ``draws`` has a generator for each picture, from which a method with noise
takes its start; None: generators with the seeds 0, 1, ….
"""

from invrep.baselines.averaging import average
from invrep.baselines.coding import hoggle
from invrep.baselines.descending import plain, step
from invrep.baselines.regression import linear
from invrep.baselines.retrieval import nearest

__all__ = ["average", "hoggle", "linear", "nearest", "plain", "step"]
