"""Loss and accuracy as sums over what was asked, so that batches, devices and log windows add up."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data.dataset import TARGET_METRICS, DataDamaged, Target
from gru_jax.training.newton_sums import NewtonSums, joined, no_newton_sums
from gru_jax.types import Array, IntArray


class Sums(NamedTuple):
    """Totals over targets and steps, float32 scalars.

    A target is a sequence, or, where every step has an answer, a step; padding is none.

    Attributes:
        loss: sum over targets of the loss.
        correct: number of targets answered correctly; 0 where there are no classes.
        targets: number of targets.
        grad_norm: sum over steps of the gradient's norm before clipping.
        steps: number of steps.
        bad_steps: steps whose loss or gradient was not finite.
        newton: totals of Newton's method; None where another one runs.
    """

    loss: Array
    correct: Array
    targets: Array
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
    zeros = {name: jnp.zeros((), jnp.float32) for name in _NAMES}
    return Sums(**zeros, newton=no_newton_sums() if newton else None)


def plus(a: Sums, b: Sums) -> Sums:
    """The totals of both, which are of one method."""
    newton = None if a.newton is None or b.newton is None else joined(a.newton, b.newton)
    return Sums(**{name: getattr(a, name) + getattr(b, name) for name in _NAMES}, newton=newton)


def losses_and_hits(
    outputs: Array,
    y: Array,
    target: Target,
    quantiles: tuple[float, ...] | None = None,
    weights: np.ndarray | None = None,
    smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """The loss of every target, and whether it was answered correctly.

    Args:
        outputs: of the model, `[B, O]`; for tags and notes `[B, T, O]`.
        y: see `gru_jax.data.dataset.Split`.
        target: which loss: of classes and tags the cross-entropy, of values the mean square, of notes the sum over
            notes of the binary cross-entropy.
        quantiles: of values that may be missing, NaN, and then do not count: Q that are told of each, side by side, by
            their pinball loss; () for the mean square. None of values that are all there.
        weights, smoothing: of classes and tags, see `cross_entropy`.

    Returns:
        Two arrays `[B]`, or, for tags and notes, `[B, T]`; nats, but for values. There are no correct values or notes.
    """
    if target in ("class", "tags"):
        return cross_entropy(outputs, y, weights, smoothing), correct(outputs, y)
    if target == "values":
        loss = jnp.square(outputs - y).mean(axis=-1) if quantiles is None else _of_known(outputs, y, quantiles)
    else:
        loss = (jax.nn.softplus(outputs) - outputs * y).sum(axis=-1)
    return loss, jnp.zeros_like(loss)


def _of_known(outputs: Array, y: Array, quantiles: tuple[float, ...]) -> Array:
    known = ~jnp.isnan(y)
    # Before the difference: the gradient of what a NaN was in is NaN, also where it is left out after.
    y = jnp.where(known, y, jnp.zeros_like(y))
    shape = (*y.shape, len(quantiles))
    loss = pinball(outputs.reshape(shape), y, quantiles) if quantiles else jnp.square(outputs - y)
    count = jnp.maximum(known.sum(axis=-1), 1).astype(loss.dtype)
    return jnp.where(known, loss, jnp.zeros_like(loss)).sum(axis=-1) / count


def pinball(outputs: Array, y: Array, quantiles: tuple[float, ...]) -> Array:
    """The loss that the quantiles of a distribution minimise, in the mean over them.

        1/Q sum_q max(q (y - f_q), (q - 1) (y - f_q))

    Args:
        outputs: f, `[*batch, Q]`.
        y: `[*batch]`.
        quantiles: Q of them, in (0, 1).

    Returns:
        `[*batch]`.

    Example:
        >>> round(float(pinball(jnp.array([1.0, 3.0]), jnp.array(2.0), (0.1, 0.5))), 4)
        0.3

    Source: Koenker and Bassett 1978, Regression quantiles.
    """
    of = jnp.asarray(quantiles, outputs.dtype).reshape((1,) * y.ndim + (-1,))
    error = y[..., None] - outputs
    return jnp.maximum(of * error, (of - 1) * error).mean(axis=-1)


def metrics_of(sums: dict[str, float], target: Target, split: str) -> dict[str, float]:
    """What a line of metrics says of totals.

    Args:
        sums: of `add_up`.
        target: what was told.
        split: "train", "valid" or "test".

    Returns:
        The metrics; none of training steps in which nothing was asked.

    Raises:
        DataDamaged: nothing is asked in a whole split.
    """
    if sums["targets"] == 0:
        if split == "train":
            return {}
        raise DataDamaged(f"nothing is asked in the {split} split; a metric needs a step that counts")
    loss = sums["loss"] / sums["targets"]
    known = {"loss": loss, "accuracy": sums["correct"] / sums["targets"], "nll": loss}
    return {f"{split}/{name}": known[name] for name in TARGET_METRICS[target]}


def cross_entropy(
    logits: Array, labels: IntArray, weights: np.ndarray | None = None, smoothing: float = 0.0
) -> Array:
    """`logsumexp(logits) - logits[label]`, or, l[c] being that of class c, `(1 - s) w[label] l[label] + s mean(w l)`.

    Args:
        logits: `[*batch, classes]`.
        labels: `[*batch]`, class numbers.
        weights: w, `[classes]`, what each counts; None when all count 1.
        smoothing: s, the share of a label that is spread over all classes.

    Returns:
        `[*batch]`, nats.

    Source: C. Szegedy et al., Rethinking the Inception architecture, arXiv:1512.00567, of the smoothing.
    """
    if weights is None and not smoothing:
        chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen
    each = jax.nn.logsumexp(logits, axis=-1, keepdims=True) - logits
    if weights is not None:
        each = each * jnp.expand_dims(jnp.asarray(weights, logits.dtype), range(logits.ndim - 1))
    chosen = jnp.take_along_axis(each, labels[..., None], axis=-1)[..., 0]
    return (1 - smoothing) * chosen + smoothing * each.mean(axis=-1)


def correct(logits: Array, labels: IntArray) -> Array:
    """1 where the largest logit is the label's, else 0: `[*batch]`, the logits' dtype."""
    return (logits.argmax(axis=-1).astype(labels.dtype) == labels).astype(logits.dtype)
