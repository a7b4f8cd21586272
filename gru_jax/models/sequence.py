"""Recurrent networks over tokens: an embedding in front, an output layer behind, and tokens drawn one by one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.between import Network, OutputOfTokens
from gru_jax.cells.base import accumulator, fresh
from gru_jax.combinators import Made, StackParams
from gru_jax.models import output_layer
from gru_jax.scans.mesh_axes import split_with_x
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, State, Tree, exportable


@exportable("SequenceParams")
class SequenceParams(NamedTuple):
    """The parameters of a sequence model.

    Attributes:
      embedding: `[V, E]`, a row for each token; None where tokens are one-hot.
      net: those of the recurrent network.
      w: `[F, O]`, F being the features that the network and the pooling give; None where it is the embedding's
        transpose.
      b: `[O]`.
    """

    embedding: Array | None
    net: Params
    w: Array | None
    b: Array


class SequenceModel(NamedTuple):
    """A recurrent network over tokens, as pure functions.

    Attributes:
      init: `(key, dtype=float32) -> SequenceParams`.
      apply: `(params, tokens, h0=None, *, lengths=None, mask=None, resets=None, reset_to=None, key=None,
        deterministic=False, return_state=False, return_gates=False, stats=False)`; tokens are `[*batch, T]` whole
        numbers in [0, V), the result `[*batch, T, O]`, or `[*batch, O]` with steps="last" or "mean". Masked steps never
        count, whatever stands there. `return_state=True` adds the final states, which the next call takes as h0,
        `return_gates=True` the gates, `stats=True` the `Stats` of the layers, in this order. Under `jit`, where values
        cannot be checked, a token outside [0, V) makes the outputs NaN.
      sample: `(params, key, prompt, length, temperature=1.0, *, h0=None, lengths=None, return_state=False)`; reads
        the prompt, `[*batch, T0]` with T0 > 0 or so many of its tokens as `lengths` says, and draws `length` tokens,
        `[*batch, length]` int32, each from the softmax of the logits after all before it, divided by the temperature;
        0 takes the likeliest. `return_state=True` adds the states before the last token drawn: with them as h0 and
        that token as the prompt the next call goes on.
    """

    init: Callable[..., SequenceParams]
    apply: Callable[..., Tree]
    sample: Callable[..., Tree]


class _Made(SequenceModel):
    """One of this module's making, which knows what of, for what runs it otherwise than by `apply`."""

    made_of: OutputOfTokens | None = None


