"""Loss and accuracy as sums over examples, so that batches, devices and log windows add up."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.types import Array, IntArray


class Sums(NamedTuple):
    """Totals over examples and steps, float32 scalars.

    Attributes:
        loss: sum over examples of the cross-entropy, nats.
        correct: number of examples classified correctly.
        examples: number of examples.
        grad_norm: sum over steps of the gradient's norm before clipping.
        steps: number of steps.
        bad_steps: steps whose loss or gradient was not finite.
    """

    loss: Array
    correct: Array
    examples: Array
    grad_norm: Array
    steps: Array
    bad_steps: Array


def add_up(parts: Iterable[Sums]) -> dict[str, float]:
    """Totals that were fetched from the devices, added up by name."""
    total = dict.fromkeys(Sums._fields, 0.0)
    for part in parts:
        for name, value in part._asdict().items():
            total[name] += float(value)
    return total


def no_sums() -> Sums:
    """All totals 0."""
    return Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))


def cross_entropy(logits: Array, labels: IntArray) -> Array:
    """`logsumexp(logits) - logits[label]`.

    Args:
        logits: `[*batch, classes]`.
        labels: `[*batch]`, class numbers.

    Returns:
        `[*batch]`, nats.
    """
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def correct(logits: Array, labels: IntArray) -> Array:
    """1 where the largest logit is the label's, else 0: `[*batch]`, the logits' dtype."""
    return (logits.argmax(axis=-1).astype(labels.dtype) == labels).astype(logits.dtype)
