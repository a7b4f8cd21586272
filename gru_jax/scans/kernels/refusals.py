"""What a kernel does not serve, asked before it is used: of the call that names it, and of "auto"."""

from typing import Any

from gru_jax.scans.kernels import Asked, target


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
        from gru_jax.scans.kernels import llvm

        if (reason := llvm.missing()) is not None:
            return reason
        from gru_jax.scans.kernels.llvm import gru as llvm_gru

        return llvm_gru.refusal(cell, asked)
    if kernel == "cudnn":
        from gru_jax.scans.kernels import cudnn

        return cudnn.refusal(cell, asked)
    from gru_jax.scans.kernels import gru

    return gru.refusal(cell, asked, target(who, kernel))
