"""Which way to take one step after another is the fastest, by shape: the table that method="auto" reads.

    python -m benchmarks.choices [--shapes T,B,H ...] [--write] [--budget SECONDS]
    python -m benchmarks.choices --check [--json]

Every way that `Sequential` has on this backend is timed at every shape of a grid, all in turn in one process: a
training step, that is the value of a loss with its gradients with respect to parameters, input and initial state. What
cannot run here (no cuDNN, a shape that a kernel refuses) is left out. `--write` writes the fastest to
gru_jax/scans/choices.json, for the backend that JAX chooses, and leaves other backends' rows as they are. `--check`
says by how much the choice that is written there misses the best at shapes that lie between those of the grid.
"""

import argparse
import datetime
import itertools
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

import gru_jax as gj
from benchmarks import timing
from gru_jax.scans import choices, select
from gru_jax.scans.choices import Choice, Sizes
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.methods.sequential import Lean

CANDIDATES = {
    "cpu": [
        Choice("scan", "gates", 12), Choice("chunked", "states", 12), Choice("chunked", "gates", 12),
        *(Choice("llvm", keep, 1, cores) for keep in ("gates", "states") for cores in (1, 2)),
    ],
    "gpu": [Choice("scan", "states", 1), Choice("cudnn", "states", 1), Choice("pallas", "states", 1)],
    "tpu": [Choice("scan", "states", 1), Choice("pallas", "states", 1)],
}
"""The chunk of a plain scan is not looked at. On CPU those of 8 to 16 steps were within the noise of each other."""

FORWARD = {
    "cpu": [
        Choice("scan", "gates", 12), Choice("chunked", "states", 12),
        *(Choice("llvm", "gates", 1, cores) for cores in (1, 2)),
    ]
}  # fmt: skip
"""For forward passes alone, where something else may be the fastest: there nothing is kept."""

GRID = [
    *(Sizes(T, B, H) for T in (16, 128, 1024) for B in (1, 8, 32) for H in (32, 128, 512)),
    *(Sizes(T, 16, 64) for T in (16, 128, 1024)),
]
WIDE = [
    Sizes(T, B, H)
    for T in (64, 1024) for B in (1, 8, 32, 128) for H in (32, 64, 128, 256, 512, 768, 1024, 2048)
]  # fmt: skip
BETWEEN = [Sizes(100, 32, 64), Sizes(64, 8, 256), Sizes(1000, 4, 64), Sizes(500, 16, 100), Sizes(48, 64, 128)]
DTYPES = {"cpu": ("float32",), "gpu": ("float32", "bfloat16"), "tpu": ("float32", "bfloat16")}
LARGEST_GFLOP = {"cpu": 40}
"""What takes more is left out: there the products decide."""


def gflop(sizes: Sizes) -> float:
    """Of a training step with as many features as units."""
    return 36 * sizes.T * sizes.B * sizes.H**2 / 1e9


def milliseconds(
    sizes: Sizes, dtype: str, candidates: Iterable[Choice], budget_s: float, *, training: bool = True
) -> dict[Choice, float]:
    """Of a training step or of a forward pass, for each candidate that runs here."""
    cell = gj.GRU(sizes.H, init="torch")
    params = cell.init(jax.random.key(0), sizes.H, jnp.dtype(dtype))
    x = jax.random.normal(jax.random.key(1), (sizes.B, sizes.T, sizes.H), jnp.dtype(dtype))
    h0 = cell.initial_state((sizes.B,), x.dtype)

    def step(choice: Choice) -> Any:
        method = gj.Sequential(kernel=choice.kernel, keep=choice.keep, chunk=choice.chunk, cores=choice.cores)
        forward = lambda p, x, h0: gj.scan(cell, p, x, h0, method=method)[0]  # noqa: E731
        loss = lambda p, x, h0: (forward(p, x, h0) ** 2).sum()  # noqa: E731
        function = jax.value_and_grad(loss, (0, 1, 2)) if training else forward
        compiled = jax.jit(function).lower(params, x, h0).compile()
        return lambda: compiled(params, x, h0)

    steps: dict[Choice, Any] = {}
    for choice in candidates:
        try:
            steps[choice] = step(choice)
            jax.block_until_ready(steps[choice]())
        except Exception as error:  # a compiler's, a driver's or our refusal: the others go on
            steps.pop(choice, None)
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"left out: {choice.kernel} at {sizes}, {dtype}: {first[:200]}", flush=True)
    times = timing.interleaved({str(number): run for number, run in enumerate(steps.values())}, budget_s)
    return {choice: times[str(number)].ms for number, choice in enumerate(steps)}


