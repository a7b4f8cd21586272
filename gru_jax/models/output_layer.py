"""A recurrent network with an output layer: one answer a sequence, or one a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.between import Network, Output
from gru_jax.cells.base import accumulator, fresh
from gru_jax.combinators import Made, StackParams
from gru_jax.scans.mesh_axes import split_with_x
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Options, Params, State, Tree, exportable

STEPS = ("last", "mean", "all")
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda a: a,
    "softmax": lambda a: jax.nn.softmax(a.astype(accumulator(a.dtype)), axis=-1).astype(a.dtype),
    "sigmoid": jax.nn.sigmoid,
}


@exportable("ReadoutParams")
class ReadoutParams(NamedTuple):
    """The parameters of a readout.

    Attributes:
      net: those of the recurrent network.
      w: `[F, O]`, F being the features that the network and the pooling give, O the outputs.
      b: `[O]`.
    """

    net: Params
    w: Array
    b: Array


class Readout(NamedTuple):
    """A recurrent network with an output layer, as two pure functions.

    Attributes:
      init: `(key, dtype=float32) -> ReadoutParams`.
      apply: `(params, x, h0=None, *, lengths=None, mask=None, resets=None, reset_to=None, key=None,
        deterministic=False, return_state=False, return_gates=False, stats=False)`; x is `[*batch, T, I]`, the result
        `[*batch, O]`, or `[*batch, T, O]` with steps="all". Masked steps never count. `return_state=True` adds the
        network's final states, which the next call takes as h0, `return_gates=True` its gates, `stats=True` the
        `Stats` of its layers, in this order.
    """

    init: Callable[..., ReadoutParams]
    apply: Callable[..., Tree]


class _Made(Readout):
    """One of this module's making, which knows what of, for what runs it otherwise than by `apply`."""

    made_of: Output | None = None


@checks.suggesting
def readout(
    net: Network, input_size: int, output_size: int, *, steps: str = "last", activation: str = "linear"
) -> Readout:
    """An output layer on a recurrent network: `activation(features w + b)`.

    Classification is steps="last" or "mean" (logits with "linear", probabilities with "softmax"), tagging is
    steps="all", regression either with "linear".

    Args:
      net: a network with `init` and `apply`, such as `gj.stack(...)`.
      input_size: I, features of a time step.
      output_size: O, labels, tags or predicted values.
      steps: "last", the output at the last valid step (of a network whose last layer has two directions: the final
        states of both, side by side); "mean", the mean of the outputs over the valid steps; "all", an output at every
        step.
      activation: of the outputs: "linear", "softmax" or "sigmoid".

    Returns:
      A `Readout`, a pair of functions (init, apply).

    Raises:
      TypeError, ValueError: for what is no network, a size under 1 or an unknown choice.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> tagger = gj.models.readout(gj.bidirectional(gj.recurrent(gj.GRU(4))), 3, 2, steps="all", activation="softmax")
      >>> params = tagger.init(jax.random.key(0))
      >>> tagger.apply(params, jnp.ones((5, 7, 3))).shape
      (5, 7, 2)
    """
    check_network("readout", net)
    check(input_size, output_size, steps, activation)

    def init(key: Key, dtype: DType = jnp.float32) -> ReadoutParams:
        checks.random_key("readout", key)
        net_key, head_key = jax.random.split(key)
        net_params = fresh(net.init, net_key, input_size, dtype)
        size = feature_size(net, net_params, input_size, dtype, steps)
        full = accumulator(dtype)
        w = jax.nn.initializers.lecun_normal()(head_key, (size, output_size), full).astype(dtype)
        return ReadoutParams(net_params, w, jnp.zeros(output_size, dtype))

    def apply(
        params: ReadoutParams,
        x: Array,
        h0: State = None,
        *,
        return_state: bool = False,
        return_gates: bool = False,
        stats: bool = False,
        **options: Any,
    ) -> Tree:
        options |= extras(return_gates, stats)
        found, (h, *others) = features(net, params.net, x, h0, steps, options)
        product = found @ params.w
        out = ACTIVATIONS[activation](product + jnp.broadcast_to(params.b, product.shape))
        asked = ([h] if return_state else []) + others
        return (out, *asked) if asked else out

    made = _Made(init, split_with_x(apply))
    made.made_of = Output(net, steps, activation, input_size)
    return made


def extras(return_gates: bool, stats: bool) -> dict[str, bool]:
    """What is asked of a network beside outputs and states.

    Named only when asked for: a network of somebody's own need not know it.
    """
    asked = {"return_gates": return_gates, "stats": stats}
    return {name: wanted for name, wanted in asked.items() if wanted}


