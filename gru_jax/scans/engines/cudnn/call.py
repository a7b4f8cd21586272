"""cuDNN's three operations on a padded batch, as JAX sees them: traced, mapped, split over devices.

Each takes arrays as `host.cc` names them. None has a derivative of its own: the two backward ones are that of the
first. What a pass leaves for its gradients, the reserve, is opaque and belongs to one batch as a whole; `[B, words]` it
is only so that it can be split where the batch is.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.scans.engines.cudnn import library
from gru_jax.scans.engines.cudnn.library import Net
from gru_jax.scans.engines.foreign import Axes, mapped, one_by_one, result
from gru_jax.scans.engines.partition import over_devices
from gru_jax.types import Array, Function

_FORWARD, _DATA, _WEIGHTS = library.HANDLERS


def forward(net: Net, x: Array, h0: Array, weights: Array, lengths: Array, *, ragged: bool) -> tuple[Array, Array]:
    """A pass that no gradient is asked of.

    Args:
      net: what is run.
      x: input, `[T, B, I]` or as `net` says.
      h0: states before the first step, `[parts, B, H]`.
      weights: flat, as `packing.pack` makes them.
      lengths: int32 `[B]`, 1 at least.
      ragged: whether any of them may be less than T; False spares waiting for them.

    Returns:
      y, `[T, B, directions * H]` or as `net` says, 0 past a sequence's end, and the last states, as h0.
    """
    return _forward(net, ragged)(x, h0, weights, lengths)


def forward_training(
    net: Net, x: Array, h0: Array, weights: Array, lengths: Array, *, ragged: bool
) -> tuple[Array, Array, Array]:
    """The same, with the reserve as a third result, for `backward`."""
    return _forward_training(net, ragged, *_sizes_of(net, x))(x, h0, weights, lengths)


def backward(
    net: Net, x: Array, h0: Array, weights: Array, lengths: Array, y: Array, reserve: Array, dy: Array,
    dh_last: Array, *, ragged: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The gradients of x, h0 and the weights from those of y and the last states.

    Args:
      net: what was run.
      x: as it was given.
      h0: likewise.
      weights: likewise.
      lengths: likewise.
      y: as it was found.
      reserve: what the pass left.
      dy: gradient of y.
      dh_last: gradient of the last states.
      ragged: as it was given.

    Returns:
      dx (undefined past a sequence's end), dh0 and dweights.
    """
    dx, dh0, used = _backward_data(net, ragged)(y, dy, h0, dh_last, weights, lengths, reserve)
    # A call of its own, so that nothing is computed where no gradient of parameters is asked for.
    return dx, dh0, _backward_weights(net, ragged, weights.shape[0])(x, h0, y, lengths, used)


@functools.cache
def _forward(net: Net, ragged: bool) -> Function:
    def run(x: Array, h0: Array, weights: Array, lengths: Array) -> tuple[Array, Array]:
        y, h_last, _, _ = _run(net, ragged, _FORWARD, [_outputs(net, x), h0, _nothing(x)], x, h0, weights, lengths)
        return y, h_last

    _, batch = _axes(net)
    return mapped(run, (batch, 1, None, 0), (batch, 1))


@functools.cache
def _forward_training(net: Net, ragged: bool, steps: int, batch: int) -> Function:
    words = _words(net, steps, batch)

    def run(x: Array, h0: Array, weights: Array, lengths: Array) -> tuple[Array, Array, Array]:
        reserve = result((h0.shape[1], words), jnp.uint32, x)
        y, h_last, kept, _ = _run(net, ragged, _FORWARD, [_outputs(net, x), h0, reserve], x, h0, weights, lengths)
        return y, h_last, kept

    _, axis = _axes(net)
    return _in_turn(run, (axis, 1, None, 0), (axis, 1, 0))


@functools.cache
def _backward_data(net: Net, ragged: bool) -> Function:
    def run(
        y: Array, dy: Array, h0: Array, dh_last: Array, weights: Array, lengths: Array, reserve: Array
    ) -> tuple[Array, Array, Array]:
        of_x = result((*y.shape[:2], net.input_size), y.dtype, y)
        args = (y, dy, h0, dh_last, weights, lengths, reserve)
        dx, dh0, used, _ = _run(net, ragged, _DATA, [of_x, h0, reserve], *args, aliases={6: 2})
        return dx, dh0, used

    _, axis = _axes(net)
    return _in_turn(run, (axis, axis, 1, 1, None, 0, 0), (axis, 1, 0))


@functools.cache
def _backward_weights(net: Net, ragged: bool, size: int) -> Function:
    def run(x: Array, h0: Array, y: Array, lengths: Array, reserve: Array) -> tuple[Array]:
        flat = result((size,), x.dtype, x)
        args = (x, h0, y, lengths, reserve)
        dweights, _, _ = _run(net, ragged, _WEIGHTS, [flat, reserve], *args, aliases={4: 1})
        return (dweights,)

    _, axis = _axes(net)
    call = _in_turn(run, (axis, 1, axis, 0, 0), (None,))
    return lambda *args: call(*args)[0]


def _run(
    net: Net, ragged: bool, handler: str, results: list[Array | jax.ShapeDtypeStruct], *args: Array,
    aliases: dict[int, int] | None = None,
) -> Sequence[Array]:
    """One call on one device: its results, and the workspace, for which nobody has a use."""
    x = args[0]
    steps, batch = _sizes_of(net, x)
    training = handler != _FORWARD or results[2].shape[-1] > 0
    workspace = library.loaded().sizes(net, steps, batch, training).workspace
    shapes = [result(a.shape, a.dtype, x) for a in results] + [result((workspace,), jnp.uint8, x)]
    call = jax.ffi.ffi_call(handler, shapes, input_output_aliases=aliases)
    numbers = {name: np.int64(value) for name, value in net.asked(steps, batch).items()}
    return call(*args, **numbers, ragged=np.int64(ragged))


def _axes(net: Net) -> tuple[int, int]:
    """The axes of time and batch in x and y."""
    return (1, 0) if net.batch_major else (0, 1)


def _sizes_of(net: Net, x: Array) -> tuple[int, int]:
    time, batch = _axes(net)
    return x.shape[time], x.shape[batch]


def _outputs(net: Net, x: Array) -> jax.ShapeDtypeStruct:
    return result((*x.shape[:2], (1 + net.bidirectional) * net.hidden_size), x.dtype, x)


def _nothing(like: Array) -> jax.ShapeDtypeStruct:
    return result((like.shape[0], 0), jnp.uint32, like)


@functools.cache
def _words(net: Net, steps: int, batch: int) -> int:
    """The 32-bit words of the reserve for each sequence: enough however many devices the batch may be split over."""
    parts = [n for n in range(1, jax.device_count() + 1) if batch % n == 0]
    sizes = {n: library.loaded().sizes(net, steps, batch // n, True).reserve for n in parts}
    return max(math.ceil(bytes_ / (4 * (batch // n))) for n, bytes_ in sizes.items())


def _in_turn(run: Callable[..., tuple[Array, ...]], inputs: Axes, outputs: Axes) -> Function:
    """One call after the other under `jax.vmap`: a reserve is of one batch, and so is a gradient of weights."""
    placed = over_devices(run, inputs, outputs)

    @jax.custom_batching.custom_vmap
    def one(*args: Array) -> tuple[Array, ...]:
        return placed(*args)

    @one.def_vmap
    def rule(size: int, batched: list[bool], *args: Array) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
        found = one_by_one(one, batched, args)
        return found, jax.tree.map(lambda _: True, found)

    return one
