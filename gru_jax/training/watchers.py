"""Who watches a run besides metrics.jsonl: TensorBoard, Weights & Biases, jax's profiler."""

from typing import Any

from gru_jax.training.config import Config
from gru_jax.training.progress import Reporter
from gru_jax.training.run_directory import RunDirectory


class Watchers:
    """Those of one run, as its section `log` names them."""

    def __init__(self, config: Config, directory: RunDirectory, resume_step: int, reporter: Reporter) -> None:
        self.config, self.directory = config, directory

    def step(self, step: int) -> None:
        """Called before a step is begun, with the number of steps done; cheap."""

    def write(self, line: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""

    def close(self) -> None:
        """The run is over, or was cut short."""
