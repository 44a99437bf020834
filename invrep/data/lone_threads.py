"""Start threads that work beside the passes without slowing them down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier


def lone_threads(number: int) -> ThreadPoolExecutor:
    """Return a pool of threads that each compute alone.

    Torch would start more threads for each of them. OpenMP then has more threads than processors, and no longer lets
    those of the passes wait for each other actively: each pass of AlexNet relu2 takes half as long again.
    """
    import torch  # takes seconds, and every command imports this module

    pool, together, here = ThreadPoolExecutor(number), Barrier(number + 1), torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # a thread's first use of torch sets the number, and would override the next line
        torch.set_num_threads(1)
        together.wait()  # so that each thread gets one of these calls

    for _ in range(number):
        pool.submit(begin)
    together.wait()
    torch.set_num_threads(here)  # the number is the thread's, but new threads begin with the last one set
    return pool
