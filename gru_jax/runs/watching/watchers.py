"""Who watches a run besides metrics.jsonl: TensorBoard, Weights & Biases, jax's profiler."""

import contextlib
import importlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gru_jax.config.config import Config
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.watching.profile_trace import ProfileTrace
from gru_jax.runs.watching.progress import Reporter
from gru_jax.runs.watching.tensorboard import TensorBoardLog
from gru_jax.runs.watching.wandb import WandbLog
from gru_jax.training.step import TrainState
from gru_jax.types import Plain


class Log(Protocol):
    """What also gets the lines of metrics.jsonl."""

    def write(self, line: dict[str, Plain]) -> None:
        """One line."""

    def close(self) -> None:
        """After the last one."""


def require(config: Config) -> None:
    """Raises ImportError where a package is missing that the section `log` asks for: before a run writes anything."""
    if config.log.tensorboard:
        importlib.import_module("tensorboardX")
    if config.log.wandb is not None:
        importlib.import_module("wandb")


class Watchers:
    """Those of one run, as its section `log` names them.

    A run does not end because nobody could watch it: what fails is said once and left out from there on.
    """

    def __init__(self, config: Config, directory: RunDirectory, resume_step: int, reporter: Reporter) -> None:
        """Begins to watch.

        Args:
            config: of the run.
            directory: of the run; `metrics.jsonl` may still have lines of later steps.
            resume_step: steps done before.
            reporter: what speaks to the user.
        """
        self._reporter = reporter
        self._logs: list[tuple[str, Log]] = []
        self._trace: ProfileTrace | None = None
        log, past = config.log, []
        if log.tensorboard or log.wandb is not None:
            past = [line for line in directory.metrics_lines() if line["step"] <= resume_step]
        if log.tensorboard:
            self._begin("log.tensorboard", partial(TensorBoardLog, directory.path / "tensorboard", past, resume_step))
        if log.wandb is not None:
            self._begin("log.wandb", partial(WandbLog, config, log.wandb, directory.path, past, reporter))
        if log.profile is not None:
            folder = directory.path / "profile"
            self._trace = ProfileTrace(log.profile, folder, resume_step, config.total_steps, reporter)

    def _begin(self, name: str, make: Callable[[], Log]) -> None:
        self._goes(name, lambda: self._logs.append((name, make())))

    def step(self, step: int, state: TrainState) -> None:
        """Called before a step is begun; cheap.

        Args:
            step: steps done.
            state: what they have led to, which may still be on its way.
        """
        trace = self._trace
        if trace is not None and not self._goes("log.profile", partial(trace.step, step, state)):
            self._trace = None

    def write(self, line: dict[str, Plain]) -> None:
        """A line of metrics.jsonl."""
        for name, log in tuple(self._logs):
            if not self._goes(name, partial(log.write, line)):
                self._logs.remove((name, log))
                with contextlib.suppress(Exception):
                    log.close()

    def close(self) -> None:
        """The run is over, or was cut short; further calls do nothing."""
        (trace, self._trace), (logs, self._logs) = (self._trace, None), (self._logs, [])
        if trace is not None:
            self._goes("log.profile", trace.close)
        for name, log in logs:
            self._goes(name, log.close)

    def _goes(self, name: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except Exception as error:
            # Of many types, with wandb's own among them; the answer to all of them is the same.
            said = str(error).strip().splitlines() or [type(error).__name__]
            self._reporter.warn(f"{name}: {said[0]}; the run goes on without it")
            return False
        return True
