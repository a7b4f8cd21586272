"""Whether what Newton's method accepts is within what it promises, over random networks.

    python -m benchmarks.newton_accepted [--dtype float32] [--count 1000000] [--seed 0]

Every network has weights of its own, of a scale from 0.5 to 6 times torch's initial values or a standard normal
distribution, and every sequence an input of its own scale. What has converged is held against the steps in float64
with the same stored weights; the promise is `16 tol`, in half precision and half a unit of what is kept. The fallback
is off, so that only what Newton's method found counts. Exits with 1 if one accepted sequence is further off.
"""

import argparse
import collections
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax as gj
from gru_jax.scans.methods import newton_rounds

FEATURES = 3


class Row(NamedTuple):
    """Networks of one cell, run in one way.

    Attributes:
      cell: whose weights are drawn.
      steps: T.
      method: how they are run.
      batch: sequences of one network.
    """

    cell: Any
    steps: int
    method: gj.Newton
    batch: int = 128


def rows() -> list[Row]:
    """Both places of the reset, heads, widths 1 to 64, steps 16 to 512, both Jacobians, windows and damping."""
    newton = functools.partial(gj.Newton, fallback="nan")
    return [
        Row(gj.GRU(1), 512, newton()),
        Row(gj.GRU(2), 128, newton("diagonal", window=64)),
        Row(gj.GRU(4), 32, newton("dense")),
        Row(gj.GRU(4), 48, newton("diagonal")),
        Row(gj.GRU(8), 64, newton("diagonal")),
        Row(gj.GRU(8), 96, newton("dense", window=16)),
        Row(gj.GRU(8, reset="before"), 64, newton("diagonal", damping=0.1)),
        Row(gj.GRU(8, reset="before", heads=4), 64, newton()),
        Row(gj.GRU(8, heads=8), 100, newton()),
        Row(gj.MGU(8), 48, newton()),
        Row(gj.MGU(4, reset_gate=False), 64, newton("diagonal", window=20)),
        Row(gj.GRU(16), 16, newton("dense")),
        Row(gj.GRU(16, reset="before"), 32, newton("diagonal", window=8)),
        Row(gj.GRU(32), 32, newton()),
        Row(gj.GRU(64), 24, newton(), 64),
    ]


def draw(row: Row, dtype: Any, key: Any) -> tuple[Any, Any]:
    """Parameters and input."""
    of_scale, of_kind, of_params, of_normal, of_x, of_sizes = jax.random.split(key, 6)
    scale = jax.random.uniform(of_scale, (), minval=0.5, maxval=6.0)
    params = row.cell.init(of_params, FEATURES)
    wide = jax.random.normal(of_normal, params.w_h.shape)
    kind = jax.random.bernoulli(of_kind, 0.5)
    scaled = jax.tree.map(lambda a: a * scale, params)
    params = scaled._replace(w_h=jnp.where(kind, scaled.w_h, wide * scale))
    x = jax.random.normal(of_x, (row.batch, row.steps, FEATURES))
    x = x * 10 ** jax.random.uniform(of_sizes, (row.batch, 1, 1), minval=-1.0, maxval=0.7)
    return jax.tree.map(lambda a: a.astype(dtype), (params, x))


def promised(dtype: Any) -> float:
    """How far off an accepted state may be, relative to max(1, |h|)."""
    full = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype
    kept = float(jnp.finfo(dtype).eps) / 2 if full != dtype else 0.0
    return newton_rounds.ERROR_OF_TOL * 8 * float(jnp.finfo(full).eps) + kept


class Count(NamedTuple):
    """What became of the sequences of a row: how many, the worst errors in units of what is promised and estimated."""

    accepted: int
    fell_back: int
    over: int
    of_promise: float
    of_estimate: float


class Runner:
    """A row's two programs."""

    def __init__(self, row: Row, dtype: Any) -> None:
        self.dtype = dtype
        self._draw = jax.jit(functools.partial(draw, row, dtype))
        self._newton = jax.jit(lambda params, x: gj.scan(row.cell, params, x, method=row.method, stats=True))
        steps = gj.Sequential(kernel="scan")
        self._steps = jax.jit(lambda params, x: gj.scan(row.cell, params, x, method=steps)[0])

    def __call__(self, key: Any) -> Count:
        """One network."""
        params, x = self._draw(key)
        y, _, stats = self._newton(params, x)
        good = np.asarray(stats.converged)
        if not good.any():
            return Count(0, good.size, 0, 0.0, 0.0)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a.astype(jnp.float32), np.float64)), (params, x))
            exact = np.asarray(self._steps(*wide))
        off = np.abs(np.asarray(y.astype(jnp.float32), np.float64) - exact) / np.maximum(np.abs(exact), 1)
        off = off.max((1, 2))[good]
        ratio = off / promised(self.dtype)
        estimated = off / np.asarray(stats.error, np.float64)[good]
        return Count(int(good.sum()), int((~good).sum()), int((ratio > 1).sum()), ratio.max(), estimated.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--count", type=int, default=10**6, help="accepted sequences")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dtype, table = jnp.dtype(args.dtype), rows()
    print(f"{args.dtype}: promised {promised(dtype):.3g}, backend {jax.default_backend()}, jax {jax.__version__}")
    start, key, totals = time.monotonic(), jax.random.key(args.seed), []
    for number, row in enumerate(table):
        runner, counts, share = Runner(row, dtype), collections.Counter(), -(-args.count // len(table))
        worst, networks = [0.0, 0.0], 0
        while counts["accepted"] < share:
            found = runner(jax.random.fold_in(jax.random.fold_in(key, number), networks))
            networks += 1
            counts.update(accepted=found.accepted, fell_back=found.fell_back, over=found.over)
            worst = [max(worst[0], found.of_promise), max(worst[1], found.of_estimate)]
        totals.append((counts, worst))
        print(
            f"{row.cell.__class__.__name__} H={row.cell.hidden_size} T={row.steps} {row.method.jacobian}"
            f" window={row.method.window} damping={row.method.damping}: {networks} networks, {counts['accepted']}"
            f" accepted, {counts['fell_back']} fell back, {counts['over']} over; worst error {worst[0]:.3f} of what is"
            f" promised, {worst[1]:.3f} of what is estimated ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
    names = ("accepted", "fell_back", "over")
    accepted, fell_back, over = (sum(counts[name] for counts, _ in totals) for name in names)
    largest = [max(worst[k] for _, worst in totals) for k in (0, 1)]
    print(
        f"{args.dtype}: {accepted} accepted, {fell_back} fell back; {over} accepted and off by more than"
        f" {promised(dtype):.3g}; worst error {largest[0]:.3f} of what is promised, {largest[1]:.3f} of what is"
        f" estimated"
    )
    if over:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
