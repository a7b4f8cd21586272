"""Time of a training step: what `keep` costs, beside flax's own loop over its own cell.

    python -m benchmarks.training_step [--rounds 7] [--write]

A training step is the value and the gradients with respect to parameters, input and initial state. The candidates run
in turn in one process, round by round; medians are printed, and written to benchmarks/results/ with --write.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax as gj
from benchmarks import timing

SHAPES = [(100, 32, 64, 64), (256, 32, 128, 256), (1024, 1, 64, 128), (2000, 16, 32, 64), (100, 64, 512, 512)]
"""(T, B, I, H)."""


def candidates(T: int, B: int, I: int, H: int) -> dict[str, Callable[[], Any]]:
    """The training steps to compare, each compiled and bound to its arrays."""
    cell = gj.GRU(H, init="torch")
    params = cell.init(jax.random.key(0), I)
    x, h0 = jax.random.normal(jax.random.key(1), (B, T, I)), jnp.zeros((B, H))

    def ours(keep: str) -> Callable[[], Any]:
        method = gj.Sequential(keep=keep)
        loss = lambda p, x, h0: (gj.scan(cell, p, x, h0, method=method)[0] ** 2).sum()  # noqa: E731
        step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
        return lambda: step(params, x, h0)

    graph, weights, rest = nnx.split(nnx.RNN(nnx.GRUCell(I, H, rngs=nnx.Rngs(0))), nnx.Param, ...)

    def flax_loss(weights: Any, x: Any, h0: Any) -> Any:
        return (nnx.merge(graph, weights, rest)(x, initial_carry=h0) ** 2).sum()

    flax_step = jax.jit(jax.value_and_grad(flax_loss, (0, 1, 2)))
    return {"states": ours("states"), "gates": ours("gates"), "nnx.RNN": lambda: flax_step(weights, x, h0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/")
    args = parser.parse_args()
    rows = []
    print("training step, ms: gru_jax with keep='states' and keep='gates', and flax's nnx.RNN; nnx.RNN over gates")
    print(f"{'T, B, I, H':>20} {'states':>9} {'gates':>9} {'nnx.RNN':>9}   ratio")
    for shape in SHAPES:
        row = timing.medians(candidates(*shape), args.rounds)
        rows.append({"shape": shape, "ms": row})
        cells = " ".join(f"{ms:9.2f}" for ms in row.values())
        print(f"{', '.join(map(str, shape)):>20} {cells}   {row['nnx.RNN'] / row['gates']:.2f}", flush=True)
    if args.write:
        timing.write("training_step", rows)


if __name__ == "__main__":
    main()
