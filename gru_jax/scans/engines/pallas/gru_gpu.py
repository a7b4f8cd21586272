"""A GRU over all of time in one GPU kernel, and the transpose of its linearization in another.

The recurrent matrices stay on the chip for all steps: in the registers and the shared memory of one program a head
where that holds them (`gru_gpu_local`), else spread over programs that exchange the state at every step
(`gru_gpu_exchanged`). `gru_gpu_plan` decides.

Sums are float32, and so is the state from step to step. Products of float32 are full float32, whatever
`jax.default_matmul_precision` says. Half precision takes its factors as they are: the matrices, and for tensor cores,
from 8 sequences on, the state or gradient rounded to them.
"""


import jax
import jax.numpy as jnp

from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_derivative import Linearization
from gru_jax.scans.engines.pallas import gru_gpu_exchanged as exchanged
from gru_jax.scans.engines.pallas import gru_gpu_local as local
from gru_jax.scans.engines.pallas import gru_gpu_tiles as tiles
from gru_jax.scans.engines.pallas.gru_gpu_plan import ALONE, MULTIPROCESSORS, Plan, plan
from gru_jax.types import Array, BoolArray


def refusal(cell: GRU) -> str | None:
    """What of a GRU these kernels do not serve.

    Args:
      cell: a `GRU` whose activations are sigmoid and tanh.

    Returns:
      What it is, as the end of a sentence, or None where the kernels serve the cell.
    """
    size = cell.block_size
    if cell.reset == "before" and size > ALONE:
        return f"reset='before' with heads of more than {ALONE} units (a step would have to be exchanged twice)"
    if plan(1, cell.hidden_size, cell.heads, jnp.float32, multiprocessors=multiprocessors()) is None:
        return f"{cell.heads} heads of {size} units (their matrices do not fit on the GPU's chip)"
    return None


def multiprocessors() -> int:
    """How many programs are sure to run at the same time on the GPU: one a multiprocessor."""
    devices = jax.local_devices()
    return int(getattr(devices[0], "core_count", MULTIPROCESSORS)) if devices[0].platform == "gpu" else MULTIPROCESSORS


def states(
    u: Array,
    w_h: Array,
    b_h: Array | None,
    start: Array,
    *,
    reset_to: Array | None = None,
    use: BoolArray | None = None,
    reset: BoolArray | None = None,
    drop: Array | None = None,
    reset_mode: str = "after",
    reverse: bool = False,
    interpret: bool = False,
) -> Array:
    """The states of a GRU with sigmoid and tanh.

    Args:
      u: projected input, `[T, B, 3H]`, gates r, z, n side by side.
      w_h: recurrent matrices, `[k, H/k, 3H/k]`, one a head.
      b_h: bias inside the recurrent product, `[3H]`, or None.
      start: the state before the first step, `[B, H]`, whose dtype the states have.
      reset_to: the state after a reset, `[B, H]`, where there are resets.
      use: True where a step counts, `[T, B]`; None when all do.
      reset: True where the state is reset before the step, `[T, B]`, or None.
      drop: scaled recurrent dropout mask, `[B, H]`, or None.
      reset_mode: the cell's `reset`, "after" or "before" the product.
      reverse: from the last step to the first.
      interpret: whether Pallas's interpreter runs the kernel.

    Returns:
      The states after each step, `[T, B, H]`.

    Raises:
      ValueError: for what `refusal` names.

    Example:
      >>> u, w, start = jnp.ones((5, 2, 12)), jnp.zeros((1, 4, 12)), jnp.zeros((2, 4))
      >>> states(u, w, None, start, interpret=True).shape
      (5, 2, 4)
    """
    T, B, H = u.shape[0], *start.shape
    if not T * B:
        return jnp.zeros((T, B, H), start.dtype)
    how = _plan(B, H, w_h, reset_mode)
    inputs = {
        "u": u,
        "w": (exchanged if how.exchanged else local).matrices(how, w_h, transposed=False),
        "start": start,
        "b": None if b_h is None else b_h[None],
        "drop": drop,
        "reset_to": reset_to,
        "flags": tiles.flags(use, reset),
    }
    present = {name: a for name, a in inputs.items() if a is not None}
    if how.exchanged:
        return exchanged.states(how, present, reverse=reverse, interpret=interpret)
    return local.states(how, present, before=reset_mode == "before", reverse=reverse, interpret=interpret)


def adjoints(
    at: Linearization,
    w_h: Array,
    c: Array,
    *,
    use: BoolArray | None = None,
    reset: BoolArray | None = None,
    drop: Array | None = None,
    reset_mode: str = "after",
    reverse: bool = False,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """The transpose of a GRU's linearized recurrence: `l_t = c_t + J_{t+1}^T l_{t+1}`.

    Args:
      at: the linearization of every step, arrays `[T, B, H]`.
      w_h: recurrent matrices, `[k, H/k, 3H/k]`.
      c: gradients of the states, `[T, B, H]`.
      use, reset, drop, reset_mode, reverse, interpret: as for `states`.

    Returns:
      l, `[T, B, H]`, of c's dtype, and what reaches the start through the first step, `[B, H]`, float32.

    Raises:
      ValueError: for what `refusal` names.

    Example:
      >>> at = Linearization(*(jnp.full((5, 2, 4), 0.5),) * 5, None)
      >>> gradients, first = adjoints(at, jnp.zeros((1, 4, 12)), jnp.ones((5, 2, 4)), interpret=True)
      >>> gradients[:, 0, 0].tolist(), float(first[0, 0])
      ([1.9375, 1.875, 1.75, 1.5, 1.0], 0.96875)
    """
    T, B, H = c.shape
    if not T * B:
        return c, jnp.zeros((B, H), jnp.float32)
    how = _plan(B, H, w_h, reset_mode)
    inputs = {
        "c": c,
        **tiles.coefficients(at),
        "w": (exchanged if how.exchanged else local).matrices(how, w_h, transposed=True),
        "drop": drop,
        "flags": tiles.flags(use, reset),
    }
    present = {name: a for name, a in inputs.items() if a is not None}
    if how.exchanged:
        return exchanged.adjoints(how, present, reverse=reverse, interpret=interpret)
    return local.adjoints(how, present, before=reset_mode == "before", reverse=reverse, interpret=interpret)


def _plan(B: int, H: int, w_h: Array, reset_mode: str) -> Plan:
    heads = w_h.shape[0]
    how = plan(B, H, heads, w_h.dtype, multiprocessors=multiprocessors())
    if how is None or (how.exchanged and reset_mode == "before"):
        raise ValueError(
            f"gru_gpu: the GPU's kernels do not serve {heads} heads of {H // heads} units with reset={reset_mode!r};"
            f" use kernel='scan'"
        )
    return how
