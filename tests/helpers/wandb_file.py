"""Reading W&B's offline files: LevelDB's log framing round the records that wandb's own protobuf classes parse."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2 as pb

BLOCK, HEADER = 32768, 7


def records(path: Path) -> Iterator[pb.Record]:
    """Yield the records of a ``run-*.wandb`` file."""
    data = path.read_bytes()
    at, record = HEADER, b""  # the file's own header is as long as a record's
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield pb.Record.FromString(record)
            record = b""


def whole(path: Path) -> list[pb.Record]:
    """Return the records of a run that has ended; W&B's process closes its file a little after ``finish`` returns."""
    for _ in range(300):
        try:
            found = list(records(path))
        except DecodeError:
            found = []
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


class OfflineRun:
    """What a run recorded: history rows, summary, config, name, group, step metrics, artifacts' files, exit code."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("wandb/offline-run-*/*.wandb")
        self.files = path.parent / "files"
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.steps: dict[str, str] = {}
        self.artifacts: dict[str, dict[str, Path]] = {}  # type → name in the artifact → the file that is uploaded
        self.exit_code: int | None = None
        for record in whole(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.history.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "run":
                self.name, self.group = record.run.display_name, record.run.run_group
                self.config |= _values(record.run.config.update)
            elif kind == "config":
                self.config |= _values(record.config.update)
            elif kind == "metric":
                self.steps[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            elif kind == "artifact":
                files = record.artifact.manifest.contents
                self.artifacts[record.artifact.type] = {file.path: Path(file.local_path) for file in files}
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
