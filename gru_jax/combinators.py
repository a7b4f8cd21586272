"""Layers as (init, apply) pairs, closed under composition: what takes a layer gives a layer.

    rnn = recurrent(cell)                                   one direction
    bi  = bidirectional(rnn, merge="concat")                both
    net = stack(bi, bi, dropout=0.1, residual=True)         several on top of each other
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.between import NORMS, Both, Norm, Recurrent, Stack, adds, kept, normalize, only, padded, two_keys, unequal
from gru_jax.cells.base import Cell, fresh
from gru_jax.checks import described
from gru_jax.scans import Method, scan
from gru_jax.scans.episodes import other_way
from gru_jax.scans.mesh_axes import split_with_x
from gru_jax.types import Array, DType, Key, Options, Params, State, Tree, exportable

MERGES: dict[str | None, Callable[[Array, Array], Array | tuple[Array, Array]]] = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], -1),
    "sum": jnp.add,
    "mul": jnp.multiply,
    "mean": lambda forward, backward: (forward + backward) / 2,
    None: lambda forward, backward: (forward, backward),
}
"""How `bidirectional` joins the outputs of its two directions."""


class Layer(NamedTuple):
    """A recurrent layer as two functions.

    Attributes:
      init: `(key, input_size, dtype=float32) -> params`.
      apply: `(params, x, h0=None, *, lengths=None, mask=None, resets=None, reset_to=None, reverse=False,
        time_major=False, padding="zero", key=None, deterministic=False, return_gates=False, stats=False) -> (y, h)`,
        with the meanings that `gru_jax.scan` gives them; `deterministic=True` turns all dropout off,
        `return_gates=True` adds the gates and then `stats=True` the `Stats`. The states h have the structure of h0, as
        reset_to has: an array `[*batch, H]` for one layer and direction, a pair (forward, backward) for two
        directions, a tuple with one entry a layer for a stack; so have gates and stats.
    """

    init: Callable[..., Params]
    apply: Callable[..., Tree]


class Made(Layer):
    """A layer of this module's making, which knows its states: their structure alone does not tell what they are.

    Attributes:
      output: what a final state puts out, of two directions both side by side; None where a part does not know it.
      directions, from_end: 1 or 2 of the last layer; whether any part reads its sequence from the end too.
      made_of: what `recurrent`, `bidirectional` or `stack` was given, for what runs it otherwise than by `apply`.
    """

    output: Callable[[State], Array] | None = None
    directions: int = 1
    from_end: bool = False
    made_of: Recurrent | Both | Stack | None = None

    def knowing(self, **known: Any) -> "Made":
        """The layer itself, with these attributes."""
        vars(self).update(known)
        return self


@exportable("StackParams")
class StackParams(NamedTuple):
    """Parameters of a `stack`.

    Attributes:
      layers: the parameters of each layer.
      norms: the `Norm` after each layer; empty without `norm`.
    """

    layers: tuple[Params, ...]
    norms: tuple[Norm, ...]


@checks.suggesting
def recurrent(
    cell: Cell,
    *,
    method: str | Method = "auto",
    input_dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    state_dtype: DType | None = None,
) -> Layer:
    """A cell run over time, as a layer.

    Args:
      cell: what one step computes, such as `GRU(hidden_size=64)`.
      method: how the steps run over time, see `gru_jax.scan`.
      input_dropout: rate in [0, 1), one mask for a sequence's every step.
      recurrent_dropout: the same for the state inside the recurrent products.
      state_dtype: of the state from step to step; x's when None, see `gru_jax.scan`.

    Returns:
      A `Layer`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> rnn = gj.recurrent(gj.GRU(4))
      >>> params = rnn.init(jax.random.key(0), 3)
      >>> y, h = rnn.apply(params, jnp.ones((2, 7, 3)))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))
    """
    if not isinstance(cell, Cell) or isinstance(cell, type):
        raise TypeError(f"recurrent: needs a cell such as gj.GRU(hidden_size=64); got {described(cell)}")
    rates = {"input_dropout": input_dropout, "recurrent_dropout": recurrent_dropout}
    for name, rate in rates.items():
        checks.rate("recurrent", name, rate)
    if state_dtype is not None:
        checks.floating_dtype("recurrent", state_dtype, "state_dtype")

    def apply(
        params: Params,
        x: Array,
        h0: State = None,
        *,
        key: Key | None = None,
        deterministic: bool = False,
        **options: Any,
    ) -> Tree:
        checks.flag("recurrent", "deterministic", deterministic)
        drop: Options = {} if deterministic else rates
        _need_key("recurrent", drop, key)
        return scan(cell, params, x, h0, method=method, key=key, state_dtype=state_dtype, **drop, **options)

    made = Made(functools.partial(fresh, cell.init), apply)
    return made.knowing(output=cell.output, made_of=Recurrent(cell, state_dtype))


@checks.suggesting
def bidirectional(forward: Layer, backward: Layer | None = None, *, merge: str | None = "concat") -> Layer:
    """Two layers over the same input, one from each end, outputs joined step by step.

    Both see the same steps and the same episodes; the backward one starts at each sequence's own last step, and anew at
    the last step of every episode, where `resets` name the first.

    Args:
      forward: a layer.
      backward: the layer for the other direction; another one like `forward`, with parameters of its own, when None.
      merge: "concat", "sum", "mul", "mean", or None for the pair of outputs.

    Returns:
      A `Layer` whose params, states, gates and stats are (forward, backward) pairs.

    Raises:
      ValueError: for an unknown merge.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> bi = gj.bidirectional(gj.recurrent(gj.GRU(4)), merge="sum")
      >>> y, (h_forward, h_backward) = bi.apply(bi.init(jax.random.key(0), 3), jnp.ones((2, 7, 3)))
      >>> y.shape, h_backward.shape
      ((2, 7, 4), (2, 4))
    """
    checks.choice("bidirectional", "merge", merge, MERGES)
    pair = (_layer("bidirectional", forward), _layer("bidirectional", backward if backward is not None else forward))

    def init(key: Key, input_size: int, dtype: DType = jnp.float32) -> Params:
        checks.random_key("bidirectional", key)
        return tuple(fresh(one.init, k, input_size, dtype) for one, k in zip(pair, jax.random.split(key), strict=True))

    def apply(
        params: Params, x: Array, h0: State = None, *, key: Key | None = None, reverse: bool = False, **options: Any
    ) -> Tree:
        checks.flag("bidirectional", "reverse", reverse)
        each = "a pair (forward, backward)"
        weights, starts = (_parts("bidirectional", *given, 2, each) for given in (("params", params), ("h0", h0)))
        to = _reset_to("bidirectional", options, 2, each)
        keys = (None, None) if key is None else two_keys(key)
        runs = []
        for one, p, h, k, r, back in zip(pair, weights, starts, keys, to, (False, True), strict=True):
            # By the time that flags are turned around for the second direction the first has looked at them.
            flags = other_way(options, reverse) if back else options
            runs.append(one.apply(p, x, h, key=k, reverse=reverse != back, **r, **flags))
        outputs, *others = zip(*runs, strict=True)
        if merge is not None and any(isinstance(y, tuple) for y in outputs):
            raise ValueError(
                f"bidirectional: merge={merge!r} cannot join pairs of outputs; give the inner layers a merge too"
            )
        if merge in ("sum", "mul", "mean") and outputs[0].shape != outputs[1].shape:
            raise ValueError(
                f"bidirectional: merge={merge!r} needs outputs of one shape; got {list(outputs[0].shape)} forward and"
                f" {list(outputs[1].shape)} backward; use merge='concat', or equal hidden sizes"
            )
        return MERGES[merge](*outputs), *others

    made = Made(init, split_with_x(apply)).knowing(directions=2, from_end=True, made_of=Both(pair, merge))
    ends: list[Any] = [getattr(one, "output", None) for one in pair]
    if None in ends:
        return made
    return made.knowing(output=lambda h: jnp.concatenate([end(one) for end, one in zip(ends, h, strict=True)], -1))


@checks.suggesting
def stack(*layers: Layer, dropout: float = 0.0, residual: bool = False, norm: str | None = None) -> Layer:
    """Layers on top of each other.

        x_{k+1} = dropout(norm(layer_k(x_k))) + x_k        the parts that are switched on

    Args:
      *layers: one layer at least, the first sees the input.
      dropout: rate in [0, 1) on the outputs of all layers but the last, drawn anew at every step (as torch).
      residual: add a layer's input to its output; the first layer may change the number of features and then goes
        without, the others may not.
      norm: "layer" or "rms" normalises every layer's output over its features, None does not.

    Returns:
      A `Layer` whose params are `StackParams` and whose states, gates and stats are tuples, one entry a layer.

    Raises:
      TypeError, ValueError: without layers, for a rate outside [0, 1), an unknown norm, or a residual sum of
        different sizes.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> bi = gj.bidirectional(gj.recurrent(gj.GRU(4)))
      >>> net = gj.stack(bi, bi, dropout=0.1, residual=True, norm="layer")
      >>> params = net.init(jax.random.key(0), 3)
      >>> y, h = net.apply(params, jnp.ones((2, 7, 3)), key=jax.random.key(1))
      >>> y.shape, len(h)
      ((2, 7, 8), 2)
    """
    if not layers:
        raise ValueError("stack: needs at least one layer; got none; pass gj.recurrent(gj.GRU(hidden_size))")
    for layer in layers:
        _layer("stack", layer)
    checks.rate("stack", "dropout", dropout)
    checks.flag("stack", "residual", residual)
    checks.choice("stack", "norm", norm, NORMS)
    if dropout and len(layers) == 1:
        warnings.warn(
            f"stack: dropout acts between layers, so dropout={dropout} does nothing with one layer",
            stacklevel=3,  # the frame of checks.suggesting stands between
        )

    def init(key: Key, input_size: int, dtype: DType = jnp.float32) -> StackParams:
        checks.random_key("stack", key)
        made, norms, size = [], [], input_size
        for layer, k in zip(layers, jax.random.split(key, len(layers)), strict=True):
            made.append(fresh(layer.init, k, size, dtype))
            before, size = size, _output_size(layer, made[-1], size, dtype)
            if residual and len(made) > 1 and before != size:
                raise ValueError(unequal(len(made) - 1, before, size))
            if norm is not None:
                norms.append(Norm(jnp.ones(size, dtype), jnp.zeros(size, dtype) if norm == "layer" else None))
        return StackParams(tuple(made), tuple(norms))

    def apply(
        params: StackParams,
        x: Array,
        h0: State = None,
        *,
        key: Key | None = None,
        deterministic: bool = False,
        **options: Any,
    ) -> Tree:
        checks.flag("stack", "deterministic", deterministic)
        drops = dropout if len(layers) > 1 and not deterministic else 0.0
        _need_key("stack", {"dropout": drops}, key)
        each = f"a tuple of {len(layers)}, one entry a layer"
        starts = _parts("stack", "h0", h0, len(layers), each)
        to = _reset_to("stack", options, len(layers), each)
        weights = _parts("stack", "params.layers", getattr(params, "layers", params), len(layers), each)
        norms = getattr(params, "norms", None) or ()
        if norm is not None and [type(one) for one in norms] != [Norm] * len(layers):
            raise ValueError(
                f"stack: norm={norm!r} needs params.norms, {each}, each a Norm; make params with this stack's init"
            )
        hold = options.get("padding") == "hold"
        results = []
        for index, (layer, p, h, r) in enumerate(zip(layers, weights, starts, to, strict=True)):
            # One key for the layer and one for what follows it, a pair for each layer.
            k, k_drop = (None, None)
            if key is not None:
                k, k_drop = two_keys(key, index)
            y, *others = layer.apply(p, x, h, key=k, deterministic=deterministic, **r, **options)
            results.append(others)
            if not isinstance(y, jax.Array):
                raise ValueError("stack: a layer with merge=None gives a pair of outputs; merge them to stack on it")
            if norm is not None:
                y = normalize(norm, norms[index], y)
            if k_drop is not None and drops and index < len(layers) - 1:
                keep = kept(k_drop, 1 - drops, y.shape, options.get("time_major", False))
                # Held steps drop what the one that they hold drops, so that the sum holds too.
                y = only(padded(keep, options) if residual and hold else keep, 1 - drops, y)
            if residual and adds(index, x, y):
                # What stands in the padding of the first x is anybody's; later ones hold by their layers.
                y = y + (padded(x, options) if hold and not index else x)
            x = y
        # A norm's bias and a residual sum stand in padding too, which the layers left at 0.
        x = padded(x, options) if not hold and (residual or norm is not None) else x
        return x, *(tuple(part) for part in zip(*results, strict=True))

    end = getattr(layers[-1], "output", None)
    return Made(init, split_with_x(apply)).knowing(
        output=None if end is None else lambda h: end(h[-1]), directions=getattr(layers[-1], "directions", 1),
        from_end=any(getattr(layer, "from_end", False) for layer in layers), made_of=Stack(layers, residual, norm),
    )  # fmt: skip


def _output_size(layer: Layer, params: Params, input_size: int, dtype: DType) -> int:
    """How many features a layer puts out, asked of the layer itself without computing anything."""
    x = jax.ShapeDtypeStruct((1, 1, input_size), dtype)
    y = jax.eval_shape(functools.partial(layer.apply, deterministic=True), params, x)[0]
    if isinstance(y, tuple):
        raise ValueError("stack: a layer with merge=None gives a pair of outputs; merge them to stack on it")
    return int(y.shape[-1])


def _layer(who: str, layer: Any) -> Layer:
    if not (callable(getattr(layer, "init", None)) and callable(getattr(layer, "apply", None))):
        fix = ""
        if isinstance(layer, Cell):
            fix = "; wrap the cell: gj.recurrent(cell)"
        elif isinstance(layer, list | tuple):
            fix = f"; pass the layers one by one: {who}(*layers)"
        raise TypeError(f"{who}: needs layers with init and apply, as gj.recurrent makes; got {described(layer)}{fix}")
    return layer


def _parts(who: str, name: str, value: Tree, count: int, what: str) -> tuple[Tree, ...]:
    if value is None:
        return (None,) * count
    if not isinstance(value, tuple | list) or len(value) != count:
        raise ValueError(f"{who}: {name} must be {what}; got {described(value)}")
    return tuple(value)


def _reset_to(who: str, options: Options, count: int, what: str) -> list[dict[str, State]]:
    """What each part takes of the option; nothing where there is none, which a part of somebody's own need not know."""
    parts = _parts(who, "reset_to", options.pop("reset_to", None), count, what)
    return [{} if part is None else {"reset_to": part} for part in parts]


def _need_key(who: str, rates: Mapping[str, float], key: Key | None) -> None:
    names = [name for name, rate in rates.items() if rate]
    checks.key_for_dropout(who, names, key, off="deterministic=True to turn dropout off")
