"""What a run says: a live bar on a terminal, a plain line every few seconds elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

SECONDS_BETWEEN_LINES = 5.0
IN_TABLE = (
    "status", "test/accuracy", "test/loss", "valid/accuracy", "valid/loss", "best_step", "steps",
    "epochs", "params", "wall_s", "compile_s", "device_kind", "devices",
)  # fmt: skip


class _Console(Console):
    """A console whose reader may leave (`| head`): the run goes on without it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Reporter:
    """Prints notes, progress and the final table to standard output."""

    def __init__(self) -> None:
        self.console = _Console(soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._task: Any = None
        self._start = (0, 0.0)
        self._said_at = 0.0
        self._total = 0
        self._metrics: dict[str, float] = {}

    def note(self, text: str) -> None:
        """One line of information."""
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """One line on standard error."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def start(self, step: int, total: int) -> None:
        """Begins the display at a step; the rate counts from here."""
        now = time.monotonic()
        self._start, self._said_at, self._total = (step, now), now, total
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=total, completed=step, rate="")

    def metrics(self, values: Mapping[str, float]) -> None:
        """Newest values to show."""
        self._metrics.update({key: values[key] for key in values if "/" in key})

    def step(self, step: int) -> None:
        """Called after every step; cheap."""
        now = time.monotonic()
        first, began = self._start
        rate = (step - first) / max(now - began, 1e-9)
        if self._bar is not None:
            said = " ".join(f"{key} {value:.4g}" for key, value in self._metrics.items())
            self._bar.update(
                self._task,
                completed=step,
                rate=f"{rate:.1f} steps/s",
                description=said or "training",
            )
        elif now - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = now
            left = (self._total - step) / rate if rate else float("inf")
            said = "  ".join(f"{key} {value:.4f}" for key, value in self._metrics.items())
            self.note(f"step {step}/{self._total}  {rate:.1f} steps/s  {left:.0f} s left  {said}")

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

    def result(self, values: Mapping[str, Any]) -> None:
        """The final table: those values of `result.json` that people look for first."""
        table = Table(title=f"{values['name']}, seed {values['seed']}", title_justify="left")
        table.add_column("result")
        table.add_column("value", justify="right")
        for key in IN_TABLE:
            if key in values:
                value = values[key]
                table.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
        self.console.print(table)
