"""Threads beside the passes."""

from __future__ import annotations

from threading import Barrier

import torch

from invrep.data.lone_threads import lone_threads


def test_each_computes_alone_and_the_caller_with_all_its_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = Barrier(3)

        def count() -> int:
            together.wait(timeout=30)  # each of the three threads answers
            torch.rand(3, 512, 512).mul(2).sum()
            return torch.get_num_threads()

        with lone_threads(3) as pool:
            assert [future.result() for future in [pool.submit(count) for _ in range(3)]] == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
