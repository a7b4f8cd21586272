"""Kernels for CPUs, written as machine code when they are first needed: no compiler has to be installed.

llvmlite, which Numba is built on, translates them for the processor that they run on. `code` is a layer over it for
loops and vectors, `products` the one loop of all matrix products, `activations` what their name says, `host` knows the
processor and compiles, `team` is what XLA calls and shares work among its threads. `cells` has the equations of gated
cells, written in terms of `vectors`, `plan` says how one is cut up, `gated_forward` and `gated_backward` are its passes
over what they share in `gated_kernel` (and the latter has in `gated_gradients` and `gated_step_back`), and `gated` is
all of it in JAX. `recurrence_passes` and `recurrence` are the same for linear recurrences, `minimal_passes` and
`minimal` for the cells that are such.
"""

import importlib.util


def missing() -> str | None:
    """What is not installed, as the end of a sentence; None where all is."""
    return None if importlib.util.find_spec("llvmlite") else "this machine: llvmlite is not installed"
