"""The GRU's kernels on an accelerator, beside cuDNN as torch calls it, flax, and a plain loop.

    python -m benchmarks.gru_kernels [--shapes 1024,16,768,768 ...] [--dtypes ...] [--write]

Every kernel of `gj.Sequential` that runs here is timed with its peers in one process, in turn, in another order every
round; outputs or gradients are compared first. "forward" is the outputs, "training" the value of a loss with its
gradients with respect to parameters, input and initial state. "ours" is the fastest of our kernels, all of them are in
`kernels_ms`; the peer "lax.scan" is our own kernel="scan". float32 is float32 for all: no TF32. On a CPU, where there
are no such kernels, what is left is `lax.scan` and "chunked", and torch's own loop is the peer.
"""

import argparse
import os
from typing import Any

import jax

import gru_jax as gj
from benchmarks import agreement, layer_shapes, peers, timing
from benchmarks.layer_shapes import KINDS, Shape

SHAPES = [
    Shape(*size)
    for size in [
        (1024, 16, 768, 768), (1000, 64, 10, 100), (512, 1, 256, 256), (4096, 1, 512, 512), (256, 128, 1024, 1024),
        (1500, 32, 2816, 2816), (1024, 1, 128, 128), (1024, 8, 64, 64), (2000, 16, 32, 64), (784, 64, 1, 128),
    ]
]  # fmt: skip
"""Sizes that papers, users' threads and DeepBench name, and small ones, where a step is nothing but latency."""
KERNELS = {"gpu": ("cudnn", "pallas", "scan"), "tpu": ("pallas", "scan"), "cpu": ("chunked", "scan")}
AIMS_MS = {("forward", Shape(1024, 16, 768, 768)): 2.0, ("training", Shape(1024, 16, 768, 768)): 5.2}
"""In bfloat16 on an H100 or H200: what cuDNN's LSTM of that size takes on an H100 by FlashRNN's own figures."""
BUDGET_S = 3.0
MOST_UNITS_ON_CPU = 128


def peer_names() -> dict[str, str]:
    """What the peers are called in the rows: torch's GRU is cuDNN's where there is a GPU."""
    return {"torch": "cudnn" if jax.default_backend() == "gpu" else "torch", "nnx": "nnx.RNN"}


def measured(shape: Shape, dtype: str, kind: str, budget_s: float, left_out: list[str]) -> list[dict[str, Any]]:
    """A row for each peer, and one for our own plain loop; what cannot run is printed and added to left_out."""
    given = peers.problem(shape, dtype)
    plain = peers.ours(given, kind, gj.Sequential(kernel="scan"))
    expected = plain.read(plain.run())
    candidates = {"scan": plain}

    def left(name: str, reason: object) -> None:
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        left_out.append(f"{name}, {kind}, {dtype}, T,B,I,H = {shape}: {first[:200]}")
        print(f"left out: {left_out[-1]}", flush=True)

    for kernel in KERNELS[jax.default_backend()][:-1]:
        try:
            made = peers.ours(given, kind, gj.Sequential(kernel=kernel))
            found = made.read(made.run())
        except Exception as error:  # a compiler's, a driver's or our own refusal: the others go on
            left(kernel, error)
            continue
        agreement.check(expected, found, dtype, f"{kernel}, {kind}, {dtype}, {shape}", shape.T)
        candidates[kernel] = made
    ours = list(candidates)
    for name, called in peer_names().items():
        try:
            made = peers.peer(name, given, kind)
        except peers.LeftOut as reason:
            left(called, reason)
            continue
        agreement.check(expected, made.read(made.run()), dtype, f"{called}, {kind}, {dtype}, {shape}", shape.T)
        candidates[f"peer {called}"] = made
    times = timing.interleaved({name: each.run for name, each in candidates.items()}, budget_s)
    best = min(ours, key=lambda name: times[name].ms)
    shared = {
        "subject": "gru",
        "kind": kind,
        "shape": shape._asdict(),
        "dtype": dtype,
        "ours_ms": times[best].ms,
        "ours_spread_ms": times[best].spread_ms,
        "kernel": best,
        "kernels_ms": {name: times[name].ms for name in ours},
        "compile_s": candidates[best].compile_s,
        "temp_MiB": candidates[best].temp_MiB,
        "iterations": times[best].rounds,
    }
    others = {"lax.scan": times["scan"]} | {n.removeprefix("peer "): t for n, t in times.items() if n not in ours}
    return [shared | {"peer": name, "peer_ms": its.ms, "peer_spread_ms": its.spread_ms} for name, its in others.items()]


