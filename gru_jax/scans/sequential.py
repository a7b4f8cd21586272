"""The recurrence step by step, under `jax.lax.scan`."""

import dataclasses
import functools
from typing import Any

import jax
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans import derivative, linear, masking
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import State


@dataclasses.dataclass(frozen=True)
class Sequential:
    """One step after another, `lax.scan`: exact for every cell, O(T) time.

    Args:
      unroll: steps per iteration of the loop.
      kernel: what runs the loop: "scan" (`lax.scan`, on every backend) or "auto".
      keep: what is stored for the backward pass: "states" (nothing but the states; the gates are computed again, for
        all steps in one product), "gates" (what plain differentiation of the loop stores: the gates and more, nothing
        computed again, but gradients of parameters add up in their own dtype), or "auto".
      hoist: True projects the input of all steps in one product before the loop, False each step's inside it (XLA's
        CPU code for a loop that slices a projected input does not vectorise), "auto" decides by backend.

    "auto" is decided in `gru_jax.scans.select`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), method=gj.Sequential(unroll=4))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))
    """

    unroll: int = 1
    kernel: str = "auto"
    _: dataclasses.KW_ONLY
    keep: str = "auto"
    hoist: bool | str = "auto"

    def __post_init__(self) -> None:
        checks.positive("Sequential", "unroll", self.unroll)
        checks.choice("Sequential", "kernel", self.kernel, ("auto", "scan"))
        checks.choice("Sequential", "hoist", self.hoist, ("auto", True, False))
        checks.choice("Sequential", "keep", self.keep, ("auto", "states", "gates"))

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""

        def find(context: Context, steps: Steps) -> State:
            return self._find(cell, context, steps, reverse)

        if not self.keeps_states():
            return exact(context, find(context, steps), reverse)
        recurrence = derivative.Recurrence(
            functools.partial(masking.F, cell), reverse, linear.by_scan(cell, reverse, self.unroll)
        )
        return exact(context, derivative.differentiable(find, recurrence)(context, steps), reverse)

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""
        return self.keep != "gates"

    def _find(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> State:
        # A hoisted projection has used x up, so only the flags travel with it.
        if self.hoist is True:
            u = jax.vmap(lambda x: masking.project(cell, context, x))(steps.x)
            inputs: Any = (u, steps._replace(x=None))
        else:
            inputs = (None, steps)

        def body(h: State, now: tuple[Any, Steps]) -> tuple[State, State]:
            u, step = now
            u = masking.project(cell, context, step.x) if u is None else u
            h = masking.advance(cell, context, u, step, h)
            return h, h

        def run(start: State) -> tuple[State, State]:
            return lax.scan(body, start, inputs, reverse=reverse, unroll=self.unroll)

        return context.time.relay(run, context.h0, reverse)[1]
