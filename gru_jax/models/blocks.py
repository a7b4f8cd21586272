"""The block that minGRU and minLSTM are used in: a short convolution, the cell between projections, a feed-forward."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.between import Norm, kept, normalize, only
from gru_jax.cells import GRU, Cell, MinGRU, MinLSTM
from gru_jax.cells.base import accumulator
from gru_jax.combinators import Layer, recurrent
from gru_jax.models import output_layer
from gru_jax.scans import Method
from gru_jax.scans.mesh_axes import split_with_x
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, State, Tree, exportable

CELLS: dict[str, Callable[[int, str], Cell]] = {
    "min_gru": lambda units, form: MinGRU(units, form=form),
    "min_lstm": lambda units, form: MinLSTM(units, form=form),
    "gru": lambda units, form: GRU(units),
    "para_gru": lambda units, form: GRU(units, heads=units),
}
NORMS = ("rms", "layer")


@exportable("Linear")
class Linear(NamedTuple):
    """An affine map: `w` `[in, out]`, `b` `[out]`."""

    w: Array
    b: Array


@exportable("Convolution")
class Convolution(NamedTuple):
    """A causal convolution of each feature by itself, and then a linear map of all.

    Attributes:
      taps: `[K, W]`, the last row for the step itself.
      b: `[W]`, added before the map.
      mix: the map, W to W.
    """

    taps: Array
    b: Array
    mix: Linear


@exportable("BlockParams")
class BlockParams(NamedTuple):
    """The parameters of a `min_block`; None for the parts that it does not have.

    Attributes:
      inward: the map of an input that has another size than the block.
      conv: the convolution.
      norm: the normalisation before the cell.
      cell: the cell's.
      back: the map from the cell's H features to W.
      ff_norm: the normalisation before the feed-forward.
      ff_in: its first map, W to 2F: values and gates side by side.
      ff_out: its second, F to W.
      last_norm: the normalisation of what comes out.
    """

    inward: Linear | None
    conv: Convolution | None
    norm: Norm
    cell: Params
    back: Linear
    ff_norm: Norm | None
    ff_in: Linear | None
    ff_out: Linear | None
    last_norm: Norm | None


@exportable("BlockState")
class BlockState(NamedTuple):
    """What a `min_block` carries from step to step.

    Attributes:
      conv: the convolution's last inputs, `[*batch, K - 1, W]`; None without one.
      cell: the cell's state, `[*batch, H]`.
    """

    conv: Array | None
    cell: Array


@checks.suggesting
def min_block(
    width: int,
    *,
    cell: str = "min_gru",
    expansion: float = 1.5,
    conv: int | None = 4,
    feed_forward: float | None = 4,
    dropout: float = 0.0,
    norm: str = "rms",
    form: str = "log",
    forget_bias: float = 0.0,
    last_norm: bool = False,
    method: str | Method = "auto",
    state_dtype: DType | None = None,
) -> Layer:
    """The residual block around a minGRU or minLSTM, or another cell.

        x = x w + b                                      where x has another size than W
        x = x + mix(conv(x))                             the last K steps
        x = x + back(cell(norm(x)))
        v, g = split(norm(x) w_in + b_in)
        x = x + dropout((v * gelu(g)) w_out + b_out)

    Without `conv` or `feed_forward` their lines are left out. A network is `gj.stack(block, block, last)`, the last
    one with `last_norm=True`. The convolution runs forward only and takes padding on the right, by `lengths`.

    Args:
      width: W, features of the block.
      cell: "min_gru", "min_lstm", "gru", or "para_gru", a GRU whose recurrent matrices are diagonal.
      expansion: units of the cell for each feature: H is `width * expansion`, rounded down.
      conv: K, steps that the convolution sees; None for no convolution.
      feed_forward: units of the feed-forward for each feature: F is `width * feed_forward`, rounded down; None for
        no feed-forward.
      dropout: rate in [0, 1) on what the feed-forward puts out, drawn anew at every step.
      norm: "rms" or "layer".
      form: of minGRU and minLSTM, "log" as in the paper, or "linear".
      forget_bias: added by `init` to the bias of minLSTM's forget gate.
      last_norm: whether what comes out is normalised.
      method: how the cell's steps run over time, see `gru_jax.scan`.
      state_dtype: of the cell's state from step to step; x's when None, see `gru_jax.scan`.

    Returns:
      A `Layer` with states `BlockState`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> block = gj.models.min_block(8, conv=3)
      >>> params = block.init(jax.random.key(0), 5)
      >>> y, state = block.apply(params, jnp.ones((2, 7, 5)))
      >>> y.shape, state.conv.shape, state.cell.shape
      ((2, 7, 8), (2, 2, 8), (2, 12))

    Source: Feng et al. 2024, arXiv:2410.01201; the order of the parts is that of its authors' code, the repository
    BorealisAI/minRNNs.
    """
    who = "min_block"
    checks.positive(who, "width", width)
    checks.choice(who, "cell", cell, CELLS)
    checks.choice(who, "norm", norm, NORMS)
    checks.rate(who, "dropout", dropout)
    checks.flag(who, "last_norm", last_norm)
    units = _times(who, "expansion", width, expansion)
    wide = None if feed_forward is None else _times(who, "feed_forward", width, feed_forward)
    if conv is not None:
        checks.positive(who, "conv", conv)
    if dropout and wide is None:
        raise ValueError(f"{who}: dropout acts on the feed-forward; got feed_forward=None; set dropout=0")
    if forget_bias and cell != "min_lstm":
        raise ValueError(f"{who}: forget_bias is minLSTM's; got cell={cell!r}; leave it out")
    inner = recurrent(CELLS[cell](units, form), method=method, state_dtype=state_dtype)

    def fresh_norm(dtype: DType) -> Norm:
        return Norm(jnp.ones(width, dtype), jnp.zeros(width, dtype) if norm == "layer" else None)

    def init(key: Key, input_size: int, dtype: DType = jnp.float32) -> BlockParams:
        checks.random_key(who, key)
        checks.positive(who, "input_size", input_size)
        keys = jax.random.split(key, 7)
        convolution = None
        if conv is not None:
            taps = jax.random.normal(keys[1], (conv, width), accumulator(dtype)) / conv**0.5
            mix = _linear(keys[2], width, width, dtype)
            convolution = Convolution(taps.astype(dtype), jnp.zeros(width, dtype), mix)
        weights = inner.init(keys[3], width, dtype)
        if forget_bias:
            weights = weights._replace(b_x=weights.b_x.at[:units].add(jnp.asarray(forget_bias, dtype)))
        return BlockParams(
            inward=None if input_size == width else _linear(keys[0], input_size, width, dtype),
            conv=convolution,
            norm=fresh_norm(dtype),
            cell=weights,
            back=_linear(keys[4], units, width, dtype),
            ff_norm=None if wide is None else fresh_norm(dtype),
            ff_in=None if wide is None else _linear(keys[5], width, 2 * wide, dtype),
            ff_out=None if wide is None else _linear(keys[6], wide, width, dtype),
            last_norm=fresh_norm(dtype) if last_norm else None,
        )

    def apply(
        params: BlockParams,
        x: Array,
        h0: State = None,
        *,
        lengths: IntArray | None = None,
        mask: BoolArray | None = None,
        resets: BoolArray | None = None,
        reset_to: State = None,
        reverse: bool = False,
        time_major: bool = False,
        padding: str = "zero",
        key: Key | None = None,
        deterministic: bool = False,
        **options: Any,
    ) -> Tree:
        x = checks.floating(who, "x", x)
        if time_major or padding != "zero":
            raise ValueError(f"{who}: x is [*batch, T, I] and y is 0 at masked steps; leave time_major and padding out")
        if conv is not None and (mask is not None or resets is not None or reverse):
            raise ValueError(
                f"{who}: the convolution runs forward over whole sequences padded on the right; got mask, resets or"
                f" reverse; pass lengths, or build the block with conv=None"
            )
        rates = [] if deterministic or not dropout else ["dropout"]
        checks.key_for_dropout(who, rates, key, off="deterministic=True to turn dropout off")
        start = _start("h0", h0, conv)
        valid = output_layer.valid_steps(x, lengths, mask)
        x = _only(valid, x)
        x = x if params.inward is None else _mapped(params.inward, x)
        last = None
        if params.conv is not None:
            moved, last = _convolved(params.conv, x, start.conv, lengths)
            x = x + moved
        asked = {"lengths": lengths, "mask": mask, "resets": resets, "reverse": reverse, **options}
        asked["reset_to"] = _start("reset_to", reset_to, conv).cell
        y, h, *others = inner.apply(params.cell, normalize(norm, params.norm, x), start.cell, **asked)
        x = x + _mapped(params.back, y)
        if params.ff_norm is not None and params.ff_in is not None and params.ff_out is not None:
            values, gates = jnp.split(_mapped(params.ff_in, normalize(norm, params.ff_norm, x)), 2, -1)
            y = _mapped(params.ff_out, values * jax.nn.gelu(gates, approximate=False))
            if rates and key is not None:
                y = only(kept(key, 1 - dropout, y.shape, False), 1 - dropout, y)
            x = x + y
        if params.last_norm is not None:
            x = normalize(norm, params.last_norm, x)
        return _only(valid, x), BlockState(last, h), *others

    return Layer(init, split_with_x(apply))


def _times(who: str, name: str, width: int, factor: float) -> int:
    """`width * factor`, rounded down; raises unless that is a size."""
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor):
        raise TypeError(f"{who}: {name} must be a plain finite number; got {factor!r}")
    size = int(width * factor)
    if size < 1:
        raise ValueError(f"{who}: {name} times width must be at least 1; got {factor} times {width}")
    return size


def _start(name: str, state: State, conv: int | None) -> BlockState:
    """The state before the first step, or after a reset, None for zeros."""
    if state is None:
        return BlockState(None, None)  # type: ignore[arg-type]
    if not isinstance(state, BlockState) or (state.conv is None) != (conv is None):
        with_conv = "without" if conv is None else "with"
        raise TypeError(
            f"min_block: {name} must be a BlockState {with_conv} the convolution's inputs, as apply returns it;"
            f" got {checks.described(state)}"
        )
    return state


def _linear(key: Key, inputs: int, outputs: int, dtype: DType) -> Linear:
    w = jax.nn.initializers.lecun_normal()(key, (inputs, outputs), accumulator(dtype))
    return Linear(w.astype(dtype), jnp.zeros(outputs, dtype))


def _mapped(linear: Linear, x: Array) -> Array:
    y = x @ linear.w
    return y + jnp.broadcast_to(linear.b, y.shape)


def _only(valid: BoolArray | None, x: Array) -> Array:
    """x with 0 at the steps that do not count."""
    return x if valid is None else jnp.where(valid[..., None], x, jnp.zeros_like(x))


def _convolved(
    conv: Convolution, x: Array, before: Array | None, lengths: IntArray | None
) -> tuple[Array, Array]:
    """`mix(conv(x))` and the last K - 1 inputs of each sequence, for its next step."""
    K, T = conv.taps.shape[0], x.shape[-2]
    expected = (*x.shape[:-2], K - 1, x.shape[-1])
    if before is None:
        before = jnp.zeros(expected, x.dtype)
    checks.shape("min_block", "h0.conv", before.shape, expected, "pass the state that apply returned")
    seen = jnp.concatenate([before, x], axis=-2)
    y = jnp.broadcast_to(conv.b, x.shape)
    for k in range(K):
        part = seen[..., k : k + T, :]
        y = y + part * jnp.broadcast_to(conv.taps[k], part.shape)
    if lengths is None:
        return _mapped(conv.mix, y), seen[..., T:, :]
    ends = jnp.clip(jnp.asarray(lengths, jnp.int32), 0, T)[..., None]
    places = ends + jnp.arange(K - 1, dtype=jnp.int32).reshape((1,) * (ends.ndim - 1) + (-1,))
    return _mapped(conv.mix, y), jnp.take_along_axis(seen, places[..., None], axis=-2)
