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
    """What a run recorded: history rows, summary, config, names, axes, artifacts' files, exit code.

    Args:
        folder: the job's folder, or that of one of its runs.
    """

    def __init__(self, folder: Path) -> None:
        (path,) = [*folder.glob("wandb/offline-run-*/*.wandb"), *folder.glob("*.wandb")]
        self.files = path.parent / "files"
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.steps: dict[str, str] = {}
        self.best: dict[str, str] = {}  # metric → what of it stands in the summary
        self.artifacts: dict[str, dict[str, Path]] = {}  # type → name in the artifact → the file that is uploaded
        self.exit_code: int | None = None
        self.records = whole(path)
        for record in self.records:
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.history.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "run":
                self.id, self.name, self.group = record.run.run_id, record.run.display_name, record.run.run_group
                self.tags, self.job_type, self.sweep = list(record.run.tags), record.run.job_type, record.run.sweep_id
                self.config |= _values(record.run.config.update)
            elif kind == "config":
                self.config |= _values(record.config.update)
            elif kind == "metric":
                name = record.metric.name or record.metric.glob_name
                self.steps[name] = record.metric.step_metric
                self.best[name] = "".join(k for k in ("min", "max", "none") if getattr(record.metric.summary, k))
            elif kind == "artifact":
                files = record.artifact.manifest.contents
                self.artifacts[record.artifact.type] = {file.path: Path(file.local_path) for file in files}
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def pictures(self) -> list[dict[str, Any]]:
        """Return the rows of the history that have a picture."""
        return [row for row in self.history if "grid/path" in row]

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of the table of results, by column; a picture is a dictionary with its ``path``."""
        (path,) = [path for name, path in self.artifacts["run_table"].items() if name.endswith(".table.json")]
        found = json.loads(path.read_text())
        return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
