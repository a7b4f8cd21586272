"""Loss and accuracy as sums over examples, so that batches, devices and log windows add up."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.training.newton_sums import NewtonSums, joined, no_newton_sums
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
        newton: totals of Newton's method; None where another one runs.
    """

    loss: Array
    correct: Array
    examples: Array
    grad_norm: Array
    steps: Array
    bad_steps: Array
    newton: NewtonSums | None = None


_NAMES = tuple(name for name in Sums._fields if name != "newton")


def add_up(parts: Iterable[Sums]) -> dict[str, float]:
    """Totals that were fetched from the devices, added up by name; those of `newton` are left out."""
    total = dict.fromkeys(_NAMES, 0.0)
    for part in parts:
        for name in _NAMES:
            total[name] += float(getattr(part, name))
    return total


def no_sums(newton: bool = False) -> Sums:
    """All totals 0."""
    zeros: dict[str, Any] = {name: jnp.zeros((), jnp.float32) for name in _NAMES}
    return Sums(**zeros, newton=no_newton_sums() if newton else None)


def plus(a: Sums, b: Sums) -> Sums:
    """The totals of both, which are of one method."""
    newton = None if a.newton is None or b.newton is None else joined(a.newton, b.newton)
    return Sums(**{name: getattr(a, name) + getattr(b, name) for name in _NAMES}, newton=newton)


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
