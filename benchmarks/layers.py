"""Our layer beside torch's, flax's, Keras' and Equinox', and beside the matrix products that none of them can avoid.

    python -m benchmarks.layers [--device cpu|gpu] [--shapes design 100,32,64,64 ...] [--write]
    python -m benchmarks.layers --quick
    python -m benchmarks.layers --extras
    python -m benchmarks.layers --draw benchmarks/results/<file>.json

All candidates have the same weights and inputs, and their outputs or gradients are compared before a time counts. They
are timed in one process, in turn, in another order every round; the median is printed. "forward" is the outputs,
"training" the value of a loss with its gradients with respect to parameters, input and initial state. `--write` writes
benchmarks/results/, as JSON and as a table, and the plots of docs/images/; `--quick` takes three minutes and keeps
nothing; `--extras` measures what else is to cost no more than what it is made of.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import agreement, layer_shapes, layers_extras, layers_plots, layers_report, peers, timing
from benchmarks.layer_shapes import Case, Shape

IMAGES = Path(__file__).parent.parent / "docs" / "images"
BUDGET_S, QUICK_BUDGET_S = 10.0, 1.0
"""Seconds that go into timing each shape, dtype and kind."""


def measured(
    case: Case, dtype: str, kind: str, names: list[str], budget_s: float, left_out: list[str]
) -> list[dict[str, Any]]:
    """One row for each peer, or one without where none runs; what cannot run is printed and added to left_out."""
    given = peers.problem(case.shape, dtype)
    candidates = {"ours": peers.ours(given, kind), "floor": peers.floor(given, kind)}
    expected = candidates["ours"].read(candidates["ours"].run())
    jax.block_until_ready(candidates["floor"].run())
    for name in names:
        who = f"{name}, {kind}, {dtype}, T,B,I,H = {case.shape}"
        try:
            if case.shape.T > layer_shapes.PATIENCE:
                raise peers.LeftOut(f"more than {layer_shapes.PATIENCE} steps")
            made = peers.peer(name, given, kind)
        except peers.LeftOut as reason:
            left_out.append(f"{who}: {reason}")
            print(f"left out: {left_out[-1]}", flush=True)
            continue
        agreement.check(expected, made.read(made.run()), dtype, who, case.shape.T)
        candidates[name] = made
    times = timing.interleaved({name: each.run for name, each in candidates.items()}, budget_s)
    found = [name for name in names if name in candidates] or [None]
    return [row(case, dtype, kind, candidates, times, name) for name in found]


def row(
    case: Case, dtype: str, kind: str, candidates: dict[str, peers.Candidate], times: dict[str, Any], name: str | None
) -> dict[str, Any]:
    """What is written about one peer at one shape."""
    ours = candidates["ours"]
    theirs, its = (candidates[name], times[name]) if name else (None, None)
    return {
        "subject": kind,
        "group": case.group,
        "shape": case.shape._asdict(),
        "dtype": dtype,
        "ours_ms": times["ours"].ms,
        "ours_spread_ms": times["ours"].spread_ms,
        "peer": name,
        "peer_ms": its and its.ms,
        "peer_spread_ms": its and its.spread_ms,
        "floor_ms": times["floor"].ms,
        "iterations": times["ours"].rounds,
        "ours_compile_s": ours.compile_s,
        "peer_compile_s": theirs and theirs.compile_s,
        "ours_temp_MiB": ours.temp_MiB,
        "peer_temp_MiB": theirs and theirs.temp_MiB,
    }


def run(cases: list[Case], args: argparse.Namespace, budget_s: float, left_out: list[str]) -> list[dict[str, Any]]:
    """The rows of all cases, printed as they come."""
    rows = []
    for case in cases:
        for dtype in args.dtypes:
            for kind in (kind for kind in args.kinds if kind in case.kinds):
                found = measured(case, dtype, kind, args.peers, budget_s, left_out)
                rows += found
                print(layers_report.printed(layers_report.lines(found)[0]), flush=True)
        jax.clear_caches()
    return rows


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__.splitlines()[0])
    made.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    made.add_argument(
        "--shapes", nargs="+", type=layer_shapes.group_or_shape, metavar="NAME|T,B,I,H",
        help=f"of {', '.join(layer_shapes.GROUPS)}, or sizes; {' '.join(layer_shapes.DEFAULT)} when left out",
    )
    made.add_argument("--dtypes", nargs="+", choices=tuple(peers.DTYPES), default=list(peers.DTYPES))
    made.add_argument("--kinds", nargs="+", choices=layer_shapes.KINDS, default=list(layer_shapes.KINDS))
    made.add_argument("--peers", nargs="+", choices=peers.PEERS, default=list(peers.PEERS))
    made.add_argument("--budget", type=float, metavar="SECONDS", help="for timing each shape, dtype and kind")
    made.add_argument("--extras", action="store_true", help="stacks, masks, fronts and the linear recurrence instead")
    made.add_argument("--quick", action="store_true", help="eight shapes in float32 and the extras, three minutes")
    made.add_argument("--write", action="store_true", help="into benchmarks/results/ and docs/images/")
    made.add_argument("--name", default="layers", help="of the files that --write writes")
    made.add_argument("--draw", type=Path, metavar="FILE", help="draw the plots of a results file, measure nothing")
    return made


def checked(command: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, or the command's end where they do not fit each other."""
    args = command.parse_args()
    if args.quick and args.write:
        command.error("--quick measures nothing worth writing; leave one of the two out")
    if args.budget is not None and not args.budget > 0:
        command.error(f"--budget must be above 0 seconds; got {args.budget:g}")
    if not re.fullmatch(r"[\w-]+", args.name):
        command.error(f"--name must be letters, digits, - and _, part of a file's name; got {args.name!r}")
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif not args.draw and jax.default_backend() != "gpu":
        command.error(
            f"--device gpu: JAX runs on {jax.default_backend()!r} here; install jax[cuda13] on a machine with a GPU, or"
            f" take --device cpu"
        )
    return args


