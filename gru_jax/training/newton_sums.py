"""How Newton's method does in training: totals of its statistics, and the metrics and words they become.

A solve is one sequence in one layer and direction.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config.sections.methods import NewtonMethod
from gru_jax.scans import Stats
from gru_jax.types import Array, Options, Tree


class NewtonSums(NamedTuple):
    """Totals over solves, float32 scalars.

    Attributes:
        iterations: sum of the rounds.
        most_iterations: most rounds of a solve.
        residual: largest residual, before any fallback; the largest float32 where it was not finite.
        unconverged: solves that did not converge.
        solves: number of solves.
    """

    iterations: Array
    most_iterations: Array
    residual: Array
    unconverged: Array
    solves: Array


_LARGEST = ("most_iterations", "residual")


def no_newton_sums() -> NewtonSums:
    """All totals 0."""
    return NewtonSums(*(jnp.zeros((), jnp.float32) for _ in NewtonSums._fields))


def newton_sums(stats: Tree, weight: Array, axis: str | None = None) -> NewtonSums:
    """The totals of one batch.

    Args:
        stats: the `Stats` of every layer and direction in any structure, each `[B]`, or, of parts, `[N, B / N]`.
        weight: `[B]`, 1 for an example that counts, 0 for padding; or the scalar 1.
        axis: the mapped axis to add up over, under `jax.pmap`.

    Returns:
        The same on every device.
    """
    solves = jax.tree.leaves(stats, is_leaf=lambda part: isinstance(part, Stats))

    def total(values: list[Array]) -> Array:
        summed = jnp.stack([(value.astype(jnp.float32) * weight).sum() for value in values]).sum()
        return summed if axis is None else jax.lax.psum(summed, axis)

    def largest(values: list[Array]) -> Array:
        most = jnp.stack([jnp.where(weight > 0, value.astype(jnp.float32), 0).max() for value in values]).max()
        return most if axis is None else jax.lax.pmax(most, axis)

    # JSON has no infinity.
    finite = [jnp.where(jnp.isfinite(s.residual), s.residual, jnp.finfo(s.residual.dtype).max) for s in solves]
    return NewtonSums(
        total([s.iterations for s in solves]),
        largest([s.iterations for s in solves]),
        jnp.minimum(largest(finite), jnp.finfo(jnp.float32).max),
        total([~s.converged for s in solves]),
        total([jnp.ones_like(s.residual) for s in solves]),
    )


def joined(a: NewtonSums, b: NewtonSums) -> NewtonSums:
    """The totals of both."""
    pairs = zip(NewtonSums._fields, a, b, strict=True)
    return NewtonSums(*(jnp.maximum(x, y) if name in _LARGEST else x + y for name, x, y in pairs))


def newton_metrics(sums: NewtonSums, prefix: str = "") -> dict[str, float]:
    """What a metrics line says of totals that were fetched from the devices."""
    return {
        f"{prefix}newton/iterations": float(sums.iterations) / float(sums.solves),
        f"{prefix}newton/iterations_max": float(sums.most_iterations),
        f"{prefix}newton/residual": float(sums.residual),
        f"{prefix}newton/fell_back": float(sums.unconverged) / float(sums.solves),
    }


def to_meta(sums: NewtonSums | None) -> dict[str, float] | None:
    """As JSON values; a float32 goes through them and back unchanged."""
    return None if sums is None else {name: float(value) for name, value in sums._asdict().items()}


def from_meta(meta: dict[str, float] | None) -> NewtonSums:
    """The inverse of `to_meta`; all 0 for None."""
    values = meta or dict.fromkeys(NewtonSums._fields, 0.0)
    fields: Options = {name: np.float32(values[name]) for name in NewtonSums._fields}
    return NewtonSums(**fields)


def why_not_finite(method: NewtonMethod, sums: NewtonSums) -> str | None:
    """What Newton's method has to do with values that are not finite, or None."""
    if method.fallback != "nan" or not sums.unconverged:
        return None
    return (
        f"Newton: {_failed(sums)} did not converge within {method.max_iters} iterations and became NaN, as"
        f" model.method.fallback=nan has it; model.method.fallback=sequential computes them step by step"
    )


def why_slow(method: NewtonMethod, sums: NewtonSums, first: int, last: int) -> str | None:
    """A warning when most solves of the steps from `first` to `last` had to be done again, or None."""
    if method.fallback != "sequential" or 2 * sums.unconverged <= sums.solves:
        return None
    return (
        f"Newton: {_failed(sums)} in steps {first} to {last} did not converge within {method.max_iters} iterations and"
        f" were computed step by step as well, which costs more than it saves; stop this run and continue it with"
        f" model.method=sequential, or try a smaller model.method.window"
    )


def _failed(sums: NewtonSums) -> str:
    return f"{int(sums.unconverged)} of {int(sums.solves)} sequences"
