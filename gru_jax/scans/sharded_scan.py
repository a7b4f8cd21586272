"""`gru_jax.time_sharded`: `gru_jax.scan` with the time axis split over the devices of a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans.methods.time_sharded import TimeSharded
from gru_jax.scans.over_time import scan
from gru_jax.scans.select import Method
from gru_jax.types import Array, Params, State, Tree


def time_sharded(
    cell: Cell,
    params: Params,
    x: Array,
    h0: State = None,
    *,
    mesh: Mesh,
    axis: str = "time",
    batch_axis: str | None = None,
    method: str | Method = "auto",
    **options: Any,
) -> Any:
    """Runs a cell over time, the steps of each sequence being spread over several devices.

    The same numbers as `gru_jax.scan`, for linear and nonlinear cells, with gradients. Arrays that are not on the mesh
    yet are put there; inside `jit`, JAX moves what is elsewhere.

    Args:
      cell: what one step computes.
      params: its parameters, on every device.
      x: input, `[*batch, T, I]`; T has to be a multiple of the devices along `axis`.
      h0: state before the first step, `[*batch, H]`; zeros when None.
      mesh: the devices.
      axis: the mesh axis over which time is split.
      batch_axis: a mesh axis over which the first batch dimension is split as well.
      method: "auto", "associative", "newton", "sequential" or a method with options, see `TimeSharded`.
      **options: lengths, mask, resets, reset_to, reverse, time_major, padding, input_dropout, recurrent_dropout, key,
        return_gates and stats of `gru_jax.scan`.

    Returns:
      y: outputs, `[*batch, T, H]`, split over the mesh as x is.
      h_T: the state after the last step, `[*batch, H]`, on every device along `axis`.
      gates, stats: where asked for.

    Raises:
      TypeError, ValueError: for what does not fit, before anything is computed.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> mesh = jax.make_mesh((len(jax.devices()),), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> x = jax.random.normal(jax.random.key(1), (2, 64, 3))
      >>> y, h = gj.time_sharded(cell, params, x, mesh=mesh, axis="time")
      >>> y.shape, bool(jnp.allclose(y, gj.scan(cell, params, x)[0], atol=1e-5))
      ((2, 64, 4), True)
    """
    sharded = TimeSharded(mesh, axis, batch_axis, method)
    x = checks.floating("time_sharded", "x", x)
    if x.ndim < 2:
        raise ValueError(f"time_sharded: x must have at least 2 dimensions, [*batch, T, I]; got shape {list(x.shape)}")
    time_major = options.get("time_major") is True
    batch = x.shape[1:-1] if time_major else x.shape[:-2]
    sharded.check_split(x.shape[0 if time_major else -2], batch)

    def put(tree: Tree, *spec: str | None) -> Tree:
        return jax.tree.map(lambda a: _on_mesh(a, NamedSharding(mesh, PartitionSpec(*spec))), tree)

    rows = (batch_axis,) if batch else ()
    steps = (axis, *rows) if time_major else (*rows, *(None,) * (len(batch) - 1), axis)
    for name in ("mask", "resets"):
        if options.get(name) is not None:
            options[name] = put(options[name], *steps)
    for name in ("lengths", "reset_to", "key"):
        if options.get(name) is not None:
            options[name] = put(options[name], *(() if name == "key" else rows))
    return scan(cell, put(params), put(x, *steps), put(h0, *rows), method=sharded, **options)


def _on_mesh(a: ArrayLike, sharding: NamedSharding) -> Array:
    return a if isinstance(a, jax.core.Tracer) else jax.device_put(a, sharding)
