"""Which form of one step after another is the fastest, by shape: what ships of a device for method="auto" to go by.

    python -m benchmarks.choices [--shapes T,B,H ...] [--write] [--budget SECONDS]
    python -m benchmarks.choices --check [--json]

What `gru-jax tune` does, over a whole grid of shapes. `--write` writes the rows to gru_jax/scans/choices/measured/, for
the device that JAX chooses; with `--shapes` other rows there stay. `--check` says by how much the choice of "auto"
misses the best at shapes that lie between those of the grid.
"""

import argparse
import dataclasses
import datetime
import json
import math
from collections.abc import Iterable

import jax

import gru_jax as gj
from benchmarks import timing
from gru_jax.scans import choices, select
from gru_jax.scans.choices import Choice, Row, Sizes, Tuned
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.methods.sequential import Lean
from gru_jax.tuning.measure import Shape, measured

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


def row_of(sizes: Sizes, dtype: str, budget_s: float) -> Row:
    """What is measured of a GRU with as many features as units, printed as it comes."""
    row, left_out = measured(gj.GRU(sizes.H, init="torch"), Shape(sizes.T, sizes.B, sizes.H, sizes.H), dtype, budget_s)
    for line in left_out:
        print(f"left out: {line} at {sizes}, {dtype}", flush=True)
    for kind, times in (("training", row.ms), ("forward", row.forward_ms)):
        each = "  ".join(f"{name} {ms:.4g}" for name, ms in (times or {}).items())
        print(f"{sizes.T:6}{sizes.B:5}{sizes.H:5} {dtype} {kind}  {each} ms", flush=True)
    jax.clear_caches()
    return row


def rows_of(shapes: Iterable[Sizes], dtypes: Iterable[str], budget_s: float) -> list[Row]:
    """A row for each shape and dtype."""
    largest = LARGEST_GFLOP.get(jax.default_backend(), math.inf)
    wanted = [sizes for sizes in shapes if gflop(sizes) <= largest]
    return [row_of(sizes, dtype, budget_s) for sizes in wanted for dtype in dtypes]


def missed(sizes: Sizes, budget_s: float) -> float:
    """The time of a training step by what "auto" chooses over that of the best, 1 where it is the best."""
    chosen = select.resolve("auto", gj.GRU(sizes.H), sizes, Asked("float32"))
    chosen = chosen.differentiated if isinstance(chosen, Lean) else chosen
    chunk = 12 if chosen.kernel in ("chunked", "scan") else chosen.chunk
    times = row_of(sizes, "float32", budget_s).ms or {}
    return times[str(Choice(chosen.kernel, chosen.keep, chunk, chosen.cores))] / min(times.values())


def write(rows: Iterable[Row], *, some: bool) -> None:
    """Writes the rows of this device; with `some` those of other shapes stay as they are."""
    backend = jax.default_backend()
    device = choices.device(backend)
    versions = {name: timing.versions()[name] for name in ("jax", "jaxlib")}
    about = {"date": datetime.date.today().isoformat(), "cores": registry.usable_cores(), "versions": versions}
    found = Tuned(device, backend, tuple(rows), about)
    before = choices.shipped(device, backend)
    if before is not None:
        found = before.updated(found) if some else dataclasses.replace(found, newton=before.newton)
    save(found)


def save(tuned: Tuned) -> None:
    """Writes what ships for a device."""
    name = choices.file_name(tuned.device, tuned.backend)
    tuned.save(choices.MEASURED / name)
    print(f"written to gru_jax/scans/choices/measured/{name}")


def shape(text: str) -> Sizes:
    """What stands after --shapes."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"must be three whole numbers T,B,H from 1, such as 100,32,64; got {text!r}")
    return Sizes(*map(int, sizes))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=6.0, metavar="SECONDS", help="for timing each shape")
    parser.add_argument("--shapes", nargs="+", type=shape, metavar="T,B,H", help="these alone; the others' rows stay")
    parser.add_argument("--write", action="store_true", help="into gru_jax/scans/choices/measured/")
    parser.add_argument("--check", action="store_true", help="how far the choices of \"auto\" are from the best")
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
    rows = rows_of(args.shapes or (GRID if backend == "cpu" else WIDE), DTYPES[backend], args.budget)
    if args.write:
        write(rows, some=args.shapes is not None)


if __name__ == "__main__":
    main()
