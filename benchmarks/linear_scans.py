"""Linear recurrences beside copies of the same bytes, and minGRU beside a GRU of torch (on a GPU cuDNN's).

    python -m benchmarks.linear_scans [--device cpu|gpu|tpu] [--shapes 8,4096,1536 ...] [--write]

`h_t = a_t h_{t-1} + b_t` reads a and b and writes h, so it takes at least what a + b takes; with its gradient it reads
a, h and a cotangent besides and writes two more arrays. `copy` is what moves these bytes and does nothing else. All
candidates of a row are timed in one process, in turn, after their results were compared; `--write` writes
benchmarks/results/.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import gru_jax as gj
from benchmarks import agreement, peers, timing
from benchmarks.layer_shapes import Shape
from gru_jax.scans.engines import registry

SHAPES = {
    "gpu": [(8, 4096, 1536), (8, 16384, 1536), (8, 65536, 1536), (1, 1048576, 64), (64, 1000, 100)],
    "tpu": [(8, 4096, 1536), (8, 16384, 1536), (64, 1000, 100)],
    "cpu": [(8, 1024, 64), (1, 16384, 64), (16, 1000, 100)],
}
"""B, T, H."""

LAYERS = {"gpu": [Shape(1000, 64, 10, 100), Shape(16384, 64, 10, 100)], "cpu": [Shape(100, 16, 10, 100)]}
LAYERS["tpu"] = LAYERS["gpu"]

WHAT = ("forward", "gradient")
BOUNDS = {"float32": 2e-4, "bfloat16": 5e-2}
"""How far one of our own forms may be from another, in parts of the largest number."""


class Problem(NamedTuple):
    """One recurrence: a in (0, 1), b and a cotangent, `[B, T, H]`."""

    a: jax.Array
    b: jax.Array
    c: jax.Array


def problem(shape: tuple[int, int, int], dtype: str) -> Problem:
    """Factors whose states neither vanish nor grow."""
    drawn = (jax.random.normal(key, shape, peers.DTYPES[dtype]) for key in jax.random.split(jax.random.key(0), 3))
    a, b, c = drawn
    return Problem(jax.nn.sigmoid(a), b, c)


def ours(kernel: str) -> Callable[[Any, Any], Any]:
    """Our recurrence."""
    return functools.partial(gj.linear_scan, kernel=kernel)


def by_associative_scan(a: Any, b: Any) -> Any:
    """`lax.associative_scan`, written as its documentation suggests."""

    def join(early: Any, late: Any) -> Any:
        return late[0] * early[0], late[0] * early[1] + late[1]

    return lax.associative_scan(join, (a, b), axis=1)[1]


def with_gradient(states: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """The states, and the gradients of a and b for a cotangent of them."""

    def both(a: Any, b: Any, c: Any) -> Any:
        h, pull = jax.vjp(states, a, b)
        return h, *pull(c)

    return both


def copied(what: str) -> Callable[..., Any]:
    """What reads and writes the same arrays."""

    def forward(a: Any, b: Any, c: Any) -> Any:
        return a + b

    def gradient(a: Any, b: Any, c: Any) -> Any:
        # Apart, as a backward pass is: it cannot begin before the states are all there.
        h, again, c = lax.optimization_barrier((a + b, a, c))
        return h, again + h + c, again - h - c

    return forward if what == "forward" else gradient


def candidate(states: Callable[[Any, Any], Any], what: str) -> Callable[..., Any]:
    """The states alone or with the gradients, of the same arguments."""
    return with_gradient(states) if what == "gradient" else lambda a, b, c: states(a, b)


def compared(expected: Any, found: Any, dtype: str, who: str) -> None:
    """Raises Disagreement unless all arrays are close to each other."""
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        off = float(_distance(one, other))
        if not off <= BOUNDS[dtype]:
            raise agreement.Disagreement(
                f"{who}: off by {off:.2g} of the largest number, more than the {BOUNDS[dtype]:g} that rounding explains"
                f" in {dtype}; its times would say nothing"
            )


@jax.jit
def _distance(one: jax.Array, other: jax.Array) -> jax.Array:
    # On the device, where the arrays are: some have gigabytes.
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    return jnp.abs(one - other).max() / jnp.maximum(jnp.abs(one).max(), 1e-30)


def recurrence_row(
    shape: tuple[int, int, int], dtype: str, what: str, kernel: str, budget_s: float, left_out: list[str]
) -> dict[str, Any]:
    """Our recurrence beside a copy and beside `lax.associative_scan`."""
    given = problem(shape, dtype)
    steps = {"ours": jax.jit(candidate(ours(kernel), what)), "copy": jax.jit(copied(what))}
    plain = jax.jit(candidate(ours("scan"), what))
    who = f"linear_scan, {what}, {dtype}, B,T,H = {','.join(map(str, shape))}"
    compared(plain(*given), steps["ours"](*given), dtype, who)
    jax.block_until_ready(steps["copy"](*given))
    theirs = jax.jit(candidate(by_associative_scan, what))
    try:
        # In half precision it sums in half precision: as fast as it is, but not the same numbers.
        found = jax.block_until_ready(theirs(*given))
        if dtype == "float32":
            compared(plain(*given), found, dtype, f"{who}, lax.associative_scan")
        del found
        steps["associative_scan"] = theirs
    except jax.errors.JaxRuntimeError as error:
        _leave_out(left_out, f"lax.associative_scan, {who}: {str(error).splitlines()[0][:200]}")
    times = timing.interleaved({name: functools.partial(step, *given) for name, step in steps.items()}, budget_s)
    other = times.get("associative_scan")
    return {
        "subject": "linear_scan",
        "shape": dict(zip("BTH", shape, strict=True)),
        "dtype": dtype,
        "what": what,
        "kernel": kernel,
        "ours_ms": times["ours"].ms,
        "ours_spread_ms": times["ours"].spread_ms,
        "copy_ms": times["copy"].ms,
        "fraction_of_copy": round(times["copy"].ms / times["ours"].ms, 4),
        "associative_scan_ms": other and other.ms,
        "iterations": times["ours"].rounds,
    }


def layer_row(shape: Shape, dtype: str, kernel: str, budget_s: float, left_out: list[str]) -> dict[str, Any]:
    """A training step of minGRU beside one of torch's GRU, with as many units and inputs."""
    cell = gj.MinGRU(shape.H, init="torch")
    params = cell.init(jax.random.key(0), shape.I, peers.DTYPES[dtype])
    x = jax.random.normal(jax.random.key(1), (shape.B, shape.T, shape.I), peers.DTYPES[dtype])

    def training(kernel: str) -> Callable[[], Any]:
        def loss(params: Any, x: Any) -> Any:
            y, _ = gj.scan(cell, params, x, method=gj.Associative(kernel))
            return (y.astype(jnp.float32) ** 2).sum()

        return functools.partial(jax.jit(jax.value_and_grad(loss, (0, 1))), params, x)

    who = f"{dtype}, T,B,I,H = {shape}"
    steps = {"ours": training(kernel), "plain": training("scan")}
    compared(steps["plain"](), steps["ours"](), dtype, f"minGRU, {who}")
    try:
        gru = peers.peer("torch", peers.problem(shape, dtype), "training")
        steps["torch_gru"] = gru.run
    except peers.LeftOut as reason:
        _leave_out(left_out, f"torch's GRU, {who}: {reason}")
    times = timing.interleaved(steps, budget_s)
    gru_time = times.get("torch_gru")
    return {
        "subject": "mingru",
        "shape": shape._asdict(),
        "dtype": dtype,
        "what": "training",
        "kernel": kernel,
        "ours_ms": times["ours"].ms,
        "ours_spread_ms": times["ours"].spread_ms,
        "plain_ms": times["plain"].ms,
        "torch_gru_ms": gru_time and gru_time.ms,
        "torch_gru_over_ours": gru_time and round(gru_time.ms / times["ours"].ms, 3),
        "iterations": times["ours"].rounds,
    }


