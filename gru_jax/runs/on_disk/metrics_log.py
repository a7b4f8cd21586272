"""`metrics.jsonl`: one JSON object a line, appended and flushed as training goes."""

import json
import os
from pathlib import Path

from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.types import Plain


class MetricsLog:
    """Appends lines; on resume first drops those that the checkpoint has not seen.

    Attributes:
        lines: how many the file has.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        """Opens the file.

        Args:
            path: of the file; created when absent.
            resume_step: lines of later steps, and a last line cut short by a kill, are dropped.
        """
        self.lines = 0
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _until(line, resume_step)]
            write_text(path, "".join(kept))
            self.lines = len(kept)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, line: dict[str, Plain]) -> None:
        """Appends one line and hands it to the operating system."""
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            # A write that fails does not say of which file.
            raise OSError(error.errno, error.strerror, self._file.name) from error
        self.lines += 1

    def sync(self) -> None:
        """Waits until every line is on the disk; a checkpoint counts on the lines before it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Unwritten(MetricsLog):
    """The log of a process that leaves the writing to another one."""

    def __init__(self) -> None:
        self.lines = 0

    def write(self, line: dict[str, Plain]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _until(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def read_metrics(path: Path) -> list[dict[str, Plain]]:
    """The lines of a metrics file; one cut short or without a step is left out.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            lines.append(values)
    return lines
