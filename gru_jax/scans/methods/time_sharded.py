"""`gru_jax.TimeSharded`: any method with the time axis split over the devices of a mesh."""

import dataclasses
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods.associative import Associative
from gru_jax.scans.methods.newton import Newton
from gru_jax.scans.methods.sequential import Sequential
from gru_jax.scans.time_axis import TimeAxis, on_same_axes
from gru_jax.scans.trajectory import Stats, Trajectory
from gru_jax.types import Array, State, Tree


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class TimeSharded:
    """Another method with time split over a mesh axis: every device holds and computes T / n of a sequence's steps.

    A linear recurrence is solved in each part, the parts are summed up as one step each, those travel in O(log n)
    exchanges, and each part starts from the state that reaches it. Newton's method does so in each of its rounds. The
    gradient travels the same way back. No device ever sees the whole sequence.

    Args:
      mesh: the devices.
      axis: the mesh axis over which time is split; T has to be a multiple of its size. Shorter sequences than that are
        not split.
      batch_axis: a mesh axis over which the first batch dimension is split as well; None where it is not.
      method: "auto" (a linear recurrence for cells that are linear in their state, Newton's method for others),
        "associative", "newton", "sequential" (the parts in turn: no faster than one device, exact for every cell), or
        such a method with options. Newton's falls back to the parts in turn.

    Raises:
      TypeError, ValueError: for an axis that the mesh has not, or a method that cannot be split.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> mesh = jax.make_mesh((len(jax.devices()),), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> rnn = gj.recurrent(gj.MinGRU(4), method=gj.TimeSharded(mesh, "time"))
      >>> y, h = rnn.apply(rnn.init(jax.random.key(0), 3), jnp.ones((2, 8, 3)))
      >>> y.shape, h.shape
      ((2, 8, 4), (2, 4))
    """

    mesh: Mesh
    axis: str = "time"
    batch_axis: str | None = None
    method: Any = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.mesh, Mesh):
            got = checks.described(self.mesh)
            raise TypeError(
                f"TimeSharded: mesh must be a jax.sharding.Mesh; got {got}; make one with"
                f" jax.make_mesh((8,), ('time',))"
            )
        for name in ("axis", "batch_axis"):
            if name == "axis" or self.batch_axis is not None:
                checks.choice("TimeSharded", name, getattr(self, name), self.mesh.axis_names)
        if self.axis == self.batch_axis:
            raise ValueError(f"TimeSharded: time and batch cannot both be split over {self.axis!r}; use two mesh axes")
        method = self.method
        if isinstance(method, str):
            checks.choice("TimeSharded", "method", method, ("auto", "associative", "newton", "sequential"))
        elif not isinstance(method, Associative | Newton | Sequential):
            raise TypeError(
                f"TimeSharded: method must be a name, gj.Associative(), gj.Newton() or gj.Sequential();"
                f" got {checks.described(method)}"
            )
        if isinstance(method, Newton) and method.window is not None:
            raise ValueError(
                f"TimeSharded: the parts of time take the place of windows; got window={method.window};"
                f" leave window out"
            )

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps, split over the mesh as the input is."""
        time = TimeAxis(self.axis, self.mesh.shape[self.axis])

        def part(context: Context, steps: Steps) -> Trajectory:
            context, steps = on_same_axes((context._replace(time=time), steps))
            states, final, stats = self.method.trajectory(cell, context, steps, reverse)
            return Trajectory(states, final, jax.tree.map(time.known_to_all, stats))

        whole, rows, each = PartitionSpec(), self._spec(by_steps=False), self._spec(by_steps=True)
        run = jax.shard_map(
            part,
            mesh=self.mesh,
            in_specs=(Context(whole, rows, rows, rows, whole, reset_to=rows), each),  # type: ignore[arg-type]
            out_specs=Trajectory(each, rows, Stats(rows, rows, rows, rows, rows)),  # type: ignore[arg-type]
        )
        return run(context, steps)

    def keeps_states(self) -> bool:
        """True: everything else is computed again for the backward pass."""
        return True

    def fitted(self, x: Array) -> "TimeSharded | Associative | Newton | Sequential":
        """The method for x, `[T, *batch, I]`: on the kind of mesh that x is on; not split where T is too short."""
        # Layers are stepped, and asked for the shape of what they put out, with a single step.
        if x.shape[0] < self.mesh.shape[self.axis]:
            return self.method
        self.check_split(x.shape[0], x.shape[1:-1])
        around = jax.typeof(x).sharding.mesh
        around = jax.sharding.get_abstract_mesh() if around.empty else around
        # Where neither x's type nor its surroundings have a mesh, JAX propagates the shardings.
        kinds = {axis: AxisType.Auto for axis in self.mesh.axis_names} if around.empty else dict(
            zip(around.axis_names, around.axis_types, strict=True)
        )
        types = tuple(map(kinds.get, self.mesh.axis_names, self.mesh.axis_types))
        return dataclasses.replace(self, mesh=Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=types))

    def placed(self, tree: Tree, *, by_steps: bool) -> Tree:
        """Arrays `[T, *batch, ...]`, or `[*batch, ...]`, split over the mesh as they will be needed."""
        sharding = NamedSharding(self.mesh, self._spec(by_steps))
        explicit = AxisType.Explicit in self.mesh.axis_types
        put = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
        return jax.tree.map(lambda a: put(a, sharding), tree)

    def _spec(self, by_steps: bool) -> PartitionSpec:
        rows = () if self.batch_axis is None else (self.batch_axis,)
        return PartitionSpec(self.axis, *rows) if by_steps else PartitionSpec(*rows)

    def check_split(self, T: int, batch: tuple[int, ...]) -> None:
        """Raises ValueError unless so many steps and sequences split evenly over the mesh."""
        parts = self.mesh.shape[self.axis]
        if T % parts:
            longer = -(-T // parts) * parts
            raise ValueError(
                f"TimeSharded: {T} steps do not split evenly over the {parts} devices of axis {self.axis!r};"
                f" pad x to {longer} steps and pass lengths"
            )
        if self.batch_axis is None:
            return
        rows = self.mesh.shape[self.batch_axis]
        if not batch:
            raise ValueError(
                f"TimeSharded: x has no batch dimension to be split over axis {self.batch_axis!r};"
                f" pass batch_axis=None"
            )
        if batch[0] % rows:
            raise ValueError(
                f"TimeSharded: a batch of {batch[0]} does not split evenly over the {rows} devices of axis"
                f" {self.batch_axis!r}; use a multiple of {rows}"
            )


def hinted(method: Any) -> tuple[Any, State]:
    """The method, hashable, and the first guess of the states that it came with, or None."""
    if isinstance(method, TimeSharded):
        inner, guess = hinted(method.method)
        return dataclasses.replace(method, method=inner), guess
    if isinstance(method, Newton) and method.init is not None:
        return dataclasses.replace(method, init=None), method.init
    return method, None
