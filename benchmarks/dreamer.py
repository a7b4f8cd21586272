"""A training step of DreamerV3's recurrent cell: `gj.DreamerGRU` beside the same cell written plainly in flax.

    python -m benchmarks.dreamer [--budget SECONDS] [--quick] [--write]

The plain form is a cell of `flax.linen` under `linen.RNN`, written as Dreamer and TorchRL write theirs: in each step
the state and the input of every block side by side, one product in blocks, a norm of flax. Both have the same weights.
Outputs and gradients are compared first, then both are timed in turn, in one process. `--write` writes
benchmarks/results/.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

import gru_jax as gj
from benchmarks import agreement, timing
from benchmarks.layer_shapes import Shape

SHAPES = (Shape(64, 16, 512, 512), Shape(64, 16, 64, 512), Shape(64, 16, 512, 256))
QUICK = (Shape(5, 2, 3, 8),)
HEADS = 8
BUDGET_S = 20.0


class Blocks(linen.Module):
    """A product with blocks on the diagonal of a matrix."""

    features: int
    use_bias: bool = True

    @linen.compact
    def __call__(self, x: Any) -> Any:
        size, wide = x.shape[-1] // HEADS, self.features // HEADS
        w = self.param("kernel", linen.initializers.lecun_normal(batch_axis=0), (HEADS, size, wide))
        made = jnp.einsum("...ki,kij->...kj", x.reshape(*x.shape[:-1], HEADS, size), w)
        made = made.reshape(*x.shape[:-1], self.features)
        return made + self.param("bias", linen.initializers.zeros, (self.features,)) if self.use_bias else made


class Plain(linen.RNNCellBase):
    """The cell with `layers=0` and norm "layer", or with `layers=1` and norm "rms"."""

    features: int
    layers: int

    @linen.compact
    def __call__(self, h: Any, x: Any) -> tuple[Any, Any]:
        H, batch = self.features, h.shape[:-1]
        if self.layers:
            norm = lambda name: linen.RMSNorm(epsilon=1e-4, name=name)  # noqa: E731
            e = linen.silu(norm("input_norm")(linen.Dense(H, name="input")(x)))
            s = linen.silu(norm("state_norm")(linen.Dense(H, name="state")(h)))
            v = self.side_by_side(h, jnp.concatenate([e, s], -1))
            v = linen.silu(norm("joint_norm")(Blocks(H, name="joint")(v)))
            a = Blocks(3 * H, name="gates")(v)
        else:
            a = Blocks(3 * H, use_bias=False, name="joint")(self.side_by_side(h, x))
            a = linen.LayerNorm(epsilon=1e-4, name="joint_norm")(a)
        r, n, z = (gate.reshape(*batch, H) for gate in jnp.split(a.reshape(*batch, HEADS, -1), 3, -1))
        z = linen.sigmoid(z - 1)
        h = z * jnp.tanh(linen.sigmoid(r) * n) + (1 - z) * h
        return h, h

    def side_by_side(self, h: Any, x: Any) -> Any:
        """The state of each block and all of x behind it."""
        of_blocks = h.reshape(*h.shape[:-1], HEADS, -1)
        repeated = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], HEADS, x.shape[-1]))
        return jnp.concatenate([of_blocks, repeated], -1).reshape(*h.shape[:-1], -1)

    @linen.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Any:
        """Zeros."""
        return jnp.zeros((*input_shape[:-1], self.features))

    @property
    def num_feature_axes(self) -> int:
        """One."""
        return 1


def params_of(weights: Any, layers: int, H: int) -> gj.DreamerGRUParams:
    """The weights of the plain form as ours."""
    p, size = weights["params"]["cell"], H // HEADS

    def gates(a: Any) -> Any:
        """From r, n, z of each head to r, z, n of all."""
        return None if a is None else a.reshape(HEADS, 3, size)[:, jnp.array([0, 2, 1])].swapaxes(0, 1).reshape(-1)

    def blocks(w: Any) -> Any:
        """The same within the blocks of a matrix."""
        r, n, z = jnp.split(w, 3, -1)
        return jnp.concatenate([r, z, n], -1)

    def linear(name: str, w: Any, order: Callable[[Any], Any] = lambda a: a) -> gj.DreamerLinear:
        norm = p.get(f"{name}_norm", {})
        return gj.DreamerLinear(w, *map(order, (p[name].get("bias"), norm.get("scale"), norm.get("bias"))))

    own, rest = p["joint"]["kernel"][:, :size], p["joint"]["kernel"][:, size:]
    if not layers:
        w_x = jax.vmap(gates)(jnp.moveaxis(rest, 0, 1).reshape(rest.shape[1], -1))
        return gj.DreamerGRUParams((), None, w_x, None, linear("joint", blocks(own), gates), ())
    w_x, w_s = (jnp.moveaxis(part, 0, 1).reshape(H, H) for part in (rest[:, :H], rest[:, H:]))
    last = linear("gates", blocks(p["gates"]["kernel"]), gates)
    inputs, state = (linear(name, p[name]["kernel"]) for name in ("input", "state"))
    return gj.DreamerGRUParams((inputs,), state, w_x, w_s, linear("joint", own), (last,))


def sides(shape: Shape, layers: int) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """A training step of ours and of the plain form, compiled, and how far their numbers are apart."""
    T, B, I, H = shape
    x = jax.random.normal(jax.random.key(1), (B, T, I))
    rnn = linen.RNN(Plain(H, layers))
    weights = rnn.init(jax.random.key(0), x)
    cell = gj.DreamerGRU(H, heads=HEADS, norm="rms" if layers else "layer", layers=layers)
    params = params_of(weights, layers, H)

    def loss(run: Callable[..., Any]) -> Callable[..., Any]:
        def of(params: Any, x: Any) -> Any:
            y = run(params, x)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

        return jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))

    ours, theirs = loss(lambda params, x: gj.scan(cell, params, x)[0]), loss(rnn.apply)
    numbers = []
    for step, given in ((ours, params), (theirs, weights)):
        (_, y), (d, d_x) = step(given, x)
        d = d if step is ours else params_of(d, layers, H)
        numbers.append({"outputs": y, "gradient of x": d_x, "gradient of w_h": d.joint.w})
    expected, found = ({name: np.asarray(a) for name, a in each.items()} for each in numbers)
    agreement.check(expected, found, "float32", f"the plain form with layers={layers} at {tuple(shape)}")
    apart = max(agreement.distance(a, found[name]) for name, a in expected.items())
    return lambda: ours(params, x), lambda: theirs(weights, x), apart


def rows(quick: bool, budget_s: float) -> Iterator[dict[str, Any]]:
    """The measurements, one of each shape and form."""
    for shape in QUICK if quick else SHAPES:
        for layers in (0, 1):
            ours, theirs, apart = sides(shape, layers)
            mine, other, ratio = timing.side_by_side(ours, theirs, budget_s)
            yield {
                "layers": layers,
                "shape": shape._asdict(),
                "heads": HEADS,
                "dtype": "float32",
                "apart": apart,
                "ours_ms": mine.ms,
                "ours_spread_ms": mine.spread_ms,
                "theirs_ms": other.ms,
                "theirs_spread_ms": other.spread_ms,
                "theirs_over_ours": round(1 / ratio, 4),
                "rounds": mine.rounds,
            }


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"# DreamerV3's recurrent cell: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds of a"
        f" training step, {HEADS} heads, float32, medians with the interquartile range; the ratio is the median over"
        " rounds. `layers=0` with norm \"layer\", `layers=1` with norm \"rms\".",
        "",
        "| T, B, I, H | layers | `gj.DreamerGRU` | plain flax | how many times as long |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        shape = ", ".join(map(str, row["shape"].values()))
        times = [f"{row[f'{who}_ms']:.4g} ± {row[f'{who}_spread_ms']:.2g}" for who in ("ours", "theirs")]
        lines.append(f"| {shape} | {row['layers']} | {' | '.join(times)} | {row['theirs_over_ours']:.3g} |")
    return "\n".join(lines) + "\n"


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    shape = ", ".join(map(str, row["shape"].values()))
    return (
        f"{shape:<18} layers={row['layers']}  ours {row['ours_ms']:.4g} ms  plain flax {row['theirs_ms']:.4g} ms"
        f"  ({row['theirs_over_ours']:.3g} x)  apart {row['apart']:.1g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dreamer", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="for each row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth writing; leave out one of the two")
    found = []
    for row in rows(asked.quick, 0.1 if asked.quick else asked.budget):
        print(printed(row), flush=True)
        found.append(row)
    if asked.write:
        timing.write("dreamer", found, table=markdown)


if __name__ == "__main__":
    main()
