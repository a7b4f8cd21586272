"""What writes a part of a step."""

import numpy as np

from gru_jax.scans.engines.llvm.code import Code, Value


class Writer:
    """Writes a part of a step, and takes its room in the weights and in the memory."""

    def lay_out(self, weights: np.ndarray, *arrays: np.ndarray) -> None:
        """Puts its parameters where they are read."""

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """Its step, of the values so far."""
        raise NotImplementedError
