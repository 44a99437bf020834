"""The points of a curve: dense at first, then by ratio, and level where an image has diverged."""

from itertools import pairwise

import torch

from invrep.inversion.curve import Curve, point_follows, undo


def test_points_are_dense_at_first_and_then_a_fortieth_apart():
    curve: Curve = [(350, {})]  # a stage's first
    for passes in range(351, 10_351):
        if point_follows(curve, passes, 350):
            curve.append((passes, {}))
    points = [at - 350 for at, _ in curve]
    assert points[:80] == list(range(80)) and 250 < len(points) < 300
    assert all(after - before <= max(1, before / 40) for before, after in pairwise(points))


def test_passes_that_are_undone_leave_no_hill():
    wild = torch.tensor([torch.inf, 3.0])
    points = [torch.tensor([9.0, 9.0]), torch.tensor([5.0, 5.0]), torch.tensor([50.0, 4.0]), wild]
    curve: Curve = [(at, {"error": error}) for at, error in enumerate(points, 4)]
    undo(curve, torch.tensor([True, False]), 5)
    assert [terms["error"].tolist() for _, terms in curve] == [[9, 9], [5, 5], [5, 4], [5, 3]]
