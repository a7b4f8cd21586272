"""One step a call, as data that arrive frame by frame need it: `gj.Stream` beside other ways to take a step.

    python -m benchmarks.streaming [--budget SECONDS] [--quick] [--write]

Each call takes a NumPy array `[1, I]`, gives one `[1, H]`, and keeps the state. All have the same weights. Outputs
are compared first, then they are timed in one process, in turn, in another order every round. onnxruntime runs the
layer's exported file four ways, on the threads that it takes by itself and on one, by `run` and by `IOBinding`; what
counts is the fastest. torch has one thread, which is its fastest at such sizes. `--write` writes benchmarks/results/.
"""

import argparse
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import gru_jax as gj
from benchmarks import agreement, timing

CASES = {
    "64": (64, 64, 1),
    "256": (64, 256, 1),
    "256, as many features": (256, 256, 1),
    "two of 128": (128, 128, 2),
}
"""Features, units and layers."""
QUICK = {"tiny": (3, 5, 2)}
PEERS = ("jitted step", "onnxruntime", "torch")
APART = 1e-5
CALLS = 100
"""Timed together."""
BUDGET_S = 10.0

Step = Callable[[np.ndarray], np.ndarray]


def jitted(layer: gj.nnx.GRU) -> Step:
    """The cell's `step`, one layer after another, compiled by XLA as one function."""
    cell, params = layer.spec.cell, _each(layer)

    @jax.jit
    def step(params: Any, x: Any, states: Any) -> Any:
        after = []
        for p, h in zip(params, states, strict=True):
            x = cell.step(p, cell.project(p, x), h)
            after.append(x)
        return x, after

    kept: list[Any] = [cell.initial_state((1,)) for _ in params]

    def call(x: np.ndarray) -> np.ndarray:
        y, kept[:] = step(params, x, kept)
        return np.asarray(y)

    return call


def by_torch(layer: gj.nnx.GRU) -> Step:
    """`torch.nn.GRUCell`, one for each layer."""
    import torch

    torch.set_num_threads(1)
    cells = []
    for p in _each(layer):
        w_x, w_h, b_x, b_h = (torch.from_numpy(np.array(a).T.copy()) for a in p)
        cells.append(torch.nn.GRUCell(w_x.shape[1], w_h.shape[1]))
        names = {"weight_ih": w_x, "weight_hh": w_h, "bias_ih": b_x, "bias_hh": b_h}
        cells[-1].load_state_dict(names)
    kept: list[Any] = [torch.zeros(1, layer.spec.hidden_features) for _ in cells]

    def call(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            y = torch.from_numpy(x)
            for k, cell in enumerate(cells):
                y = kept[k] = cell(y, kept[k])
            return y.numpy()

    return call


def by_onnxruntime(layer: gj.nnx.GRU) -> dict[str, Step]:
    """The exported file in onnxruntime, by each of its ways."""
    import onnxruntime

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "layer.onnx")
        gj.interop.onnx.export(layer, path, h0=True)
        for threads in ("its threads", "one thread"):
            options = onnxruntime.SessionOptions()
            if threads == "one thread":
                options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            found[f"run, {threads}"] = _run(session, layer)
            found[f"IOBinding, {threads}"] = _bound(session, layer)
    return found


def _run(session: Any, layer: gj.nnx.GRU) -> Step:
    state = np.zeros((layer.spec.num_layers, 1, layer.spec.hidden_features), np.float32)
    given = {"x": None, "h0": state}

    def call(x: np.ndarray) -> np.ndarray:
        given["x"] = x[None]
        y, given["h0"] = session.run(["y", "h_n"], given)
        return y[0]

    return call


def _bound(session: Any, layer: gj.nnx.GRU) -> Step:
    """Input, output and states in memory that is bound once; states change places at each step."""
    from onnxruntime import OrtValue

    units, layers = layer.spec.hidden_features, layer.spec.num_layers
    x = OrtValue.ortvalue_from_numpy(np.zeros((1, 1, layer.in_features), np.float32))
    y = OrtValue.ortvalue_from_numpy(np.zeros((1, 1, units), np.float32))
    states = [OrtValue.ortvalue_from_numpy(np.zeros((layers, 1, units), np.float32)) for _ in range(2)]
    ways = []
    for before, after in (states, states[::-1]):
        way = session.io_binding()
        for name, value in (("x", x), ("h0", before)):
            way.bind_ortvalue_input(name, value)
        for name, value in (("y", y), ("h_n", after)):
            way.bind_ortvalue_output(name, value)
        ways.append(way)
    taken = 0

    def call(frame: np.ndarray) -> np.ndarray:
        nonlocal taken
        x.update_inplace(frame[None])
        session.run_with_iobinding(ways[taken % 2])
        taken += 1
        return y.numpy()[0]

    return call


