"""Gated cells over time by kernels that are compiled for this processor: what they serve, trajectory and gradients."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gru_jax.cells import gru_layout
from gru_jax.cells.base import Dense, KnownCell, gifts
from gru_jax.scans import derivative, masking, solve_by_steps
from gru_jax.scans.engines import foreign
from gru_jax.scans.engines.batch import Rows
from gru_jax.scans.engines.llvm import cells, gated_backward, gated_forward, host, loops, team
from gru_jax.scans.engines.llvm.plan import RESET, USED, Plan
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Array, Params, State

Part = TypeVar("Part")

Results = Callable[[Plan, Array], dict[str, tuple[int, ...]]]
"""The shapes of a kernel's results, of a plan and an input."""

IN_HEADS = 1024
"""Units of a layer in heads, whose recurrent matrix is laid out with all its zeros."""
DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))
"""Of x and the states; everything is computed in float32."""


def refusal(cell: Any, asked: Asked) -> str | None:
    """What of a call the kernels do not serve, as the end of a sentence; None where they serve all of it.

    Raises:
      ValueError: where JAX does not run on a CPU.
    """
    backend = jax.default_backend()
    if backend != "cpu":
        raise ValueError(f"Sequential: kernel='llvm' needs a CPU; JAX runs on {backend} here; use kernel='auto'")
    if not gifts(cell).equations:
        return f"{type(cell).__name__} (whose equations it does not know)"
    if (unknown := cells.refusal(cell.equations)) is not None:
        return unknown
    blocks = gifts(cell).block_size not in (None, cell.hidden_size)
    reasons = {
        f"{jnp.dtype(asked.dtype).name} (only float32 and bfloat16)": jnp.dtype(asked.dtype) not in DTYPES,
        "sizes that are not known": asked.symbolic,
        f"a layer of {cell.hidden_size} units in heads (at most {IN_HEADS})": blocks and cell.hidden_size > IN_HEADS,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None:
        return reason
    problem = host.problem()
    return None if problem is None else f"this machine: {problem}"


def trajectory(cell: KnownCell, context: Context, steps: Steps, reverse: bool, *, keep: bool, cores: int) -> Trajectory:
    """The states of all steps, differentiable in every mode.

    Args:
      cell: one that `refusal` has let pass.
      context: what is the same at every step.
      steps: what differs.
      reverse: whether time runs from each sequence's end to its beginning.
      keep: whether what the backward pass needs of a step is kept for it, or computed again there.
      cores: how many threads may work at a time.

    Returns:
      The states.
    """
    call = functools.partial(_Call, cell, context, reverse, cores)
    recurrence = derivative.Recurrence(
        lambda context, step, h: masking.F(cell, context, _hidden(step), h),
        reverse,
        lambda context, steps, starts: solve_by_steps.by_scan(cell, reverse)(context, _hidden(steps), starts),
        functools.partial(_gradients, call(keep=keep)),
    )
    full = derivative.differentiable(functools.partial(_find, call(keep=keep)), recurrence, aux=True)
    if not keep:
        return exact(context, full(context, steps)[0], reverse)
    # What is kept is nothing that a forward pass alone should have to write.
    alone = lambda context, steps: _find(call(keep=False), context, steps)[0]  # noqa: E731
    states = derivative.lean(alone, lambda context, steps: full(context, steps)[0])(context, steps)
    return exact(context, states, reverse)


def forward(
    cell: KnownCell, context: Context, steps: Steps, reverse: bool, *, keep: bool, cores: int
) -> tuple[Array, tuple[Array, ...]]:
    """The states, `[T, *batch, H]`, and what `backward` takes: states and what is kept as the kernels lay it out."""
    call = _Call(cell, context, reverse, cores, keep)
    states, kept = _find(call, context, steps)
    return states, (*map(call.rows.of, call.parts(states)), *kept)


def backward(
    cell: KnownCell, context: Context, steps: Steps, reverse: bool, kept: tuple[Array, ...], cotangent: Array, *,
    keep: bool, cores: int,
) -> tuple[Context, Steps]:
    """The gradients of all that made the states, from what `forward` kept and the gradients of the states."""
    call = _Call(cell, context, reverse, cores, keep)
    number = len(call.gated.states)
    states = call.whole([call.rows.back(y, call.batch) for y in kept[:number]], context.h0)
    return _gradients(call, context, steps, states, kept[number:], cotangent)[1]


class _Call:
    """A call's equations and how its arrays lie, for the kernels: `[B, T, n]`, or `[T, B, n]`."""

    def __init__(self, cell: KnownCell, context: Context, reverse: bool, cores: int, keep: bool) -> None:
        self.cell, self.gated = cell, cells.described(cell.equations)
        self.rows, self.reverse, self.cores, self.keep = Rows(context.time.batch_leads), reverse, cores, keep
        h = self.parts(context.h0)[0]
        self.batch, self.units = h.shape[:-1], h.shape[-1]
        self.bfloat16 = h.dtype == jnp.bfloat16

    def parts(self, state: State) -> tuple[Array, ...]:
        """The vectors that a state is made of, the output first."""
        names = self.gated.states
        return (state,) if len(names) == 1 else tuple(getattr(state, name) for name in names)

    def whole(self, parts: Sequence[Array], like: State) -> State:
        """The inverse."""
        names = self.gated.states
        return parts[0] if len(names) == 1 else like._replace(**dict(zip(names, parts, strict=True)))

    def each(self, name: str, parts: Iterable[Part]) -> dict[str, Part]:
        """Parts of a state by the names that they have as arguments."""
        return {f"{name}_{k}": part for k, part in enumerate(parts)}

    def axis(self, name: str) -> int | None:
        """Where the batch is in an argument or a result."""
        if name.startswith(("w_", "b_", "d_w_", "d_b")):
            return None
        if name == "kept":
            return 1
        return 0 if name.startswith(("h0", "d_h0", "reset_to", "d_reset_to", "drop")) else self.rows.axis

    def prepared(
        self, steps: Steps, params: Params, h0: State, drop_x: Array | None, x: Array, reset_to: State
    ) -> dict[str, Array]:
        """What derivatives go through, as the kernels take it."""
        dense = params if isinstance(params, Dense) else self.cell.dense(params)
        x = x if drop_x is None else x * jnp.broadcast_to(drop_x, x.shape)
        starts: Sequence[Array] = self.parts(h0)
        sets = () if steps.reset is None else self.parts(reset_to)
        if sets:
            # The kernels know resets between steps only.
            first = jnp.expand_dims(_resets(steps)[-1 if self.reverse else 0], -1)
            starts = [jnp.where(jnp.broadcast_to(first, h.shape), to, h) for h, to in zip(starts, sets, strict=True)]
        flat = lambda name, parts: self.each(name, [a.reshape(-1, a.shape[-1]) for a in parts])  # noqa: E731
        found = {"x": self.rows.of(x), **flat("h0", starts), **flat("reset_to", sets)}
        found |= {name: a for name, a in dense._asdict().items() if a is not None}
        return {name: a.astype(jnp.float32) for name, a in found.items()}

    def around(self, context: Context, steps: Steps) -> dict[str, Array]:
        """What they do not go through."""
        found = {}
        if context.drop_h is not None:
            found["drop"] = jnp.broadcast_to(context.drop_h, (*self.batch, self.units)).astype(jnp.float32)
            found["drop"] = found["drop"].reshape(-1, self.units)
        if steps.reset is not None:
            used = jnp.ones_like(steps.reset) if steps.use is None else steps.use
            flags = used.astype(jnp.uint8) * jnp.uint8(USED) + _resets(steps).astype(jnp.uint8) * jnp.uint8(RESET)
            found["flags"] = self.rows.flag(flags)
        elif steps.use is not None:
            found["flags"] = self.rows.flag(steps.use)
        return found

    def plan(
        self, given: dict[str, Array], steps: Steps, *, backward: bool, weights: gru_layout.Layout = gru_layout.NEUTRAL
    ) -> Plan:
        """The kernel for some arguments."""
        x, at = given["x"], self.rows.axis
        if "b_x" not in given:
            bias = "none"
        elif "b_h" not in given:
            bias = "input"
        else:
            bias = "full" if given["b_h"].shape == given["b_x"].shape else "minimal"
        return Plan.of(
            host.host(), self.gated, steps=x.shape[1 - at], batch=x.shape[at], features=x.shape[-1], units=self.units,
            batch_leads=self.rows.batch_leads, reverse=self.reverse, bias=bias, masked=steps.use is not None,
            resets=steps.reset is not None, dropout="drop" in given, bfloat16=self.bfloat16, keep=self.keep,
            cores=self.cores, backward=backward, weights=weights, head=gifts(self.cell).block_size,
        )  # fmt: skip

    def run(
        self, kernel: Callable[[Plan], tuple[str, int]], loop: Callable[..., dict[str, Array]],
        plan: Callable[..., Plan], given: dict[str, Array], names: list[str], results: Results,
        more: Mapping[str, Array] | tuple[()] = (), ahead: Callable[[dict[str, Array]], None] = lambda given: None,
    ) -> dict[str, Array]:  # fmt: skip
        """The results of these names, of a kernel or, where there is none, of XLA's loop.

        Args:
          kernel: compiles one for a plan.
          loop: computes the same.
          plan: makes the plan for some arguments.
          given: what both passes are given, in any order.
          names: of the results.
          results: their shapes, of a plan and an input.
          more: what comes after `given`.
          ahead: is shown the arguments before the kernel is compiled.
        """
        given = {name: given[name] for name in plan(given).arguments} | dict(more)

        def of_batch(*args: Array) -> tuple[Array, ...]:
            now = dict(zip(given, args, strict=True))
            made = plan(now)
            ahead(now)
            try:
                name, scratch = kernel(made)
            except host.NoKernel as error:
                host.warn("Sequential", error)
                found = loop(made, **now)
                return tuple(found[name] for name in names)
            x, shapes = now["x"], results(made, now["x"])
            out = [foreign.result(shape, x.dtype, x) for shape in (*map(shapes.__getitem__, names), (scratch,))]
            return tuple(jax.ffi.ffi_call(name, out)(*args))[:-1]

        axes = tuple(self.axis(name) for name in given), tuple(self.axis(name) for name in names)
        return dict(zip(names, foreign.mapped(of_batch, *axes)(*given.values()), strict=True))


def _find(call: _Call, context: Context, steps: Steps) -> tuple[State, tuple[Array, ...]]:
    """The states, and what is to be kept."""
    T = steps.x.shape[0]
    if not math.prod(call.batch):
        return jax.tree.map(lambda h: jnp.zeros((T, *h.shape), h.dtype), context.h0), ()
    layout, params = gru_layout.NEUTRAL, context.params
    if context.original is not None:
        layout, params = context.original.layout, Dense(*context.original.arrays)
    given = call.prepared(steps, params, context.h0, context.drop_x, steps.x, context.reset_to)
    given |= call.around(context, steps)
    plan = functools.partial(call.plan, steps=steps, backward=False, weights=layout)
    names = [*call.each("y", call.gated.states), *["kept"] * call.keep]

    def results(plan: Plan, x: Array) -> dict[str, tuple[int, ...]]:
        at = call.rows.axis
        shapes = dict.fromkeys(names, (*x.shape[:2], plan.units))
        return shapes | {"kept": (x.shape[1 - at], x.shape[at], plan.blocks, plan.cell.kept, plan.lanes)}

    def backward(given: dict[str, Array]) -> None:
        """What is kept is kept for a backward pass: its kernel is compiled while the forward pass's is."""
        if call.keep:
            to_come = {name: a for name, a in given.items() if not name.startswith("b_")}
            host.ahead(_source(gated_backward, call.plan(to_come, steps, backward=True)))

    found = call.run(lambda plan: _forward(plan), loops.forward, plan, given, names, results, ahead=backward)
    states = [call.rows.back(a, call.batch) for name, a in found.items() if name != "kept"]
    states = jax.tree.map(lambda a, h: a.astype(h.dtype), call.whole(states, context.h0), context.h0)
    return states, (found["kept"],) if call.keep else ()


def _gradients(
    call: _Call, context: Context, steps: Steps, states: State, kept: tuple[Array, ...], cotangent: State
) -> tuple[State, tuple[Context, Steps]]:
    """What gradients of the states give to everything that made them."""
    nothing = jax.tree.map(jnp.zeros_like, context), jax.tree.map(jnp.zeros_like, steps)
    if not math.prod(call.batch):
        return cotangent, nothing
    # Of use, and so computed, only where a gradient is differentiated once more.
    starts = context.time.before(states, context.h0, call.reverse)
    solve = solve_by_steps.by_scan(call.cell, call.reverse)
    adjoint, _ = solve(context, _hidden(steps), starts).transpose(cotangent)
    moving = (context.params, context.h0, context.drop_x, steps.x, context.reset_to)
    prepared, pull = jax.vjp(functools.partial(call.prepared, steps), *moving)
    given = {name: a for name, a in prepared.items() if not (call.keep and name.startswith("b_"))}
    given |= call.around(context, steps)
    of_rows = lambda tree: [call.rows.of(a.astype(jnp.float32)) for a in call.parts(tree)]  # noqa: E731
    more = call.each("y", of_rows(states)) | ({"kept": kept[0]} if call.keep else {})
    more |= call.each("c", of_rows(cotangent))
    plan = functools.partial(call.plan, steps=steps, backward=True)
    width, parts = prepared["w_x"].shape[-1], call.gated.states
    sets = call.each("d_reset_to", parts) if steps.reset is not None else ()
    names = ["d_x", *call.each("d_h0", parts), "d_w_x", "d_w_h", "d_b", *sets]

    def results(plan: Plan, x: Array) -> dict[str, tuple[int, ...]]:
        batch, features = x.shape[call.rows.axis], x.shape[-1]
        shapes = dict.fromkeys(names, (batch, plan.units))
        return shapes | {
            "d_x": x.shape, "d_w_x": (features, width), "d_w_h": (plan.units, width), "d_b": (2, width),
        }  # fmt: skip

    found = call.run(lambda plan: _backward(plan), loops.backward, plan, given, names, results, more)
    of_u, of_q = found.pop("d_b")
    d_prepared = {name[2:]: a for name, a in found.items()}
    biases = {name: a.shape[-1] for name, a in prepared.items() if name.startswith("b_")}
    d_prepared |= {name: of_u if name == "b_x" else of_q[-size:] for name, size in biases.items()}
    d_params, d_h0, d_drop_x, d_x, d_reset_to = pull(d_prepared)
    d_context, d_steps = nothing
    d_context = d_context._replace(params=d_params, h0=d_h0, drop_x=d_drop_x, reset_to=d_reset_to)
    return adjoint, (d_context, d_steps._replace(x=d_x))


def _hidden(steps: Steps) -> Steps:
    """With 0 where x is masked: the kernels do not look there, and so it was left as it is."""
    return steps._replace(x=masking.zero_where_masked(steps.use, steps.x))


def _resets(steps: Any) -> Array:
    """Where the state is set to another before a step: nothing happens before one that is not used."""
    return steps.reset if steps.use is None else steps.reset & steps.use


@functools.cache
def _forward(plan: Plan) -> tuple[str, int]:
    """The name of a compiled kernel, and its scratch memory."""
    return _registered(gated_forward, plan), gated_forward.scratch(plan)


@functools.cache
def _backward(plan: Plan) -> tuple[str, int]:
    return _registered(gated_backward, plan), gated_backward.scratch(plan)


def _registered(of: ModuleType, plan: Plan) -> str:
    return host.register(_source(of, plan), team.REVERSED if plan.reverse else "")


def _source(of: ModuleType, plan: Plan) -> host.Source:
    """The program, which is the same for both directions."""
    plan = plan._replace(reverse=False)
    return host.Source(of.NAME, plan, lambda: of.write(plan))