def _leave_out(left_out: list[str], reason: str) -> None:
    left_out.append(reason)
    print(f"left out: {reason}", flush=True)


def printed(row: dict[str, Any]) -> str:
    """A row as text."""
    names = ("copy_ms", "associative_scan_ms", "plain_ms", "torch_gru_ms")
    others = "  ".join(f"{name.removesuffix('_ms')} {row[name]:.4g}" for name in names if row.get(name) is not None)
    sizes = f"{','.join(row['shape'])} = {','.join(map(str, row['shape'].values()))}"
    text = f"{row['subject']}, {row['what']}, {row['dtype']}, {sizes}: {row['ours_ms']:.4g} ms  {others}"
    if "fraction_of_copy" in row:
        return f"{text} | {row['fraction_of_copy']:.0%} of a copy's speed"
    ratio = row["torch_gru_over_ours"]
    return text if ratio is None else f"{text} | torch's GRU / ours {ratio:.3g}"


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    head = [f"# Linear recurrences: {record['device']}, {record['date']}"]
    head.append(f"`{record['command']}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds, medians.")
    listed = [*map(printed, record["rows"]), *(f"left out: {reason}" for reason in record["left_out"])]
    return "\n\n".join([*head, "\n".join(f"- {line}" for line in listed)]) + "\n"


