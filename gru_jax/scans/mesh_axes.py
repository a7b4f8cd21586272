"""Batches split over explicit axes of a mesh, the kind that `jax.make_mesh` makes by default.

With such axes the sharding is part of an array's type, and every zero, mask and broadcast parameter would have to be
made with that of the batch. Inside of what stands here the axes are automatic: XLA splits all that is computed as the
batch is split. What comes out has the batch's sharding in its type again.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from gru_jax.types import Array, Options, Params, State, Tree

Found = TypeVar("Found")

Names = str | tuple[str, ...] | None
"""The mesh axes that a dimension is split over."""


def left_to_xla(
    function: Callable[..., Found], x: Array, *trees: Tree, time_major: bool = False, own: int = 2
) -> Found:
    """`function(x, *trees)`, on a mesh with explicit axes with these automatic inside.

    Args:
      function: to a tree of arrays whose leading dimensions are the batch's; with time_major those that have as many
        dimensions as x have time before them.
      x: `[*batch, T, I]`, whose batch may be split.
      *trees: with arrays among their leaves.
      time_major: whether x is `[T, *batch, I]`.
      own: how many dimensions of x are none of the batch.
    """
    mesh = _explicit_mesh((x, trees))
    if mesh is None:
        return function(x, *trees)
    spec: tuple[Names, ...] = tuple(jax.typeof(x).sharding.spec) if isinstance(x, jax.Array) else ()
    batch = spec[1 : len(spec) - own + 1] if time_major else spec[: max(len(spec) - own, 0)]
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    inside = mesh.update_axis_types({name: AxisType.Auto for name, kind in kinds if kind == AxisType.Explicit})

    def as_the_batch(result: Array) -> Array:
        steps = (None,) if time_major and result.ndim >= len(batch) + own else ()
        return jax.sharding.reshard(result, PartitionSpec(*steps, *batch))

    with jax.sharding.use_abstract_mesh(inside):
        found = function(*_arrays(lambda a: jax.sharding.reshard(a, PartitionSpec()), (x, *trees)))
    with jax.sharding.use_abstract_mesh(mesh):
        return _arrays(as_the_batch, found)


def split_with_x(apply: Callable[..., Found], own: int = 2) -> Callable[..., Found]:
    """`apply(params, x, ...)` of a layer or model, with explicit axes left to XLA."""

    @functools.wraps(apply)
    def call(params: Params, x: Array, *states: State, **options: Any) -> Found:
        def run(x: Array, params: Params, states: tuple[State, ...], options: Options) -> Found:
            return apply(params, x, *states, **options)

        return left_to_xla(run, x, params, states, options, time_major=options.get("time_major") is True, own=own)

    return call


def _explicit_mesh(tree: Tree) -> AbstractMesh | None:
    """The mesh with explicit axes that some array lies on, or that surrounds the call; None without one."""
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    found = (mesh for mesh in (*meshes, jax.sharding.get_abstract_mesh()) if AxisType.Explicit in mesh.axis_types)
    return next(found, None)


def _arrays(function: Callable[[Array], Array], tree: Tree) -> Tree:
    """`function` of the arrays in a tree that also holds options."""
    return jax.tree.map(lambda leaf: function(leaf) if isinstance(leaf, jax.Array) else leaf, tree)