def draw(file: Path, command: argparse.ArgumentParser) -> None:
    """Draws a results file again."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        command.error(f"--draw: {file} cannot be read as a results file: {error}")
    if not isinstance(record, dict) or not all("ours_ms" in row for row in record.get("rows", [{}])):
        command.error(f"--draw: {file} was not written by benchmarks.layers")
    layers_plots.draw(record, IMAGES)


def main() -> None:
    command = parser()
    # torch shares the GPU with JAX, which otherwise takes three quarters of its memory; read at JAX's first use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    args = checked(command)
    if args.draw:
        draw(args.draw, command)
        return
    if args.device == "gpu":
        peers.full_precision()
    start, left_out = time.monotonic(), []
    budget_s = args.budget or (QUICK_BUDGET_S if args.quick else BUDGET_S)
    wanted: list[str | Shape] = args.shapes or ([] if args.extras else list(layer_shapes.DEFAULT))
    cases = layer_shapes.cases(wanted, args.device)
    if args.quick:
        args.dtypes, cases = ["float32"], cases if args.shapes else layer_shapes.QUICK
    try:
        rows = run(cases, args, budget_s, left_out)
        if args.extras or (args.quick and not args.shapes):
            rows += layers_extras.run(args.kinds, budget_s, args.quick)
    except agreement.Disagreement as error:
        raise SystemExit(f"benchmarks.layers: {error}") from error
    print("\n".join(["", *layers_report.summary(rows), *layers_report.told(left_out)]))
    print(f"measured in {(time.monotonic() - start) / 60:.1f} minutes")
    if args.write:
        table = layers_report.markdown
        record = timing.write(args.name, rows, module="layers", table=table, left_out=left_out)
        layers_plots.draw(record, IMAGES)


if __name__ == "__main__":
    main()