def printed(rows: list[dict[str, Any]]) -> str:
    """The rows of one shape as a line."""
    row = rows[0]
    each = "  ".join(f"{name} {ms:.4g}" for name, ms in row["kernels_ms"].items())
    ratios = "  ".join(f"{r['peer']} {r['peer_ms']:.4g} ({r['peer_ms'] / r['ours_ms']:.2f} x ours)" for r in rows)
    return f"{row['kind']:<9}{row['dtype']:<9}{Shape(**row['shape'])!s:>20}  {each} ms | {ratios}"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The median ratio to each peer, and the shapes with an aim."""
    text = []
    for kind, dtype, peer in dict.fromkeys((r["kind"], r["dtype"], r["peer"]) for r in rows):
        part = [r for r in rows if (r["kind"], r["dtype"], r["peer"]) == (kind, dtype, peer)]
        ratios = sorted(r["peer_ms"] / r["ours_ms"] for r in part)
        middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        lost = [f"{Shape(**r['shape'])}" for r in part if r["peer_ms"] < r["ours_ms"]]
        text.append(
            f"{kind}, {dtype}: {peer} / ours over {len(part)} shapes: median {middle:.2f}, least {ratios[0]:.2f}"
            + (f"; slower at {' '.join(lost)}" if lost else "")
        )
    for row in rows:
        aim = AIMS_MS.get((row["kind"], Shape(**row["shape"])))
        if row["peer"] == "lax.scan" and row["dtype"] == "bfloat16" and aim is not None:
            met = "reached" if row["ours_ms"] <= aim else "MISSED"
            text.append(f"{row['kind']} at {Shape(**row['shape'])}: {row['ours_ms']:.4g} ms (aim {aim:g} ms: {met})")
    return text


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"# GRU kernels: {record['device']}, {record['date']}",
        "",
        f"`{record['command']}`: {record['device']}, {record['cpu']}; {versions}. Milliseconds, medians; the ratio is"
        " the peer's time over ours.",
        "",
        "| | dtype | T, B, I, H | ours | kernel | peer | peer ms | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        cells = [row["kind"], row["dtype"], str(Shape(**row["shape"])), f"{row['ours_ms']:.4g}", row["kernel"]]
        cells += [row["peer"], f"{row['peer_ms']:.4g}", f"{row['peer_ms'] / row['ours_ms']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    told = [*summary(record["rows"]), *(f"left out: {reason}" for reason in record["left_out"])]
    return "\n".join([*lines, "", *(f"- {line}" for line in told)]) + "\n"


def sizes(text: str) -> Shape:
    """T,B,I,H."""
    found = layer_shapes.group_or_shape(text)
    if isinstance(found, str):
        raise argparse.ArgumentTypeError(f"must be four whole numbers T,B,I,H; got {text!r}")
    return found


def main() -> None:
    # torch shares the GPU with JAX, which otherwise takes three quarters of its memory; read at JAX's first use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gru_kernels", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes", nargs="+", type=sizes, metavar="T,B,I,H", help=f"{' '.join(map(str, SHAPES))} when left out"
    )
    parser.add_argument("--dtypes", nargs="+", choices=tuple(peers.DTYPES), default=list(peers.DTYPES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="for each shape and dtype")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/")
    args = parser.parse_args()
    if not args.budget > 0:
        parser.error(f"--budget must be above 0 seconds; got {args.budget:g}")
    shapes = args.shapes or SHAPES
    if jax.default_backend() == "cpu":
        print("JAX runs on a CPU here, which has no kernels of this kind: benchmarks.layers says more about it.")
        shapes = args.shapes or [shape for shape in SHAPES if shape.H <= MOST_UNITS_ON_CPU]
    peers.full_precision()
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    try:
        for shape in shapes:
            for dtype in args.dtypes:
                for kind in args.kinds:
                    rows += (found := measured(shape, dtype, kind, args.budget, left_out))
                    print(printed(found), flush=True)
            jax.clear_caches()
    except agreement.Disagreement as error:
        raise SystemExit(f"benchmarks.gru_kernels: {error}") from error
    print("\n".join(["", *summary(rows)]))
    if args.write:
        timing.write("gru_kernels", rows, table=markdown, left_out=left_out)


if __name__ == "__main__":
    main()
