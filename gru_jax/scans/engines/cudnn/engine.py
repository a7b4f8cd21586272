"""cuDNN's GRU as an engine."""

from typing import Any

from gru_jax.scans.engines.cudnn import gru
from gru_jax.scans.engines.registry import Asked, Engine, How, Needs
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory


class CuDNN(Engine):
    """cuDNN's GRU, on an NVIDIA GPU."""

    needs = Needs(lengths=True)

    def __init__(self, name: str) -> None:
        self.name = name

    def refusal(self, cell: Any, asked: Asked) -> str | None:
        """What of a call it does not serve."""
        return gru.refusal(cell, asked)

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps."""
        return gru.trajectory(cell, context, steps, reverse)