@checks.suggesting
def sequence_model(
    net: Network,
    vocabulary: int,
    width: int | None = None,
    *,
    steps: str = "all",
    tied: bool = False,
    outputs: int | None = None,
) -> SequenceModel:
    """A recurrent network over tokens, with logits at every step or of a whole sequence.

        x_t = embedding[token_t]                 one-hot, without parameters, where there is no width
        y   = net(x)
        out = features(y) w + b                  tied: w is the embedding's transpose

    Args:
      net: a network with `init` and `apply`, such as `gj.stack(...)`.
      vocabulary: V, how many tokens there are.
      width: E, numbers in a token's learned embedding; None for one-hot.
      steps: "all", an output at every step, or "last" or "mean", see `gj.models.readout`.
      tied: the output layer's matrix is the embedding's transpose; the network has to put out E features.
      outputs: O; V when None.

    Returns:
      A `SequenceModel`, the functions (init, apply, sample).

    Raises:
      TypeError, ValueError: for what is no network, a size under 1, an unknown choice, or a tied output layer without
        an embedding or for other outputs than the tokens.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> model = gj.models.sequence_model(gj.recurrent(gj.GRU(8)), vocabulary=5, width=8, tied=True)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.array([[0, 3, 4]])).shape
      (1, 3, 5)
      >>> model.sample(params, jax.random.key(1), jnp.array([[0, 3]]), length=6).shape
      (1, 6)

    Source: the tied output layer is that of Press and Wolf 2017, arXiv:1608.05859.
    """
    outputs = _check(net, vocabulary, width, steps, tied, outputs)

    def init(key: Key, dtype: DType = jnp.float32) -> SequenceParams:
        checks.random_key("sequence_model", key)
        checks.floating_dtype("sequence_model", dtype)
        embedding_key, net_key, head_key = jax.random.split(key, 3)
        full, size = accumulator(dtype), width or vocabulary
        embedding = None
        if width is not None:
            # Rows of length 1: of the same size as one-hot ones, and right for logits where they are tied.
            embedding = (jax.random.normal(embedding_key, (vocabulary, width), full) / width**0.5).astype(dtype)
        net_params = fresh(net.init, net_key, size, dtype)
        found = output_layer.feature_size(net, net_params, size, dtype, steps)
        if tied and found != width:
            raise ValueError(
                f"sequence_model: tied=True needs a network with as many features as the embedding; got {found} and"
                f" {width}; set width={found}, or tied=False"
            )
        w = None if tied else jax.nn.initializers.lecun_normal()(head_key, (found, outputs), full).astype(dtype)
        return SequenceParams(embedding, net_params, w, jnp.zeros(outputs, dtype))

    def logits(params: SequenceParams, found: Array) -> Array:
        product = found @ (params.embedding.mT if params.w is None else params.w)  # type: ignore[union-attr]
        return product + jnp.broadcast_to(params.b, product.shape)

    def apply(
        params: SequenceParams,
        tokens: IntArray,
        h0: State = None,
        *,
        return_state: bool = False,
        return_gates: bool = False,
        stats: bool = False,
        **options: Any,
    ) -> Tree:
        tokens = _tokens("sequence_model", "tokens", tokens, vocabulary, options.get("lengths"), options.get("mask"))
        x = _embedded(params, tokens, vocabulary, options.get("lengths"), options.get("mask"))
        options |= output_layer.extras(return_gates, stats)
        found, (h, *others) = output_layer.features(net, params.net, x, h0, steps, options)
        asked = ([h] if return_state else []) + others
        return (logits(params, found), *asked) if asked else logits(params, found)

    # Compiled once for each length and shape, not at each call.
    @functools.partial(jax.jit, static_argnames="length")
    def drawn(
        params: SequenceParams,
        key: Key,
        prompt: IntArray,
        length: int,
        temperature: Array,
        h0: State,
        lengths: IntArray | None,
    ) -> tuple[IntArray, State]:
        x = _embedded(params, prompt, vocabulary, lengths, None)
        last = output_layer.valid_steps(x, lengths, None)
        y, h = net.apply(params.net, x, h0, lengths=lengths, deterministic=True)[:2]
        if net.from_end if isinstance(net, Made) else _two_directions(params.net, h):
            raise ValueError(
                "SequenceModel.sample: the network reads its sequence from both ends, and the end is what is to be"
                " drawn; build it without gj.bidirectional"
            )
        keys = jax.random.split(key, length)
        first = _draw(keys[0], logits(params, output_layer.last_of(y, last)), temperature)

        def body(carry: tuple[State, IntArray], key: Key) -> tuple[tuple[State, IntArray], IntArray]:
            h, token = carry
            x = _embedded(params, token[..., None], vocabulary, None, None)
            y, h = net.apply(params.net, x, h, deterministic=True)[:2]
            token = _draw(key, logits(params, y[..., 0, :]), temperature)
            return (h, token), token

        (h, _), rest = jax.lax.scan(body, (h, first), keys[1:])
        return jnp.concatenate([first[..., None], jnp.moveaxis(rest, 0, -1)], axis=-1), h

    def sample(
        params: SequenceParams,
        key: Key,
        prompt: IntArray,
        length: int,
        temperature: float | Array = 1.0,
        *,
        h0: State = None,
        lengths: IntArray | None = None,
        return_state: bool = False,
    ) -> Tree:
        who = "SequenceModel.sample"
        if steps != "all" or outputs != vocabulary:
            raise ValueError(
                f"{who}: needs a model with a logit for each token at every step; got steps={steps!r} and {outputs}"
                f" outputs for {vocabulary} tokens; build it with steps='all' and without outputs"
            )
        checks.random_key(who, key)
        checks.positive(who, "length", length)
        prompt = _tokens(who, "prompt", prompt, vocabulary, lengths, None)
        if prompt.shape[-1] == 0:
            raise ValueError(f"{who}: prompt must hold a token at least; got shape {list(prompt.shape)}")
        if lengths is not None:
            values = checks.concrete(lengths)
            lengths = checks.lengths(who, lengths, prompt.shape[:-1], prompt.shape[-1])
            if values is not None and values.size and values.min() < 1:
                raise ValueError(f"{who}: lengths must be at least 1, a token of each prompt; got {values.min()}")
        values = checks.concrete(temperature)
        if values is not None and not (values.ndim == 0 and values >= 0):
            raise ValueError(f"{who}: temperature must be one number of at least 0; got {values}")
        tokens, h = drawn(params, key, prompt, length, jnp.asarray(temperature, jnp.float32), h0, lengths)
        return (tokens, h) if return_state else tokens

    made = _Made(init, split_with_x(apply, own=1), sample)
    made.made_of = OutputOfTokens(net, steps, vocabulary)
    return made


