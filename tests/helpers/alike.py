"""What contract 1 promises of an image in a batch: equal to the bit at its place, whatever stands beside it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_alike_in_any_order(compute: Callable[[list[int]], Sequence[Tensor]], count: int) -> None:
    """Compare an image's values between batches of the same images in other orders.

    At one place they are equal to the bit. At another one they are close: torch's kernels round a tensor's last
    elements otherwise, on some processors.

    Args:
        compute: takes an order of the images, and returns tensors (count, …) of finite values.
        count: how many images there are.
    """
    usual = compute(list(range(count)))
    for k in range(count):
        order = [k if place == k else other for place, other in _others_reversed(count, k)]
        for here, there in zip(usual, compute(order), strict=True):
            assert torch.equal(here[k], there[k]), k
            for place, image in enumerate(order):
                _assert_close(there[place], here[image])


def _others_reversed(count: int, k: int) -> list[tuple[int, int]]:
    others = iter([image for image in range(count - 1, -1, -1) if image != k])
    return [(place, k if place == k else next(others)) for place in range(count)]


def _assert_close(here: Tensor, there: Tensor) -> None:
    tolerance = 1e-5 if here.dtype == torch.float32 else 1e-10
    assert float((here - there).norm()) <= tolerance * float(there.norm())