def features(
    net: Network, params: Params, x: Array, h0: State, steps: str, options: Options
) -> tuple[Array, tuple[Tree, ...]]:
    """What the output layer sees, and whatever else the network gives: states, then gates, then stats."""
    y, h, *others = net.apply(params, x, h0, **options)
    valid = valid_steps(x, options.get("lengths"), options.get("mask"))
    if isinstance(net, Made) and steps == "last" and not isinstance(y, tuple):
        if net.directions == 1:
            return last_of(y, valid), (h, *others)
        if net.output is not None:
            # A state may be wider than what is put out (`state_dtype`); the output layer is of the network's dtype.
            return net.output(h).astype(y.dtype), (h, *others)
    # A network of somebody's own: two directions are what looks like it.
    last = h[-1] if isinstance(params, StackParams) else h
    return pooled(y, last, valid, steps), (h, *others)


def feature_size(net: Network, params: Params, input_size: int, dtype: DType, steps: str) -> int:
    """How many features the output layer sees: layers, directions and merging decide it, which the network knows."""
    x = jax.ShapeDtypeStruct((1, input_size), dtype)
    found = jax.eval_shape(lambda p, x: features(net, p, x, None, steps, {"deterministic": True})[0], params, x)
    return int(found.shape[-1])


def check_network(who: str, net: object) -> None:
    """Raises TypeError unless `net` is a pair of functions."""
    if not (callable(getattr(net, "init", None)) and callable(getattr(net, "apply", None))):
        raise TypeError(
            f"{who}: net must have init and apply, as gj.recurrent and gj.stack make; got {checks.described(net)}"
        )


def check(input_size: int, output_size: int, steps: str, activation: str) -> None:
    """Raises unless these are options of a readout."""
    checks.positive("readout", "input_size", input_size)
    checks.positive("readout", "output_size", output_size)
    checks.choice("readout", "steps", steps, STEPS)
    checks.choice("readout", "activation", activation, ACTIVATIONS)


def pooled(y: Array, last: State, valid: BoolArray | None, steps: str) -> Array:
    """What the output layer sees.

    Args:
      y: outputs of the network, `[*batch, T, F]`.
      last: final state of its last layer, `[*batch, H]` or a named tuple, or the plain pair of them of two directions.
      valid: `[*batch, T]`, the steps that count; None when all do.
      steps: "last", "mean" or "all".

    Returns:
      `[*batch, F]`, `[*batch, 2H]` for "last" with two directions, `[*batch, T, F]` for "all".

    Raises:
      ValueError: for a pair of outputs, as merge=None gives.
    """
    if isinstance(y, tuple):
        raise ValueError("readout: a network with merge=None gives a pair of outputs; use merge='concat'")
    if steps == "all":
        return y
    if steps == "mean":
        return _mean(y, valid)
    # The state of one direction may be a tuple too, an LSTM's is, but then it has names.
    if type(last) is not tuple:
        return last_of(y, valid)
    ends: list[State] = [getattr(state, "h", state) for state in last]
    if not all(isinstance(end, jax.Array) for end in ends):
        raise ValueError(
            "readout: steps='last' of two directions reads their final states, which here do not say what they put out;"
            " use steps='mean'"
        )
    return jnp.concatenate(ends, axis=-1).astype(y.dtype)


def valid_steps(x: Array, lengths: IntArray | None, mask: BoolArray | None) -> BoolArray | None:
    """`[*batch, T]`, True at the steps that count; None when all do."""
    if mask is not None:
        return jnp.asarray(mask)
    if lengths is None:
        return None
    steps = jnp.arange(x.shape[-2])
    lengths = jnp.asarray(lengths)[..., None]
    return steps.reshape((1,) * (lengths.ndim - 1) + steps.shape) < lengths


def _mean(y: Array, valid: BoolArray | None) -> Array:
    """Mean over the valid steps, `[*batch, T, F]` -> `[*batch, F]`; 0 where there is none."""
    if valid is None:
        return y.mean(axis=-2)
    # In float32 at least, as jnp.mean: half precision neither counts nor sums a thousand steps.
    total = jnp.where(valid[..., None], y, jnp.zeros_like(y)).sum(axis=-2, dtype=accumulator(y.dtype))
    count = jnp.maximum(valid.sum(axis=-1, keepdims=True), 1).astype(total.dtype)
    return (total / jnp.broadcast_to(count, total.shape)).astype(y.dtype)


def last_of(y: Array, valid: BoolArray | None) -> Array:
    """Output of the last valid step, `[*batch, T, F]` -> `[*batch, F]`; 0 where there is none."""
    if valid is None:
        return y[..., -1, :]
    after = jnp.flip(jnp.cumsum(jnp.flip(valid, -1), axis=-1), -1)
    is_last = valid & (after == 1)
    return jnp.where(is_last[..., None], y, jnp.zeros_like(y)).sum(axis=-2)
