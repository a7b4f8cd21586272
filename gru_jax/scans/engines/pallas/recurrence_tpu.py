"""The recurrences of `recurrence.py` on a TPU, by Pallas through Mosaic.

Time leads in the kernel. Where the caller's batch does, XLA is left to turn the arrays: its layouts on a TPU let most
of what makes or uses them write or read them turned.
"""


from collections.abc import Iterator

import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.scans.engines.pallas.gru_tpu_tiles import LANES, Interpret, kept
from gru_jax.scans.engines.pallas.recurrence import Coefficients, Operands
from gru_jax.scans.engines.pallas.recurrence_tpu_walk import UNITS, Walk
from gru_jax.types import Array


def states(
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    *,
    reverse: bool,
    batch_leads: bool,
    extras: int = 0,
    interpret: Interpret = False,
) -> tuple[Array, ...]:
    """`recurrence.states` on a TPU."""
    seen, steps = _ready(operands, h0, batch_leads)
    (B, H), full, made = h0.shape, accumulator(h0.dtype), 1 + extras

    def step(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        a, b, *more = coefficients(*values)
        h = a * carry[0] + b
        return (h,), [h, *more]

    walk = Walk.of((steps, B, H), _arrays(seen, h0) + made, reverse, backwards=False)
    found, _ = walk.run(step, seen, [h0.astype(full)], [(1, kept(h0).dtype)] * made, interpret)
    return tuple(_turned(each, batch_leads).astype(h0.dtype) for each in found)


def gradients(
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    h: Array,
    cotangent: Array,
    *,
    reverse: bool,
    batch_leads: bool,
    interpret: Interpret = False,
) -> tuple[Operands, Array]:
    """`recurrence.gradients` on a TPU."""
    with_h = operands._replace(streams=(cotangent, *operands.streams), lagged=((h, h0), *operands.lagged))
    seen, steps = _ready(with_h, h0, batch_leads)
    (B, H), full = h0.shape, accumulator(h0.dtype)
    # The parts of one stream, which may have become arrays of their own.
    made = [(array.shape[2] // H, array.dtype) for array in seen.streams[1:]]
    streams = 1 + sum(parts for parts, _ in made)
    still = len(operands.lagged) + len(operands.flags)

    def step(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        c, before, rest = values[0], values[streams], values[streams + 1 :]

        def moved(of_streams: list[Array], same: list[Array]) -> tuple[Array, Array]:
            a, b, *_ = coefficients(*of_streams, *rest[:still], *same)
            return a, b

        (a, _), pull = jax.vjp(moved, values[1:streams], rest[still:])
        adjoint = c + carry[0]
        of_streams, same = pull((adjoint * before, adjoint))
        return (a * adjoint, *(total + new for total, new in zip(carry[1:], same, strict=True))), of_streams

    sums = len(operands.rows) + len(operands.columns)
    moved = _arrays(seen, h0) + streams - 1
    walk = Walk.of((steps, B, H), moved, reverse, backwards=True)
    found, ends = walk.run(step, seen, [jnp.zeros(h0.shape, full)] * (1 + sums), made, interpret)
    parts = iter(_turned(each, batch_leads) for each in found)
    pulled = tuple(_joined(parts, stream).astype(stream.dtype) for stream in operands.streams)
    rest = iter(ends[1:])
    rows = tuple(next(rest).astype(row.dtype) for row in operands.rows)
    columns = tuple(next(rest).sum(0).astype(column.dtype) for column in operands.columns)
    return Operands(pulled, rows=rows, columns=columns), ends[0].astype(h0.dtype)


def _ready(operands: Operands, h0: Array, batch_leads: bool) -> tuple[Operands, int]:
    """The operands as a walk takes them, and the number of steps."""
    H = h0.shape[1]

    def parts(stream: Array) -> list[Array]:
        if stream.ndim == 3 or _side_by_side(H):
            return [stream.reshape(*stream.shape[:2], -1)]
        return [stream[:, :, part] for part in range(stream.shape[2])]

    turned = lambda a: kept(_turned(a, batch_leads))  # noqa: E731
    streams = tuple(turned(part) for stream in operands.streams for part in parts(stream))
    lagged = tuple((turned(array), kept(first)) for array, first in operands.lagged)
    flags = tuple(_turned(flag, batch_leads) for flag in operands.flags)
    same = tuple(map(kept, operands.rows)), tuple(map(kept, operands.columns))
    return Operands(streams, lagged, flags, *same), (*streams, *(array for array, _ in lagged))[0].shape[0]


def _joined(parts: Iterator[Array], like: Array) -> Array:
    """The next parts, those of a stream like this one."""
    if like.ndim == 3 or _side_by_side(like.shape[3]):
        return next(parts).reshape(like.shape)
    return jnp.stack([next(parts) for _ in range(like.shape[2])], 2)


def _side_by_side(H: int) -> bool:
    """Whether a tile holds all units, and each part of a stream fills vector registers of its own."""
    return H <= UNITS and H % LANES == 0


def _arrays(operands: Operands, h0: Array) -> int:
    """How many arrays of the states' size are fetched."""
    return sum(array.shape[2] // h0.shape[1] for array in operands.streams) + len(operands.lagged)


def _turned(a: Array, batch_leads: bool) -> Array:
    return jnp.swapaxes(a, 0, 1) if batch_leads else a
