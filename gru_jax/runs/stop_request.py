"""SIGTERM and SIGINT ask a run to save and stop; a second one ends it at once."""

import signal
from types import FrameType, TracebackType


class StopRequest:
    """A context that turns the first SIGTERM or SIGINT into `requested = True`."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # The default action needs no turn of the interpreter, so it works even inside a long
        # compilation.
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
