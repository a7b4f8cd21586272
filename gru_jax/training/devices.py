"""One signature for four ways to use the devices: one of them, `jax.pmap`, or a mesh under jit, batch or time split.

All of them compute the same numbers up to the order of summation.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gru_jax.training.losses import Sums
from gru_jax.training.step import Batch, TrainState
from gru_jax.types import Array, Params, Tree


class Placement(NamedTuple):
    """Compiled steps and the way in and out of the devices.

    Attributes:
        train_step: `(state, batch) -> state`; the old state's buffers are reused and must not be
            read again.
        eval_step: `(params, batch) -> Sums`.
        put_state: host or device pytree -> state on the devices.
        put_batch: a `Batch` -> split over the devices.
        get: pytree on the devices -> the same as numpy arrays.
        rows: size of a batch -> which of its sequences `put_batch` takes: where several processes share the devices,
            those of this process.
        devices: how many are used.
    """

    train_step: Callable[[TrainState, Batch], TrainState]
    eval_step: Callable[[Params, Batch], Sums]
    put_state: Callable[[Tree], Tree]
    put_batch: Callable[[Batch], Batch]
    get: Callable[[Tree], Tree]
    rows: Callable[[int], slice]
    devices: int


def time_mesh(devices: Sequence[jax.Device], parts: int | None) -> Mesh:
    """A mesh with the axes "data" and "time", `parts` devices along time; None is all of them."""
    return Mesh(np.array(devices).reshape(-1, parts or len(devices)), ("data", "time"))


def place(
    strategy: str,
    train_step: Callable[..., TrainState],
    eval_step: Callable[..., Sums],
    devices: Sequence[jax.Device],
    parts: int | None = None,
) -> Placement:
    """Prepares the pure steps for the devices.

    Args:
        strategy: `"single"`, `"data"` (jit over a mesh, the batch split by NamedSharding), `"pmap"` or `"time"` (jit
            over `time_mesh`, for steps whose model was built for it).
        train_step, eval_step: as in `gru_jax.training.step`, with `axis` still open.
        devices: which to use; `"single"` takes the first.
        parts: of `"time"`, see `time_mesh`.

    Raises:
        ValueError: unknown strategy.
    """
    if strategy == "single":
        mesh = Mesh(np.array(devices[:1]), ("data",))
        return _on_mesh(train_step, eval_step, mesh)
    if strategy == "data":
        return _on_mesh(train_step, eval_step, Mesh(np.array(devices), ("data",)))
    if strategy == "pmap":
        return _pmap(train_step, eval_step, devices)
    if strategy == "time":
        return _on_mesh(train_step, eval_step, time_mesh(devices, parts))
    raise ValueError(f"place: strategy must be 'single', 'data', 'pmap' or 'time', got {strategy!r}")


def _on_mesh(train_step: Callable[..., TrainState], eval_step: Callable[..., Sums], mesh: Mesh) -> Placement:
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("data"))
    steps = NamedSharding(mesh, PartitionSpec("data", "time")) if "time" in mesh.axis_names else rows
    split = Batch(x=steps, y=rows, weight=rows, position=rows, lengths=rows)  # type: ignore[arg-type]  # shardings

    shares = _shares(mesh)

    def put_batch(batch: Batch) -> Batch:
        batch = batch_in_parts(batch, mesh.shape.get("time", 1))
        shardings = split if batch.lengths is not None else split._replace(lengths=None)
        if shares == 1:
            return jax.device_put(batch, shardings)
        return jax.tree.map(
            lambda leaf, sharding: jax.make_array_from_process_local_data(
                sharding, leaf, (leaf.shape[0] * shares, *leaf.shape[1:])
            ),
            batch,
            shardings,
        )

    def put_state(tree: Tree) -> Tree:
        if mesh.is_multi_process:
            whole = jax.tree.map(np.asarray, tree)
            return jax.tree.map(lambda a: jax.make_array_from_callback(a.shape, everywhere, a.__getitem__), whole)
        return jax.device_put(tree, everywhere)

    def of_this_process(size: int) -> slice:
        if shares == 1:
            return slice(0, size)
        places = [index[0] for index in rows.addressable_devices_indices_map((size,)).values() if index is not None]
        return slice(min(place.start or 0 for place in places), max(place.stop or size for place in places))

    return Placement(
        # Shardings are stated, not inferred, so that the first and the thousandth call are one
        # program.
        jax.jit(train_step, in_shardings=(everywhere, None), out_shardings=everywhere, donate_argnums=0),
        jax.jit(eval_step, in_shardings=(everywhere, None), out_shardings=everywhere),
        put_state,
        put_batch,
        jax.device_get,
        of_this_process,
        mesh.size,
    )


def _shares(mesh: Mesh) -> int:
    """Into how many parts processes share a batch: 1 where each holds some of every sequence."""
    by_row = mesh.devices.reshape(mesh.devices.shape[0], -1)
    here = sum(any(device.process_index == jax.process_index() for device in row) for row in by_row)
    return len(by_row) // max(here, 1)


def batch_in_parts(batch: Batch, parts: int) -> Batch:
    """The batch with enough padding after it to have its time split evenly: T becomes a multiple of `parts`."""
    size, time = batch.x.shape[:2]
    extra = -time % parts
    if not extra:
        return batch
    lengths = jnp.full((size,), time, jnp.int32) if batch.lengths is None else batch.lengths

    def longer(a: Array) -> Array:
        return jnp.pad(a, [(0, 0), (0, extra)] + [(0, 0)] * (a.ndim - 2))

    per_step = batch.weight.ndim == 2
    y, weight = (longer(batch.y), longer(batch.weight)) if per_step else (batch.y, batch.weight)
    return batch._replace(x=longer(batch.x), y=y, weight=weight, lengths=lengths)


def _pmap(
    train_step: Callable[..., TrainState], eval_step: Callable[..., Sums], devices: Sequence[jax.Device]
) -> Placement:
    count = len(devices)
    mesh = Mesh(np.array(devices), ("data",))
    by_device = NamedSharding(mesh, PartitionSpec("data"))
    over = functools.partial(jax.pmap, axis_name="data", devices=devices)

    def put_state(tree: Tree) -> Tree:
        copies = jax.tree.map(lambda a: np.broadcast_to(a, (count, *np.shape(a))), jax.device_get(tree))
        return jax.device_put(copies, by_device)

    def put_batch(batch: Batch) -> Batch:
        parts = jax.tree.map(lambda a: a.reshape(count, a.shape[0] // count, *a.shape[1:]), batch)
        return jax.device_put(parts, by_device)

    return Placement(
        over(functools.partial(train_step, axis="data"), donate_argnums=0),
        over(functools.partial(eval_step, axis="data")),
        put_state,
        put_batch,
        lambda tree: jax.tree.map(lambda a: np.asarray(a[0]), tree),
        lambda size: slice(0, size),
        count,
    )
