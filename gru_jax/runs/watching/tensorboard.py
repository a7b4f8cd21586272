"""Event files for TensorBoard: every number of a line of metrics.jsonl as a scalar at its step."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gru_jax.types import Plain

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event


class TensorBoardLog:
    """One more event file in a folder; whatever earlier ones have of later steps is purged for their readers."""

    def __init__(self, folder: Path, past: Sequence[dict[str, Plain]], resume_step: int) -> None:
        """Opens the file.

        Args:
            folder: where event files are.
            past: lines up to `resume_step`, for a run that was not watched from its start.
            resume_step: steps done before.

        Raises:
            OSError: it cannot be written.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        before = len(list(folder.glob("events.out.tfevents.*")))
        # Not tensorboardX's SummaryWriter: it writes in a thread, and waits for ever when that has met a full disk.
        # Numbered: the name alone is that of an earlier file when a run was cut and continued within a second.
        self._file = EventsWriter(str((folder / "events").absolute()), f".{before:04}")
        if before:
            start = SessionLog(status=SessionLog.START)
            self._put(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))
        else:
            for line in past:
                self._put(self._scalars(line))
        self._file.flush()

    def write(self, line: dict[str, Plain]) -> None:
        """Appends the numbers of one line, and hands them to whoever looks."""
        self._put(self._scalars(line))
        self._file.flush()

    def _put(self, event: "Event") -> None:
        self._file.write_event(event)

    def _scalars(self, line: dict[str, Plain]) -> "Event":
        # Of one line one event: a kill leaves all of its values or none.
        values = [self._summary.Value(tag=key, simple_value=value) for key, value in line.items() if key != "step"]
        return self._event(wall_time=time.time(), step=line["step"], summary=self._summary(value=values))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