def rows(quick: bool, budget_s: float) -> Iterator[dict[str, Any]]:
    """The measurements, one of each case."""
    for name, (features, units, layers) in (QUICK if quick else CASES).items():
        layer = gj.nnx.GRU(features, units, num_layers=layers, init="torch", rngs=nnx.Rngs(0))
        ours = gj.Stream(layer, batch=1)
        steps: dict[str, Step] = {"ours": ours, "jitted step": jitted(layer)}
        if importlib.util.find_spec("torch"):
            steps["torch"] = by_torch(layer)
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            steps |= by_onnxruntime(layer)
        apart = compared(name, steps, features)
        x = np.random.default_rng(1).normal(size=(1, features)).astype(np.float32)
        times = timing.interleaved({who: functools.partial(_many, step, x) for who, step in steps.items()}, budget_s)
        row = {"case": name, "features": features, "units": units, "layers": layers, "apart": apart}
        of_onnxruntime = [who for who in times if who.split(",")[0] in ("run", "IOBinding")]
        if of_onnxruntime:
            best = min(of_onnxruntime, key=lambda who: times[who].ms)
            row |= {"onnxruntime": best} | {f"onnxruntime, {who}": _us(times[who].ms) for who in of_onnxruntime}
            times["onnxruntime"] = times[best]
        for who in ("ours", *(peer for peer in PEERS if peer in times)):
            row |= {f"{who}_us": _us(times[who].ms), f"{who}_spread_us": _us(times[who].spread_ms)}
            if who != "ours":
                row[f"{who}_over_ours"] = _digits(times[who].ms / times["ours"].ms)
        yield row


def compared(name: str, steps: dict[str, Step], features: int) -> float:
    """How far outputs are from ours over some steps; too far is an error."""
    x = np.random.default_rng(0).normal(size=(20, 1, features)).astype(np.float32)
    made = {who: np.stack([np.array(step(frame)) for frame in x]) for who, step in steps.items()}
    apart = {who: float(np.abs(y - made["ours"]).max()) for who, y in made.items()}
    worst = max(apart, key=apart.get)  # type: ignore[arg-type]
    if apart[worst] > APART:
        raise agreement.Disagreement(f"{name}: {worst} is off by {apart[worst]:.2g}")
    return apart[worst]


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    others = [
        f"{who} {row[f'{who}_us']:.4g} ({row[f'{who}_over_ours']:.3g} x)" for who in PEERS if f"{who}_us" in row
    ]
    return f"{row['case']:<24} ours {row['ours_us']:.4g} us  " + "  ".join(others)


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    there = [who for who in PEERS if any(f"{who}_us" in row for row in record["rows"])]
    lines = [
        f"# One step a call: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Microseconds of a call"
        " at one sequence, NumPy array to NumPy array, medians with the interquartile range, and how often ours"
        " fits into it. Of onnxruntime the fastest of four ways, which is named.",
        "",
        f"| units | features | ours | {' | '.join(there)} |",
        f"|{' --- |' * (3 + len(there))}",
    ]
    for row in record["rows"]:
        cells = [row["case"], str(row["features"]), f"{row['ours_us']:.4g} ± {row['ours_spread_us']:.2g}"]
        for who in there:
            way = f", {row['onnxruntime']}" if who == "onnxruntime" else ""
            cells.append(
                f"{row[f'{who}_us']:.4g} ± {row[f'{who}_spread_us']:.2g} ({row[f'{who}_over_ours']:.3g} x{way})"
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _each(layer: gj.nnx.GRU) -> list[Any]:
    """The parameters of each layer."""
    params = layer.functional()[1]
    return list(params.layers) if layer.spec.num_layers > 1 else [params]


def _many(step: Step, x: np.ndarray) -> None:
    """So many calls that the clock, and what a benchmark does around a call, do not count."""
    for _ in range(CALLS):
        step(x)


def _us(ms: float) -> float:
    """Microseconds of a call."""
    return _digits(1e3 * ms / CALLS)


def _digits(number: float) -> float:
    return float(f"{number:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.splitlines()[0])
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
        timing.write("streaming", found, table=markdown)


if __name__ == "__main__":
    main()