def measured(shapes: Iterable[Sizes], dtypes: Iterable[str], budget_s: float) -> list[dict[str, Any]]:
    """A row for each shape and dtype, printed as it comes."""
    rows, backend = [], jax.default_backend()
    for sizes, dtype in itertools.product(shapes, dtypes):
        if gflop(sizes) > LARGEST_GFLOP.get(backend, math.inf):
            continue
        times = milliseconds(sizes, dtype, CANDIDATES[backend], budget_s)
        row = {**sizes._asdict(), **({} if dtype == "float32" else {"dtype": dtype}), **fastest(times)._asdict()}
        row |= {"xla": fastest(of_xla(times))._asdict()} if backend == "cpu" else {}
        row["ms"] = named(times)
        told = [("training", row["ms"])]
        if backend in FORWARD:
            times = milliseconds(sizes, dtype, FORWARD[backend], budget_s, training=False)
            row |= {"forward": fastest(times)._asdict(), "xla_forward": fastest(of_xla(times))._asdict()}
            row["forward_ms"] = named(times)
            told.append(("forward", row["forward_ms"]))
        rows.append(row)
        for kind, found in told:
            each = "  ".join(f"{name} {ms:.4g}" for name, ms in found.items())
            print(f"{sizes.T:6}{sizes.B:5}{sizes.H:5} {dtype} {kind}  {each} ms", flush=True)
        jax.clear_caches()
    return rows


def fastest(times: dict[Choice, float]) -> Choice:
    """The candidate that took the least time, of two nearly the same the one that leaves the other cores alone."""
    return min(times, key=lambda choice: times[choice] * (1.1 if choice.cores > 1 else 1))


def of_xla(times: dict[Choice, float]) -> dict[Choice, float]:
    """Those that XLA compiles by itself."""
    return {choice: ms for choice, ms in times.items() if choice.kernel in ("scan", "chunked")}


def named(times: dict[Choice, float]) -> dict[str, float]:
    """The times by what was done."""
    name = lambda c: f"{c.kernel} {c.keep} {c.chunk}" + (f" {c.cores} cores" if c.cores > 1 else "")  # noqa: E731
    return {name(choice): ms for choice, ms in times.items()}


def missed(sizes: Sizes, budget_s: float) -> float:
    """The time of what "auto" chooses over that of the best, 1 where it is the best."""
    candidates = CANDIDATES[jax.default_backend()]
    chosen = select.resolve("auto", gj.GRU(sizes.H), sizes, Asked("float32"))
    chosen = chosen.differentiated if isinstance(chosen, Lean) else chosen
    chunk = chosen.chunk if chosen.kernel == "chunked" else candidates[0].chunk
    choice = Choice(chosen.kernel, chosen.keep, chunk, chosen.cores)
    times = milliseconds(sizes, "float32", dict.fromkeys([*candidates, choice]), budget_s)
    return times[choice] / min(times.values())


def write(rows: list[dict[str, Any]], *, some: bool) -> None:
    """Writes the rows of this backend; with `some` those of other shapes stay as they are."""
    record = json.loads(choices.FILE.read_text())
    record["measured"][jax.default_backend()] = {
        "command": "python -m benchmarks.choices --write",
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cpu": timing.cpu(),
        "threads": timing.threads(),
        "versions": {name: timing.versions()[name] for name in ("jax", "jaxlib")},
    }
    before = record["backends"].get(jax.default_backend(), [])
    again = {(row["T"], row["B"], row["H"], row.get("dtype")): row for row in rows}
    kept = [again.pop((row["T"], row["B"], row["H"], row.get("dtype")), row) for row in before] if some else []
    record["backends"][jax.default_backend()] = [*kept, *again.values()]
    save(record)


def save(record: dict[str, Any]) -> None:
    """Writes the table, a line a row."""
    lines = re.sub(r"\n {4,}", " ", json.dumps(record, indent=1)).replace("\n   }", " }")
    choices.FILE.write_text(lines + "\n")
    print(f"written to gru_jax/scans/{choices.FILE.name}")


def shape(text: str) -> Sizes:
    """What stands after --shapes."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"must be three whole numbers T,B,H from 1, such as 100,32,64; got {text!r}")
    return Sizes(*map(int, sizes))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=3.0, metavar="SECONDS", help="for timing each shape")
    parser.add_argument("--shapes", nargs="+", type=shape, metavar="T,B,H", help="these alone; the others' rows stay")
    parser.add_argument("--write", action="store_true", help="into gru_jax/scans/choices.json")
    parser.add_argument("--check", action="store_true", help="how far the written choices are from the best")
    parser.add_argument("--json", action="store_true", help="with --check, end with a line of JSON")
    args = parser.parse_args()
    if not args.budget > 0:
        parser.error(f"--budget must be above 0 seconds; got {args.budget:g}")
    if args.check:
        found = {}
        for sizes in BETWEEN:
            found[",".join(map(str, sizes))] = ratio = round(missed(sizes, args.budget), 3)
            print(f"{sizes}: {ratio:.2f} of the best", flush=True)
        if args.json:
            print(json.dumps(found))
        return
    backend = jax.default_backend()
    rows = measured(args.shapes or (GRID if backend == "cpu" else WIDE), DTYPES[backend], args.budget)
    if args.write:
        write(rows, some=args.shapes is not None)


if __name__ == "__main__":
    main()
