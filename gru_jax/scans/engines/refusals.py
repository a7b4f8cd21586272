"""What a kernel does not serve, asked before it is used: of the call that names it, and of "auto"."""

from typing import Any

import jax

from gru_jax.scans.engines import Asked, target
from gru_jax.types import DType


def refusal(who: str, kernel: str, cell: Any, asked: Asked) -> str | None:
    """What of a call a kernel does not serve, None where it serves all of it.

    Args:
      who: the method that asks, for messages.
      kernel: "cudnn", "llvm" or one of `PALLAS`.
      cell: what is to be run.
      asked: how.

    Returns:
      The end of a sentence, such as "resets".

    Raises:
      ValueError: for a kernel that has nothing to run on here.
    """
    # Imported where they are asked for: on a CPU nothing of a GPU's is, and nothing that is not installed.
    if kernel == "llvm":
        from gru_jax.scans.engines import llvm

        if (reason := llvm.missing()) is not None:
            return reason
        from gru_jax.scans.engines.llvm import gru as llvm_gru

        return llvm_gru.refusal(cell, asked)
    if kernel == "cudnn":
        from gru_jax.scans.engines import cudnn

        return cudnn.refusal(cell, asked)
    from gru_jax.scans.engines.pallas import gru

    return gru.refusal(cell, asked, target(who, kernel))


def of_recurrence(who: str, kernel: str, dtype: DType) -> str | None:
    """The same of a linear recurrence of numbers of a dtype, for "llvm"."""
    from gru_jax.scans.engines import llvm

    if (reason := llvm.missing()) is not None:
        return reason
    if jax.default_backend() != "cpu":
        raise ValueError(
            f"{who}: kernel={kernel!r} needs a CPU; JAX runs on {jax.default_backend()} here; use kernel='auto'"
        )
    from gru_jax.scans.engines.llvm import recurrence

    return recurrence.refusal(dtype)
