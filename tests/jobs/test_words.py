"""Words between ranks: an earlier launch's never counts, and nobody waits for a dead one."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import invrep.jobs.words
from invrep.errors import InvrepError, ToldError
from invrep.jobs.ranks import Rank
from invrep.jobs.signals import Stop
from invrep.jobs.words import ABSENT, DIED, DONE, STOPPED, Words

FIRST, SECOND = Rank(0, 2, 0, "none--"), Rank(1, 2, 1, "none--")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ranks look and speak often, and wait for ever unless a test says otherwise."""
    for name, value in {"BEATS": (0.02, 0.02), "POLL": 0.01, "SILENCE": 1e9, "ABSENCE": 1e9, "PATIENCE": 0.0}.items():
        monkeypatch.setattr(invrep.jobs.words, name, value)


def speaks(folder: Path, rank: Rank, said: list[str] | None = None) -> Words:
    return Words(folder, rank, [].append if said is None else said.append)


def beside(*parts: Callable[[], object]) -> list[object]:
    """Run functions at once, as ranks do, and return what they return."""
    with ThreadPoolExecutor() as pool:
        return [future.result(timeout=60) for future in [pool.submit(part) for part in parts]]


def first(folder: Path) -> dict[str, str]:
    """Do what rank 0 does in a job."""
    with speaks(folder, FIRST) as words:
        failures = words.gather().failures
        return failures


def second(folder: Path, failures: dict[str, str]) -> str:
    """Do what another rank does."""
    with speaks(folder, SECOND) as words:
        return words.leave(failures)


def test_the_word_of_an_earlier_launch_is_not_taken_however_the_launcher_names_it(tmp_path: Path) -> None:
    def killed() -> None:  # rank 0, in the middle of its share
        words = speaks(tmp_path, FIRST)
        words.__enter__()
        threading.Event().wait(0.1)
        while not any(json.loads(path.read_text())["answers"] for path in tmp_path.glob("1-*.json")):
            threading.Event().wait(0.01)
        words._stop()

    def early() -> None:
        with speaks(tmp_path, SECOND) as words, pytest.MonkeyPatch.context() as patch:
            patch.setattr(words, "_remind", lambda _: done.set())
            words.leave({"a.png": "damaged"})

    done = threading.Event()
    thread = threading.Thread(target=early, daemon=True)
    thread.start()
    killed()
    assert done.wait(60)  # it has left its word, and its process is at work no more
    (old,) = tmp_path.glob("1-*.json")
    while json.loads(old.read_text())["state"] != DONE:
        done.wait(0.01)
    assert beside(lambda: first(tmp_path), lambda: second(tmp_path, {"b.png": "worse"})) == [{"b.png": "worse"}, DONE]
    assert not tmp_path.exists()
    thread.join(60)


def test_a_rank_of_another_launch_is_not_answered(tmp_path: Path) -> None:
    other = Rank(0, 2, 0, "7-0-1")
    with speaks(tmp_path, other), speaks(tmp_path, SECOND) as words:
        for _ in range(20):
            assert not words._meet()
            threading.Event().wait(0.01)
        assert words.first is None


def test_a_rank_that_waits_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with speaks(tmp_path, Rank(0, 4, 0, "")) as words, pytest.MonkeyPatch.context() as patch:
        patch.setattr(invrep.jobs.words, "ABSENCE", 0.2)
        assert words.gather().absent == [1, 2, 3]
        assert said == []
        words.tell = said.append
        words.gather()
    words = Words(tmp_path, Rank(0, 4, 0, ""), said.append)
    words._reminded = -1e9
    words._remind({1, 3})
    words._remind({3})  # so soon again it does not
    assert said[-1] == "rank 0 of 4 has done its share and waits for ranks 1, 3"


@pytest.mark.parametrize("place", [None, "another machine"])
def test_a_rank_without_a_sign_of_life_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    with speaks(tmp_path, FIRST) as words, speaks(tmp_path, SECOND) as dies:
        dies._said["place"] = place
        while not any(seen.word["place"] == place for seen in words._answers().values()):
            threading.Event().wait(0.01)
        dies._stop()
        monkeypatch.setattr(invrep.jobs.words, "SILENCE", 0.2)
        assert words.gather().lost == {1: "rank 1 died"}


def test_a_process_of_this_machine_that_is_gone_has_died_at_once(tmp_path: Path) -> None:
    with speaks(tmp_path, FIRST) as words, speaks(tmp_path, SECOND) as dies:
        dies._said["pid"] = 2**22 + 1  # above what Linux gives
        assert words.gather().lost == {1: "rank 1 died"}


def test_a_slow_rank_has_not_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.words, "SILENCE", 2.0)
    with speaks(tmp_path, FIRST) as words, speaks(tmp_path, SECOND):
        for _ in range(500):  # five times as long
            assert not any(seen.dead for seen in words._answers().values())
            threading.Event().wait(0.01)


def test_rank_0_that_dies_or_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invrep.jobs.words, "SILENCE", 0.3)
    with speaks(tmp_path, FIRST) as dies, speaks(tmp_path, SECOND) as words:
        while words.first is None:
            threading.Event().wait(0.01)
        dies._stop()
        assert words.leave({}) == DIED
    monkeypatch.setattr(invrep.jobs.words, "ABSENCE", 0.3)
    assert second(tmp_path, {}) == ABSENT  # although the dead one's word is there


def test_how_a_rank_ends_is_told_by_rank_0(tmp_path: Path) -> None:
    def ends(error: BaseException) -> None:
        with speaks(tmp_path, SECOND) as words:
            while words.first is None:
                threading.Event().wait(0.01)
            raise error

    for error, raised in ((InvrepError("no space"), ToldError), (Stop(signal.SIGTERM), SystemExit)):
        with speaks(tmp_path, FIRST) as words:
            with pytest.raises(raised) as caught:
                ends(error)
            found = words.gather()
        if raised is ToldError:
            assert found.mistakes == ["no space"] and not found.lost
        else:
            assert caught.value.code == 143 and found.lost == {1: "rank 1 was ended"}
    with pytest.raises(InvrepError, match="no space") as caught, speaks(tmp_path, SECOND):
        raise InvrepError("no space")
    assert not isinstance(caught.value, ToldError)  # nobody else is there to tell it


def test_the_others_hear_that_rank_0_has_ended(tmp_path: Path) -> None:
    def fails() -> None:
        with pytest.raises(InvrepError), speaks(tmp_path, FIRST) as words:
            words.gather()
            raise InvrepError("no space")

    assert beside(fails, lambda: second(tmp_path, {})) == [None, STOPPED]


def test_a_folder_that_goes_away_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "ranks"
    with speaks(folder, FIRST) as words:
        words._stop()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        words._beat()
        assert not folder.exists()