def _check(net: object, vocabulary: int, width: int | None, steps: str, tied: bool, outputs: int | None) -> int:
    """How many outputs there are; raises unless these are options of a sequence model."""
    who = "sequence_model"
    output_layer.check_network(who, net)
    sizes = {"vocabulary": vocabulary, "width": width, "outputs": outputs}
    for name, size in sizes.items():
        if size is not None or name == "vocabulary":
            checks.positive(who, name, size)
    checks.choice(who, "steps", steps, output_layer.STEPS)
    checks.flag(who, "tied", tied)
    if tied and width is None:
        raise ValueError(f"{who}: tied=True needs an embedding to share; got width=None; set a width")
    if tied and outputs not in (None, vocabulary):
        raise ValueError(
            f"{who}: tied=True has an output for each of the {vocabulary} tokens; got outputs={outputs}; leave it out"
        )
    return vocabulary if outputs is None else outputs


def _tokens(
    who: str, name: str, got: object, vocabulary: int, lengths: IntArray | None, mask: BoolArray | None
) -> IntArray:
    """`got` as int32; raises for what are no whole numbers, or, where values are known, none in [0, vocabulary)."""
    tokens = checks.as_array(who, name, got)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"{who}: {name} must be whole numbers; got {tokens.dtype}; convert with .astype(jnp.int32)")
    if tokens.ndim < 1:
        raise ValueError(f"{who}: {name} must be [*batch, T]; got one number")
    values, known = checks.concrete(got), [checks.concrete(a) for a in (lengths, mask) if a is not None]
    if values is not None and all(a is not None for a in known):
        bad = (values < 0) | (values >= vocabulary)
        with jax.ensure_compile_time_eval():  # inside jit too
            valid = output_layer.valid_steps(jnp.asarray(values[..., None]), lengths, mask)
            bad &= True if valid is None or valid.shape != bad.shape else np.asarray(valid)
        if bad.any():
            raise ValueError(
                f"{who}: {name} must lie in [0, {vocabulary}), the vocabulary; got {values[bad].flat[0]};"
                f" number the tokens from 0, or make the vocabulary larger"
            )
    return tokens.astype(jnp.int32)


def _embedded(
    params: SequenceParams, tokens: IntArray, vocabulary: int, lengths: IntArray | None, mask: BoolArray | None
) -> Array:
    """`[*batch, T]` tokens to the network's input; 0 at masked steps, NaN where a token is none."""
    inside = (tokens >= 0) & (tokens < vocabulary)
    known = jnp.where(inside, tokens, jnp.zeros_like(tokens))
    if params.embedding is None:
        x = jax.nn.one_hot(known, vocabulary, dtype=params.b.dtype)
    else:
        x = jnp.take(params.embedding, known, axis=0)
    x = jnp.where(inside[..., None], x, jnp.full_like(x, jnp.nan))
    valid = output_layer.valid_steps(x, lengths, mask)
    return x if valid is None else jnp.where(valid[..., None], x, jnp.zeros_like(x))


def _draw(key: Key, logits: Array, temperature: Array) -> IntArray:
    wide = logits.astype(jnp.float32)
    # Where it is 0 what is divided by another number is not used.
    divisor = jnp.where(temperature > 0, temperature, jnp.ones_like(temperature))
    chosen = jax.random.categorical(key, wide / jnp.broadcast_to(divisor, wide.shape))
    return jnp.where(temperature > 0, chosen, wide.argmax(axis=-1)).astype(jnp.int32)


def _two_directions(params: Params, state: State) -> bool:
    """Whether any layer is `gj.bidirectional`, whose parameters and states are plain pairs."""
    if isinstance(params, StackParams):
        return any(map(_two_directions, params.layers, state))
    return type(params) is tuple and type(state) is tuple
