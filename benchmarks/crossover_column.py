"""One column of `benchmarks.crossover`, a batch and a width at every length, in a process of its own.

    python -m benchmarks.crossover_column '{"B": 1, "H": 8, "lengths": [1000], "methods": ["sequential"], ...}'

prints an object a line as it goes: rows, weights, and what was left out with the reason. Each program is compiled once
and run with every set of weights; all methods of a row are timed in turn.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import gru_jax as gj
from benchmarks import alone, timing
from gru_jax.data import adding
from gru_jax.scans.diagnosis import lyapunov

METHODS: dict[str, Callable[[], Any]] = {
    "sequential": gj.Sequential,
    "loop": lambda: gj.Sequential(kernel="scan"),
    "cudnn": lambda: gj.Sequential(kernel="cudnn"),
    "kernel": lambda: gj.Sequential(kernel="pallas"),
    "newton diagonal": lambda: gj.Newton("diagonal", kernel="xla"),
    "newton diagonal kernel": lambda: gj.Newton("diagonal", kernel="pallas"),
    "newton dense": lambda: gj.Newton("dense"),
}
"""What is compared: "sequential" is what `Sequential` chooses by itself, "loop" a plain `lax.scan`."""

KINDS = ("forward", "training")
TASK_STEPS, TASK_BATCH, UPDATES, RATE = 30, 64, 600, 1e-2
"""How the weights are trained: on the adding problem of so many steps, with Adam."""
FEATURES = 2
AGREES = 1e-4
"""How far outputs may lie from the sequential ones."""
ROUNDS, TIMED_S = 3, 3.0
"""Samples of a time, at least, where there is time for more than one; seconds that go into timing a shape and kind."""


def start(H: int) -> tuple[gj.GRU, Any]:
    """A GRU and torch's initial values."""
    cell = gj.GRU(H, init="torch")
    return cell, cell.init(jax.random.key(0), FEATURES)


def trained(H: int, updates: int) -> tuple[Any, float]:
    """The GRU's parameters after training on the adding problem, and the mean squared error of the last updates.

    The same on every run of one machine: initial values, data and order come from fixed keys.
    """
    import optax

    cell, params = start(H)
    generate = adding.generator(TASK_STEPS)
    everything = (params, jnp.zeros((H, 1)), jnp.zeros((1, 1)))
    # The default rate in the tasks of this length; clipped, for wide layers start far too fast with it.
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE))

    def loss(everything: Any, key: Any) -> Any:
        params, w, b = everything
        data = generate(key, TASK_BATCH)
        _, h = gj.scan(cell, params, data.x, method=gj.Sequential(kernel="scan"))
        return ((h @ w + jnp.broadcast_to(b, data.y.shape) - data.y) ** 2).mean()

    def update(carry: Any, key: Any) -> Any:
        everything, state = carry
        value, gradient = jax.value_and_grad(loss)(everything, key)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(everything, change), state), value

    keys = jax.random.split(jax.random.key(1), updates)
    ((params, _, _), _), losses = jax.jit(jax.lax.scan, static_argnums=0)(
        update, (everything, optimizer.init(everything)), keys
    )
    return params, float(losses[-20:].mean())


def inputs(T: int, B: int) -> Any:
    """Sequences of the adding problem, `[B, T, 2]`."""
    return adding.generator(T)(jax.random.key(2), B).x


def weights(job: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, parameters, what is known of them) of every set of weights that was asked for."""
    for name in job["weights"]:
        cell, params = start(job["H"])
        known: dict[str, Any] = {"H": job["H"], "weights": name}
        if name == "trained":
            params, known["loss"] = trained(job["H"], job["updates"])
        x = jnp.moveaxis(inputs(1000, 4), 1, 0)
        known["lyapunov"] = float(lyapunov(cell, params, x, cell.initial_state((4,), x.dtype)).mean())
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in known.items()}
        yield name, params, rounded


class LeftOut(Exception):
    """A method that is not run at a shape, with the reason."""


class Program:
    """One method at one shape and kind: compiled within the memory that there is, its first run checked and timed."""

    def __init__(self, cell: Any, name: str, kind: str, sizes: tuple[int, int, int], memory: float) -> None:
        T, B, H = sizes
        jacobians = 4 * T * B * H * H
        if name == "newton dense" and jacobians > memory:
            raise LeftOut(f"its Jacobians alone take {jacobians / 2**30:.1f} GiB")
        try:
            made = {"forward": alone.outputs, "training": alone.training_step}[kind](cell, METHODS[name]())
            shapes = jax.eval_shape(lambda: (start(H)[1], inputs(T, B)))
            begin = time.perf_counter()
            self.run = jax.jit(made).lower(*shapes).compile()
        except (ValueError, NotImplementedError) as error:
            raise LeftOut(str(error).splitlines()[0]) from error
        self.compile_s = round(time.perf_counter() - begin, 2)
        analysis = self.run.memory_analysis()
        self.temp_MiB = None if analysis is None else round(analysis.temp_size_in_bytes / alone.MIB, 2)
        if analysis is not None:
            parts = ("temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes")
            takes = sum(getattr(analysis, part) for part in parts)
            if takes > memory:
                raise LeftOut(f"it takes {takes / 2**30:.1f} GiB")

    def first(self, *arrays: Any) -> tuple[Any, float]:
        """What it gives, and the seconds that took."""
        begin = time.perf_counter()
        try:
            found = jax.block_until_ready(self.run(*arrays))
        except jax.errors.JaxRuntimeError as error:
            raise LeftOut(str(error).splitlines()[0]) from error
        return found, time.perf_counter() - begin


def column(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one batch and width, from the shortest sequences to the longest."""
    cell, _ = start(job["H"])
    sets = []
    for name, params, known in weights(job):
        sets.append((name, params))
        yield {"known": known}
    took: dict[tuple[str, str, str], tuple[int, float]] = {}
    for T in sorted(job["lengths"]):
        for kind in KINDS:
            compiled: dict[str, Program] = {}
            for name in job["methods"]:
                try:
                    too_long(took, [(name, kind, each) for each, _ in sets], T, job["budget"])
                    compiled[name] = Program(cell, name, kind, (T, job["B"], job["H"]), job["memory"])
                except LeftOut as reason:
                    yield left_out(job, T, kind, name, reason)
            for of_weights, params in sets:
                yield from timed(job, T, kind, of_weights, (params, inputs(T, job["B"])), compiled, took)
            jax.clear_caches()


