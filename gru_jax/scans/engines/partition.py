"""An operation on a batch of sequences where the batch is split over devices: each runs it for the sequences it has.

XLA's partitioner would gather the whole batch on every device, for it does not know what is inside of a call.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array

Names = str | tuple[str, ...] | None
"""The mesh axes that a batch is split over."""
Shapes = Sequence[jax.ShapeDtypeStruct]
"""Arguments or results, with their shardings."""
Shardings = tuple[NamedSharding, ...]


def over_devices(
    run: Callable[..., tuple[Array, ...]], inputs: tuple[int | None, ...], outputs: tuple[int | None, ...]
) -> Callable[..., tuple[Array, ...]]:
    """`run` wherever its batch lies: on one device, split by `jit`, or inside `jax.shard_map` or `jax.pmap`.

    Args:
      run: the operation on one device.
      inputs: the axis of the batch in each argument, None for what all sequences share; the first argument has one.
      outputs: the axis of the batch in each result, None for a sum over all sequences.

    Returns:
      A function of the same arguments and results.
    """

    def names_of(first: jax.ShapeDtypeStruct) -> Names:
        """The mesh axes that the batch is split over; None where they cannot each have as many sequences."""
        axis, spec = inputs[0], getattr(first.sharding, "spec", ())
        assert axis is not None
        names = spec[axis] if axis < len(spec) else None
        if names is None:
            return None
        mesh = first.sharding.mesh
        count = math.prod(mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))
        return None if first.shape[axis] % count else names

    def side(mesh: Mesh, names: Names, axes: tuple[int | None, ...], arrays: Shapes) -> Shardings:
        def spec(axis: int | None, rank: int) -> PartitionSpec:
            return PartitionSpec(*(names if place == axis else None for place in range(rank)))

        return tuple(NamedSharding(mesh, spec(axis, len(a.shape))) for axis, a in zip(axes, arrays, strict=True))

    def partition(
        mesh: Mesh, given: Shapes, wanted: Shapes
    ) -> tuple[Mesh, Callable[..., tuple[Array, ...]], Shardings, Shardings]:
        names = names_of(given[0])

        def on_each(*args: Array) -> tuple[Array, ...]:
            added_up = lambda a, axis: lax.psum(a, names) if axis is None and names is not None else a  # noqa: E731
            # Inside jax.set_mesh the addition in a sum over devices would have its own sharding, which XLA refuses.
            with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
                return tuple(added_up(a, axis) for a, axis in zip(run(*args), outputs, strict=True))

        return mesh, on_each, side(mesh, names, outputs, wanted), side(mesh, names, inputs, given)

    def infer(mesh: Mesh, given: Shapes, wanted: Shapes) -> Shardings:
        return side(mesh, names_of(given[0]), outputs, wanted)

    split_up = custom_partitioning(run)
    split_up.def_partition(
        partition,
        infer_sharding_from_operands=infer,
        sharding_rule=lambda mesh, given, wanted: _rule((inputs, given), (outputs, wanted)),
    )

    def call(*args: Array) -> tuple[Array, ...]:
        args = on_same_axes(args)
        axes = getattr(jax.typeof(args[0]), "manual_axis_type", None)
        # Inside jax.shard_map, and jax.pmap, each device has its part already.
        return run(*args) if axes is not None and axes.varying else split_up(*args)

    return call


def _rule(*sides: tuple[tuple[int | None, ...], Shapes]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """In the words of XLA's partitioner: b is the batch, and everything else has to be whole."""
    whole: list[str] = []

    def factor(is_batch: bool) -> str:
        if not is_batch:
            whole.append(f"w{len(whole)}")
        return "b" if is_batch else whole[-1]

    def words(axes: tuple[int | None, ...], arrays: Shapes) -> str:
        each = zip(axes, (len(a.shape) for a in arrays), strict=True)
        return ", ".join(" ".join(factor(place == axis) for place in range(rank)) for axis, rank in each)

    text = " -> ".join(words(*side) for side in sides)
    return text, {"need_replication_factors": tuple(whole)}