def shape_of(text: str) -> tuple[int, int, int]:
    """B,T,H."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be three whole numbers B,T,H from 1, such as 8,4096,1536; got {text!r}")
    B, T, H = map(int, parts)
    return B, T, H


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.linear_scans", description=__doc__.splitlines()[0])
    made.add_argument("--device", choices=tuple(SHAPES), default="cpu")
    made.add_argument("--shapes", nargs="+", type=shape_of, metavar="B,T,H", help="of the recurrence, without minGRU")
    made.add_argument("--dtypes", nargs="+", choices=tuple(peers.DTYPES), default=list(peers.DTYPES))
    made.add_argument("--kernel", help="of gj.linear_scan; pallas when left out, on a CPU auto")
    made.add_argument("--budget", type=float, default=5.0, metavar="SECONDS", help="for timing each row")
    made.add_argument("--write", action="store_true", help="into benchmarks/results/")
    return made


def checked(command: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, or the command's end where they do not fit each other."""
    args = command.parse_args()
    if not args.budget > 0:
        command.error(f"--budget must be above 0 seconds; got {args.budget:g}")
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != args.device:
        command.error(
            f"--device {args.device}: JAX runs on {jax.default_backend()!r} here; install JAX for it on a machine that"
            f" has one, or take --device cpu"
        )
    args.kernel = args.kernel or ("auto" if args.device == "cpu" else "pallas")
    try:
        gj.Associative(args.kernel)
        if (engine := registry.linear(args.kernel)) is not None:
            engine.require("linear_scan")
    except ValueError as error:
        command.error(f"--kernel: {error}")
    return args


def main() -> None:
    # torch shares the GPU with JAX, which otherwise takes three quarters of its memory; read at JAX's first use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    args = checked(parser())
    if args.device == "gpu":
        peers.full_precision()
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    jobs = [
        functools.partial(recurrence_row, shape, dtype, what, args.kernel)
        for shape in args.shapes or SHAPES[args.device]
        for dtype in args.dtypes
        for what in WHAT
    ]
    if not args.shapes:
        jobs += [
            functools.partial(layer_row, shape, dtype, args.kernel)
            for shape in LAYERS[args.device]
            for dtype in args.dtypes
        ]
    for job in jobs:
        try:
            rows.append(job(budget_s=args.budget, left_out=left_out))
        except agreement.Disagreement as error:
            raise SystemExit(f"benchmarks.linear_scans: {error}") from error
        print(printed(rows[-1]), flush=True)
        jax.clear_caches()
    if args.write:
        timing.write("linear_scans", rows, table=markdown, left_out=left_out)


if __name__ == "__main__":
    main()