def too_long(took: dict[Any, tuple[int, float]], keys: list[Any], T: int, budget: float) -> None:
    """Raises where a shorter sequence says that one call takes longer than the budget."""
    for key in keys:
        shorter, seconds = took.get(key, (T, 0.0))
        if seconds * T / shorter > budget:
            raise LeftOut(f"a call would take about {seconds * T / shorter:.0f} s, by that of T = {shorter}")


def timed(
    job: dict[str, Any],
    T: int,
    kind: str,
    of_weights: str,
    arrays: tuple[Any, ...],
    compiled: dict[str, Program],
    took: dict[Any, tuple[int, float]],
) -> Iterator[dict[str, Any]]:
    """A row for each method: its first call compared, then all in turn."""
    found, expected = {}, None
    for name, program in compiled.items():
        row = {
            "group": job["group"], "shape": {"T": T, "B": job["B"], "H": job["H"]}, "weights": of_weights,
            "subject": kind, "method": name, "compile_s": program.compile_s, "temp_MiB": program.temp_MiB,
        }
        try:
            made, seconds = program.first(*arrays)
        except LeftOut as reason:
            yield left_out(job, T, kind, name, reason)
            continue
        if seconds >= job["budget"] / (ROUNDS + 2):
            # It will not be timed in turn; and a first call pays for more than what it computes.
            begin = time.perf_counter()
            jax.block_until_ready(program.run(*arrays))
            seconds = time.perf_counter() - begin
        took[name, kind, of_weights] = (T, seconds)
        # The value of the loss for a training step; its gradients are the tests' business.
        result, stats = made if kind == "forward" else (made[0], None)
        expected = result if expected is None else expected
        scale = 1.0 if kind == "forward" else float(jnp.abs(expected))
        row["difference"] = difference = float(jnp.abs(result - expected).max()) / max(scale, 1e-30)
        if not difference < AGREES:
            yield left_out(job, T, kind, name, LeftOut(f"DISAGREES: it is off by {difference:.2g}"))
            continue
        if stats is not None:
            row |= {
                "rounds": int(stats.iterations.max()),
                "converged": float(stats.converged.mean()),
                "fell_back": float(stats.fell_back.mean()),
            }
        found[name] = row | {"ms": 1e3 * seconds, "spread_ms": None, "samples": 1}
        del made, result
    seconds = min(TIMED_S, job["budget"])
    # A call that took that long has no noise to speak of.
    steps = {
        name: (lambda name=name: compiled[name].run(*arrays))
        for name in found
        if found[name]["ms"] < 1e3 * job["budget"] / (ROUNDS + 2)
    }
    for name, (ms, spread, samples) in (timing.interleaved(steps, seconds, ROUNDS) if steps else {}).items():
        found[name] |= {"ms": ms, "spread_ms": spread, "samples": samples}
        took[name, kind, of_weights] = (T, ms / 1e3)
    yield from found.values()


def left_out(job: dict[str, Any], T: int, kind: str, name: str, reason: LeftOut) -> dict[str, Any]:
    """What is written where something is not measured."""
    return {"left_out": f"T,B,H = {T},{job['B']},{job['H']}, {kind}, {name}: {reason}"}


if __name__ == "__main__":
    # What is compared has to be the same function: a GPU's default is to round factors to TF32, a TPU's to bfloat16.
    jax.config.update("jax_default_matmul_precision", "highest")
    for each in column(json.loads(sys.argv[1])):
        print(json.dumps(each), flush=True)
