"""Exchange messages, called words, between the ranks of one launch, through files in the job's folder.

Every rank that torchrun or srun has started rewrites its file ``ranks/<rank>-<life>.json`` every few seconds, from a
thread. Each new version is a sign of life. *life* is a random identifier of the process.

A word of an earlier launch must not count, and launchers may give a requeued launch the name of the first. So every
rank first waits until rank 0's word changes. It then answers by putting rank 0's life into its own word. Rank 0 accepts
only words with its own life. No rank compares another machine's clock with its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from invrep.errors import InvrepError, ToldError
from invrep.jobs.process import machine_place, runs
from invrep.jobs.ranks import Rank
from invrep.jobs.signals import Stop
from invrep.results.atomic_files import disk

BEATS = (1.0, 5.0)  # seconds between signs of life of rank 0, for which the others wait, and of the other ranks
SILENCE = 45.0  # seconds without a sign of life, after which a rank counts as dead
ABSENCE = 60.0  # seconds after which a rank without any word counts as absent
PATIENCE = 3.0  # seconds of waiting before a rank prints for whom it waits
REMINDER = 300.0  # seconds before it prints so again
POLL = 0.3  # seconds between two looks at the files
WORKING, DONE, STOPPED, DIED, ABSENT = "working", "done", "stopped", "died", "absent"


@dataclass
class Seen:
    """Hold another rank's latest word.

    Attributes:
        text: content of its file.
        changed: bool; True if this rank has seen an earlier version of the file.
        looks: number of looks at this version. Time is counted in looks, since a clock runs on while a job is
            suspended.
    """

    text: str
    changed: bool
    looks: int = 1

    @property
    def word(self) -> dict[str, Any]:
        """Return the word as a dictionary: state, failures, mistake, life, process, and more."""
        word: dict[str, Any] = json.loads(self.text)
        return word

    @property
    def dead(self) -> bool:
        """Return whether the other rank has died: no sign of life for ``SILENCE``, or no process on this machine."""
        here = self.word["place"] is not None and self.word["place"] == machine_place()
        return (here and not runs(self.word["pid"])) or self.looks * POLL > SILENCE


@dataclass
class Gathered:
    """Hold the state of the other ranks' shares.

    Attributes:
        failures: sentence for each failed photo by its id, from ranks that have done their share.
        lost: reason why a rank's share is not done, by rank.
        absent: ranks without any word.
        mistakes: sentences of ranks that a user's mistake has ended.
    """

    failures: dict[str, str] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    absent: list[int] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


class Words:
    """Write one rank's word and read the others', inside a context that lasts as long as the rank's job.

    Args:
        folder: folder ``ranks`` in the job's folder; rank 0 removes it when the job is finished.
        rank: rank of this process.
        tell: function that prints a sentence for the user.
    """

    def __init__(self, folder: Path, rank: Rank, tell: Callable[[str], None]) -> None:
        self.folder, self.rank, self.tell = folder, rank, tell
        self.life = uuid.uuid4().hex[:12]
        self.first = self.life if rank.index == 0 else None  # rank 0's life; None until rank 0 is known to be alive
        self._said: dict[str, Any] = {"launch": rank.run, "life": self.life, "state": WORKING, "failures": {}}
        self._said |= {"place": machine_place(), "pid": os.getpid(), "mistake": None}
        self._seen: dict[Path, Seen] = {}
        self._beats = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._reminded = 0.0

    def __enter__(self) -> Words:
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write()
        self.came = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write how this rank has ended.

        Raises:
            ToldError: a mistake has ended this rank, and a living rank 0 reports it to the user.
            SystemExit: a signal has ended this rank, and a living rank 0 reports it to the user.
        """
        self._stop()
        if kind is None and self.rank.index == 0:
            self._said["state"] = DONE
            self._beat()
        mistake = str(error) if isinstance(error, InvrepError) else None
        if self._said["state"] == WORKING:
            self._said |= {"state": STOPPED, "mistake": mistake}
            try:
                self._write()
            except OSError:
                return
        elif self.rank.index == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.rank.index > 0 and self.first is not None:
            seen = self._look(self._path(0, self.first))
            if seen is not None and (seen.word["state"] == STOPPED or not seen.dead):
                if isinstance(error, Stop):
                    raise SystemExit(error.status) from None
                if mistake is not None:
                    raise ToldError(mistake) from None

    def report(self, progress: Sequence[Any]) -> None:
        """Put this rank's progress, plain numbers and texts, into its next sign of life."""
        self._said["progress"] = list(progress)

    def reports(self) -> dict[int, list[Any]]:
        """Return the latest progress of every other rank that has reported some, by rank."""
        words = {index: seen.word for index, seen in self._answers().items()}
        return {index: word["progress"] for index, word in words.items() if "progress" in word}

    def leave(self, failures: dict[str, str]) -> str:
        """Write that this rank's share is done, wait for rank 0, and return rank 0's state.

        Ranks other than rank 0 call it.

        Args:
            failures: sentence for each failed photo, by the photo's id.

        Returns:
            ``done``: rank 0 has finished the job. ``stopped``: a mistake or a signal has ended rank 0. ``died``: rank 0
            gives no sign of life. ``absent``: rank 0 has never given one.

        Raises:
            InvrepError: the word cannot be written.
        """
        self._reminded = time.monotonic() + PATIENCE - REMINDER
        while self.first is None:
            if time.monotonic() - self.came > ABSENCE:
                return ABSENT
            self._remind({0})
            time.sleep(POLL)
        self._stop()
        self._said |= {"state": DONE, "failures": failures}
        with disk(self.folder):
            self._write()
        while True:
            seen = self._look(self._path(0, self.first))
            if seen is None:  # rank 0 removes the folder at the job's end
                return DONE
            if (state := str(seen.word["state"])) != WORKING:
                return state
            if seen.dead:
                return DIED
            self._remind({0})
            time.sleep(POLL)

    def gather(self, waits: Callable[[], None] = lambda: None) -> Gathered:
        """Wait until every other rank is done, stopped, dead or absent, and return the state of their shares.

        Rank 0 calls it.

        Args:
            waits: function that is called a few times a second while this rank waits.
        """
        gathered = Gathered()
        waiting = set(range(1, self.rank.count))
        self._reminded = time.monotonic() + PATIENCE - REMINDER
        while waiting:
            answers = self._answers()
            for index in sorted(waiting):
                seen = answers.get(index)
                word: dict[str, Any] = {"state": WORKING} if seen is None else seen.word
                if word["state"] == DONE:
                    gathered.failures |= word["failures"]
                elif word["state"] == STOPPED and word["mistake"] is not None:
                    gathered.mistakes.append(word["mistake"])
                elif word["state"] == STOPPED:
                    gathered.lost[index] = f"rank {index} was ended"
                elif seen is not None and seen.dead:
                    gathered.lost[index] = f"rank {index} died"
                elif seen is None and time.monotonic() - self.came > ABSENCE:
                    gathered.absent.append(index)
                else:
                    continue
                waiting.remove(index)
            if waiting:
                self._remind(waiting)
                waits()
                time.sleep(POLL)
        return gathered

    # --- files --------------------------------------------------------------------------------------------------------

    def _path(self, index: int, life: str) -> Path:
        return self.folder / f"{index}-{life}.json"

    def _write(self) -> None:
        """Write this rank's word, with a new count of beats, so that every version differs from the one before."""
        with self._lock:
            self._beats += 1
            path = self._path(self.rank.index, self.life)
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text(json.dumps(self._said | {"answers": self.first, "beat": self._beats}))
            os.replace(beside, path)

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # the job itself reports a full disk or a missing folder
            self._write()

    def _live(self) -> None:
        """Give signs of life until the rank ends, and look for rank 0's first one."""
        pause, last = BEATS[self.rank.index > 0], time.monotonic()
        while not self._ended.wait(POLL if self.first is None else pause):
            met = self.first is None and self._meet()
            if met or time.monotonic() - last >= pause:
                last = time.monotonic()
                self._beat()

    def _stop(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _meet(self) -> bool:
        """Store the life of this launch's rank 0 once its word has changed; return whether it was found."""
        for path in self.folder.glob("0-*.json"):
            seen = self._look(path)
            if seen is not None and seen.changed and seen.word["launch"] == self.rank.run and not seen.dead:
                self.first = seen.word["life"]
                return True
        return False

    def _answers(self) -> dict[int, Seen]:
        """Return the words that answer this rank 0's life, by rank."""
        answers = {}
        for path in self.folder.glob("*-*.json"):
            seen = self._look(path)
            if seen is not None and seen.word["answers"] == self.life:
                answers[int(path.name.partition("-")[0])] = seen
        return answers

    def _look(self, path: Path) -> Seen | None:
        """Return another rank's current word; None without a file."""
        try:
            text = path.read_text()
            json.loads(text)["beat"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError):  # the file system fails for a while: use the last word
            return self._seen.get(path)
        before = self._seen.get(path)
        if before is None or before.text != text:
            self._seen[path] = Seen(text, changed=before is not None)
        else:
            before.looks += 1
        return self._seen[path]

    def _remind(self, waiting: set[int]) -> None:
        """Print for which ranks this rank waits, at most every ``REMINDER`` seconds."""
        if time.monotonic() - self._reminded >= REMINDER:
            self._reminded = time.monotonic()
            some = ", ".join(map(str, sorted(waiting)[:10])) + (", …" if len(waiting) > 10 else "")
            ranks = f"rank{'s' * (len(waiting) > 1)} {some}"
            self.tell(f"rank {self.rank.index} of {self.rank.count} has done its share and waits for {ranks}")
