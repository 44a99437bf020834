"""Reading ahead and writing behind, in bounded memory."""

import threading
import time

import pytest

from invrep.data.batching import Keys, ahead
from invrep.jobs.writer import WRITES_AHEAD, Writer


def test_what_is_read_ahead_is_in_order_and_bounded():
    begun, used = [], 0

    def read(k: int) -> int:
        begun.append(k)
        time.sleep(0.002 * (k % 3))
        return k * k

    for k, value in enumerate(ahead(read, range(30), most=4)):
        assert value == k * k
        used += 1
        assert len(begun) <= used + 4
    assert used == 30


def test_what_is_read_ahead_comes_while_the_last_is_used():
    begun = threading.Event()

    def read(k: int) -> int:
        if k == 1:
            begun.set()
        return k

    stream = ahead(read, range(3), most=1)
    assert next(stream) == 0 and begun.wait(60)
    stream.close()


def test_an_error_comes_where_its_item_is_used():
    stream = ahead(lambda k: 1 // k, [1, 0, 1], most=2)
    assert next(stream) == 1
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_writes_happen_beside_in_order_and_are_waited_for():
    written, gate = [], threading.Event()

    def write(k: int) -> None:
        gate.wait(60)
        written.append(k)

    with Writer() as writer:
        for k in range(WRITES_AHEAD):
            writer(write, k)
        assert written == []
        threading.Timer(0.05, gate.set).start()
        writer(write, WRITES_AHEAD)  # one too many: waits for the first
        assert written[:1] == [0]
    assert written == list(range(WRITES_AHEAD + 1))


def test_an_error_in_writing_is_raised_and_what_was_asked_for_is_written():
    written = []

    def fail() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), Writer() as writer:
        writer(fail)
        writer(written.append, 1)
    assert written == [1]
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer(written.append, 2)
        raise KeyboardInterrupt
    assert written == [1, 2]


def test_keys():
    keys = Keys({"a"}, 2)
    assert ("a", 1) in keys and ("a", 2) not in keys and ("b", 0) not in keys
