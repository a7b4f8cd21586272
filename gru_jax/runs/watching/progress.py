"""What a run says: a live bar on a terminal, a plain line every few seconds elsewhere."""

import datetime
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from gru_jax.types import Plain

SECONDS_BETWEEN_LINES = 5.0
IN_TABLE = (
    "status", "test/accuracy", "test/macro_f1", "test/auc", "test/mae", "test/rmse", "test/mase", "test/smape",
    "test/pinball", "test/coverage", "test/nll", "test/loss", "valid/accuracy", "valid/nll", "valid/loss",
    "best_step", "steps", "epochs", "newton/iterations", "newton/fell_back", "params", "wall_s", "compile_s",
    "device_kind", "devices",
)  # fmt: skip


class _Console(Console):
    """A console whose reader may leave (`| head`): the run goes on without it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Rate:
    """Steps per second over the last half minute; compilation, before the first step, is left out."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=31)

    def per_second(self, step: int, now: float) -> float | None:
        """The rate when a step has finished; None until there are two moments to compare."""
        if not self._seen or now - self._seen[-1][1] >= 1:
            self._seen.append((step, now))
        first, began = self._seen[0]
        return (step - first) / (now - began) if step > first and now > began else None


class _Bar(Progress):
    """The bar, and below it the metrics, which would otherwise take its place."""

    metrics = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.metrics:
            yield Text(self.metrics, no_wrap=True, overflow="ellipsis")


class Reporter:
    """Prints notes, progress and the final table to standard output."""

    def __init__(self) -> None:
        self.console = _Console(soft_wrap=True, highlight=False)
        self._bar: _Bar | None = None
        self._task: Any = None
        self._rate = Rate()
        self._said_at = 0.0
        self._total = 0
        self._metrics: dict[str, float] = {}

    def note(self, text: str) -> None:
        """One line of information."""
        self.console.print(text, markup=False)

    def progress(self, text: str) -> None:
        """One line on how far it is, where there is no live bar."""
        self.note(text)

    def warn(self, text: str) -> None:
        """One line on standard error."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def start(self, step: int, total: int) -> None:
        """Begins the display at a step; until the next one is done, the step is being compiled."""
        self._rate, self._said_at, self._total = Rate(), time.monotonic(), total
        if self.console.is_terminal:
            self._bar = _Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rate]}"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("compiling", total=total, completed=step, rate="")
        elif step < total:
            self.progress("compiling")

    def metrics(self, values: Mapping[str, float]) -> None:
        """Newest values to show."""
        # valid/newton/... and the like are for the files: no line is long enough for them.
        self._metrics.update({key: values[key] for key in values if key.count("/") == 1})

    def step(self, step: int) -> None:
        """Called after every step; cheap."""
        now = time.monotonic()
        rate = self._rate.per_second(step, now)
        if self._bar is not None:
            self._bar.metrics = " ".join(f"{key} {value:.4g}" for key, value in self._metrics.items())
            self._bar.update(self._task, description="training", completed=step, rate=self._speed(step, rate))
        elif now - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = now
            metrics = (f"{key} {_number(value)}" for key, value in self._metrics.items())
            said = (f"step {step}/{self._total}", self._speed(step, rate), *metrics)
            self.progress("  ".join(part for part in said if part))

    def _speed(self, step: int, rate: float | None) -> str:
        if rate is None:
            return ""
        left = datetime.timedelta(seconds=round((self._total - step) / rate))
        return f"{rate:.1f} steps/s  {left} left"

    def stop(self) -> None:
        """Ends the live display."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def result(self, values: Mapping[str, Plain]) -> None:
        """The final table: those values of `result.json` that people look for first."""
        table = Table(title=f"{values['name']}, seed {values['seed']}", title_justify="left")
        table.add_column("result")
        table.add_column("value", justify="right")
        for key in IN_TABLE:
            if key in values:
                value = values[key]
                said = _number(value) if isinstance(value, float) else "not finite" if value is None else str(value)
                table.add_row(key, said)
        self.console.print(table)
        if "test/loss" in values:
            self.note("test and valid values are those of the parameters of best_step")


class Mute(Reporter):
    """For a process that leaves the speaking to another one."""

    def __init__(self) -> None:
        super().__init__()
        self.console.quiet = True

    def warn(self, text: str) -> None:
        """Nothing."""

    def start(self, step: int, total: int) -> None:
        """Nothing."""

    def step(self, step: int) -> None:
        """Nothing."""


def _number(value: float) -> str:
    """Four decimals where they say something."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
