"""One label for a whole sequence: a recurrent network, pooling over time, a linear head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.types import Array, BoolArray, IntArray, Key, Params


class ClassifierParams(NamedTuple):
    """The parameters of a classifier.

    Attributes:
        net: those of the recurrent network.
        w: `[H', classes]`, H' being the width of the pooled features.
        b: `[classes]`.
    """

    net: Params
    w: Array
    b: Array


class Classifier(NamedTuple):
    """A sequence classifier as two pure functions.

    Attributes:
        init: `(key) -> ClassifierParams`.
        apply: `(params, x, *, lengths=None, mask=None, key=None, deterministic=False,
            return_gates=False)`; `x` is `[*batch, T, I]`, the result the logits `[*batch,
            classes]`, with `return_gates=True` a pair (logits, gates of the network). Masked steps
            never count. `key` is needed when the network draws dropout masks.
    """

    init: Callable[[Key], ClassifierParams]
    apply: Callable[..., Any]


def classifier(net: Any, input_size: int, classes: int, *, pool: str = "last") -> Classifier:
    """A linear classifier of a recurrent network's features.

    Args:
        net: a network with `init` and `apply`, such as `gj.stack(...)`.
        input_size: I, features per time step.
        classes: number of labels.
        pool: `"last"`, the output at the last valid step (of a network whose last layer is
            bidirectional: the final states of both directions, side by side), or `"mean"`, the mean
            of the outputs over the valid steps.

    Raises:
        ValueError: unknown `pool`.

    Example:
        >>> import gru_jax as gj
        >>> model = classifier(gj.stack(gj.recurrent(gj.GRU(4))), input_size=3, classes=2)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((5, 7, 3))).shape
        (5, 2)
    """
    if pool not in ("last", "mean"):
        raise ValueError(f"classifier: pool must be 'last' or 'mean', got {pool!r}")

    def features(
        params: Params,
        x: Array,
        *,
        lengths: IntArray | None = None,
        mask: BoolArray | None = None,
        **options: Any,
    ) -> tuple[Array, Any]:
        outputs = net.apply(params, x, lengths=lengths, mask=mask, **options)
        y, h = outputs[:2]
        gates = outputs[2] if len(outputs) > 2 else None
        valid = _valid_steps(x, lengths, mask)
        if pool == "mean":
            return _mean(y, valid), gates
        if isinstance(h[-1], tuple):
            return jnp.concatenate(h[-1], axis=-1), gates
        return _last(y, valid), gates

    def init(key: Key) -> ClassifierParams:
        net_key, head_key = jax.random.split(key)
        net_params = net.init(net_key, input_size)
        # The pooled width depends on layers, directions and merging, which the network knows and we
        # need not.
        x = jax.ShapeDtypeStruct((1, input_size), jnp.float32)
        pooled, _ = jax.eval_shape(lambda p, x: features(p, x, deterministic=True), net_params, x)
        w = jax.nn.initializers.lecun_normal()(head_key, (pooled.shape[-1], classes), jnp.float32)
        return ClassifierParams(net_params, w, jnp.zeros(classes, jnp.float32))

    def apply(params: ClassifierParams, x: Array, *, return_gates: bool = False, **options: Any) -> Any:
        if return_gates:
            options["return_gates"] = True
        pooled, gates = features(params.net, x, **options)
        product = pooled @ params.w
        logits = product + jnp.broadcast_to(params.b, product.shape)
        return (logits, gates) if return_gates else logits

    return Classifier(init, apply)


def _valid_steps(x: Array, lengths: IntArray | None, mask: BoolArray | None) -> BoolArray | None:
    """`[*batch, T]`, True at the steps that count; None when all do."""
    if mask is not None:
        return jnp.asarray(mask)
    if lengths is None:
        return None
    steps = jnp.arange(x.shape[-2])
    lengths = jnp.asarray(lengths)[..., None]
    return steps.reshape((1,) * (lengths.ndim - 1) + steps.shape) < lengths


def _mean(y: Array, valid: BoolArray | None) -> Array:
    """Mean over the valid steps, `[*batch, T, H]` -> `[*batch, H]`; 0 where there is none."""
    if valid is None:
        return y.mean(axis=-2)
    total = jnp.where(valid[..., None], y, 0).sum(axis=-2)
    count = valid.sum(axis=-1, keepdims=True).astype(y.dtype)
    return total / jnp.maximum(count, 1)


def _last(y: Array, valid: BoolArray | None) -> Array:
    """Output of the last valid step, `[*batch, T, H]` -> `[*batch, H]`; 0 where there is none."""
    if valid is None:
        return y[..., -1, :]
    after = jnp.flip(jnp.cumsum(jnp.flip(valid, -1), axis=-1), -1)
    is_last = valid & (after == 1)
    return jnp.where(is_last[..., None], y, 0).sum(axis=-2)
