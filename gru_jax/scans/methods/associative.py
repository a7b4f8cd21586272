"""Cells that are linear in their state, run as one linear recurrence over all of time."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator, gifts
from gru_jax.scans import derivative, masking
from gru_jax.scans.derivative import Solver
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import LinearEngine
from gru_jax.scans.linear import by_engine, forms
from gru_jax.scans.linear.forms import DIAGONAL, LOGARITHMIC, MATRIX
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Array, Options, State


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class Associative:
    """A linear recurrence over all of time, `h_t = a_t h_{t-1} + b_t`: exact, for cells that are linear in the state.

    Such a cell has a method `affine(params, u) -> (a, b)`, as `MinGRU` and `MinLSTM` do; any other is refused. With
    `form="log"` the states are found by their logarithms.

    Args:
      kernel: "scan" (`lax.scan`), "associative" (`lax.associative_scan`), "chunked" (chunks of time side by side, then
        from chunk to chunk), or "auto", decided by backend. "pallas" is one kernel for GPU or TPU, which reads the
        projected input of `MinGRU` and `MinLSTM` once and writes their states ("interpret-gpu", "interpret-tpu": the
        same in Pallas's interpreter); "llvm" is compiled for the CPU, where it does the same
        but for resets; of other cells it reads the factors, in float32.

    Raises:
      ValueError: for an unknown kernel.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.MinGRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), method=gj.Associative())
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))

    Source: Martin and Cundy 2018, arXiv:1709.04057; for minGRU, Feng et al. 2024, arXiv:2410.01201.
    """

    kernel: str = "auto"

    def __post_init__(self) -> None:
        checks.choice("Associative", "kernel", self.kernel, ("auto", *forms.KERNELS, *registry.LINEAR))

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""
        engine = registry.linear(self.kernel)
        if engine is not None:
            if context.time.split:
                raise ValueError(
                    f"scan: Associative(kernel={self.kernel!r}) needs all steps in one place; got it inside"
                    f" TimeSharded; use kernel='auto'"
                )
            dtype = accumulator(jax.tree.leaves(context.h0)[0].dtype)
            if (reason := engine.refusal_of_recurrence("Associative", dtype)) is not None:
                raise ValueError(f"Associative: kernel={self.kernel!r} does not serve {reason}; use kernel='scan'")
        whole = self._of_projected_input(cell, context, steps)
        if whole is not None:
            return exact(context, by_engine.trajectory(whole, cell, context, steps, reverse), reverse)
        how: Options = {"reverse": reverse, "kernel": self.kernel, "time": context.time}

        def find(context: Context, steps: Steps) -> State:
            if gifts(cell).in_log_space and engine is None:
                return _by_logarithms(cell, context, steps, **how)
            a, b = _coefficients(cell, context, steps)
            return jax.tree.map(lambda a, b, h0: _run(a, b, h0, **how), a, b, context.h0)

        def solver(context: Context, steps: Steps, starts: State) -> Solver:
            a, _ = _coefficients(cell, context, steps)

            def solve(b: State, v_0: State) -> State:
                return jax.tree.map(lambda a, b, v: _run(a, b, v, **how), a, b, v_0)

            def transpose(c: State) -> tuple[State, State]:
                full = jax.tree.map(lambda a, c: _transposed(a, c, **how), a, c)
                at_start = jax.tree.map(lambda a, l, c: _to_start(a, l, reverse).astype(c.dtype), a, full, c)
                adjoint = jax.tree.map(lambda l, c: l.astype(c.dtype), full, c)
                return adjoint, context.time.only_first(at_start, reverse)

            return Solver(solve, transpose)

        recurrence = derivative.Recurrence(functools.partial(masking.F, cell), reverse, solver)
        return exact(context, derivative.differentiable(find, recurrence)(context, steps), reverse)

    def _of_projected_input(self, cell: Cell, context: Context, steps: Steps) -> LinearEngine | None:
        """The engine that goes from the projected input to the states, None where coefficients are computed first."""
        kernel = self.kernel
        if kernel == "auto":
            h0 = context.h0
            if not isinstance(h0, jax.Array) or gifts(cell).in_log_space:
                return None
            states = jax.ShapeDtypeStruct((jax.tree.leaves(steps.x)[0].shape[0], *h0.shape), accumulator(h0.dtype))
            kernel = forms.chosen("auto", DIAGONAL, states, context.time)
        engine = registry.linear(kernel)
        return engine if engine is not None and engine.takes(cell) else None

    def keeps_states(self) -> bool:
        """True: the coefficients are computed again from the input."""
        return True


def _coefficients(cell: Any, context: Context, steps: Steps) -> tuple[State, State]:
    return jax.vmap(lambda step: masking.affine(cell, context, step))(steps)


def _algebra(a: Array, b: Array) -> forms.Algebra:
    return DIAGONAL if a.ndim == b.ndim else MATRIX


def _run(a: Array, b: Array, h0: Array, *, kernel: str, **how: Any) -> Array:
    full = accumulator(h0.dtype)
    a, b, start = (array.astype(full) for array in (a, b, h0))
    kernel = forms.chosen(kernel, _algebra(a, b), b, how["time"])
    return forms.run(_algebra(a, b), a, b, start, kernel=kernel, **how).astype(h0.dtype)


def _transposed(a: Array, c: Array, *, kernel: str, **how: Any) -> Array:
    full = accumulator(c.dtype)
    a, c = a.astype(full), c.astype(full)
    kernel = forms.chosen(kernel, _algebra(a, c), c, how["time"])
    return forms.transposed(_algebra(a, c), a, c, kernel=kernel, **how)


def _to_start(a: Array, adjoint: Array, reverse: bool) -> Array:
    """What reaches h0 through the first step, `a_1^T l_1`."""
    first = -1 if reverse else 0
    a, adjoint = a[first].astype(adjoint.dtype), adjoint[first]
    if a.ndim == adjoint.ndim:
        return a * adjoint
    return MATRIX.apply(jnp.swapaxes(a, -1, -2), adjoint)


def _by_logarithms(cell: Any, context: Context, steps: Steps, **how: Any) -> Array:
    """The states of a cell whose states are 0 at least, found by their logarithms."""
    log_a, log_b = jax.vmap(lambda step: masking.log_affine(cell, context, step))(steps)
    h0 = jnp.log(context.h0.astype(log_b.dtype))
    how["kernel"] = forms.chosen(how["kernel"], LOGARITHMIC, log_b)
    return jnp.exp(forms.run(LOGARITHMIC, log_a, log_b, h0, **how)).astype(context.h0.dtype)
