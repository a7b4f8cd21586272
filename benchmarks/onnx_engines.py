"""Which engines compute an exported ONNX file as the layer does.

    pip install openvino onnxruntime onnx pnnx ncnn tract tinygrad onnx2torch torch
    python -m benchmarks.onnx_engines

Layers with random weights are exported with every kind of option, with open batch and time axes, and run in every
engine. The table says how far y and h_n are from the layer's. `EXPECTED` is what was seen with the versions in
`VERSIONS`; the command ends with 1 when a row is another.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gru_jax as gj

BATCH, STEPS, FEATURES, UNITS = 3, 7, 3, 4
RIGHT = 1e-5

Engine = Callable[[Path, dict[str, np.ndarray]], list[np.ndarray]]
Given = dict[str, np.ndarray]


class RefusedError(Exception):
    """An engine says that it cannot run a file."""


# Options of the layer, and of export; "dropout" because a net is exported without.
ROWS: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "plain": ({}, {}),
    "two layers, both directions": ({"num_layers": 2, "bidirectional": True, "dropout": 0.5}, {}),
    "time-major, h0": ({"time_major": True, "num_layers": 2}, {"h0": True}),
    "no bias": ({"bias": "none"}, {}),
    "minimal bias, residual, norm": ({"bias": "minimal", "num_layers": 2, "residual": True, "norm": "layer"}, {}),
    "rms": ({"norm": "rms", "num_layers": 2}, {}),
    "reverse": ({"reverse": True}, {}),
    "reset before": ({"reset": "before"}, {}),
    "relu": ({"activation": "relu"}, {}),
    "hard_sigmoid": ({"gate_activation": "hard_sigmoid"}, {}),
    "clip": ({name: gj.interop.onnx.Activation(kind, clip=0.5) for name, kind in (
        ("activation", "Tanh"), ("gate_activation", "Sigmoid"))}, {}),
    "lengths": ({}, {"lengths": True}),
    "lengths, both directions, h0": ({"num_layers": 2, "bidirectional": True}, {"lengths": True, "h0": True}),
    "lengths, reverse, reset before": ({"reverse": True, "reset": "before"}, {"lengths": True}),
    "lengths, hold": ({"padding": "hold", "bidirectional": True}, {"lengths": True}),
    "lengths, sum, time-major": ({"merge": "sum", "bidirectional": True, "time_major": True}, {"lengths": True}),
    "sequence_lens": ({}, {"lengths": True, "sequence_lens": True}),
    "sequence_lens, both directions": ({"bidirectional": True}, {"lengths": True, "sequence_lens": True}),
}


def layer_of(options: dict[str, Any], seed: int = 0) -> gj.nnx.GRU:
    """A layer with random numbers in every parameter: fresh biases are zeros, which hide faults."""
    rngs = nnx.Rngs(seed)
    layer = gj.nnx.GRU(FEATURES, UNITS, rngs=rngs, **options)
    layer.eval()
    rng = np.random.default_rng(seed)
    state = nnx.state(layer, nnx.Param)
    drawn = jax.tree.map(lambda p: jnp.asarray(0.6 * rng.normal(size=p.shape), p.dtype), state)
    nnx.update(layer, drawn)
    return layer


def given_to(layer: gj.nnx.GRU, takes: dict[str, bool], batch: int, seed: int = 1) -> Given:
    """The inputs of one run."""
    rng = np.random.default_rng(seed)
    lead = (STEPS, batch) if layer.spec.time_major else (batch, STEPS)
    rows = layer.spec.num_layers * (1 + layer.spec.bidirectional)
    found = {"x": rng.normal(size=(*lead, FEATURES)).astype(np.float32)}
    if takes.get("h0"):
        found["h0"] = rng.normal(size=(rows, batch, UNITS)).astype(np.float32)
    if takes.get("lengths"):
        found["lengths"] = np.array([STEPS, 0, 3][:batch], np.int32)
    return found


def expected(layer: gj.nnx.GRU, given: Given) -> list[np.ndarray]:
    """What the layer computes: y, and h_n as `[L*D, B, H]`."""
    h0: Any = None
    if "h0" in given:
        each = [jnp.asarray(h) for h in given["h0"]]
        pairs = zip(each[::2], each[1::2], strict=True)
        h0 = tuple(pairs) if layer.spec.bidirectional else tuple(each)
    lengths = jnp.asarray(given["lengths"]) if "lengths" in given else None
    y, h_n = layer(jnp.asarray(given["x"]), h0, lengths=lengths)
    return [np.asarray(y), np.stack([np.asarray(h) for h in jax.tree.leaves(h_n)])]


def onnxruntime(path: Path, given: Given) -> list[np.ndarray]:
    """onnxruntime on the CPU."""
    import onnxruntime as ort

    return list(ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["y", "h_n"], given))


def openvino(path: Path, given: Given) -> list[np.ndarray]:
    """OpenVINO on the CPU, its axes open."""
    import openvino as ov

    core = ov.Core()
    try:
        compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise RefusedError(str(error).strip().splitlines()[-1]) from error
    result = compiled(given)
    return [result[name] for name in ("y", "h_n")]


def reference(path: Path, given: Given) -> list[np.ndarray]:
    """onnx's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(str(path)).run(["y", "h_n"], given))


def ncnn(path: Path, given: Given) -> list[np.ndarray]:
    """ncnn by pnnx, which fixes the shape; ncnn has no batch axis."""
    import ncnn as package

    shapes = ",".join("[" + ",".join(map(str, value.shape)) + "]" for value in given.values())
    tool = Path(sys.executable).with_name("pnnx")
    command = [str(tool), path.name, f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=300)
    param = path.with_name(f"{path.stem}.ncnn.param")
    if done.returncode or not param.is_file():
        raise RefusedError(f"pnnx ends with {done.returncode}")
    net = package.Net()
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RefusedError("ncnn does not load it")
    extractor = net.create_extractor()
    for place, (name, value) in enumerate(given.items()):
        one = value.squeeze({"x": value.shape.index(1), "h0": 1}[name])
        extractor.input(f"in{place}", package.Mat(np.ascontiguousarray(one)).clone())
    found = []
    for place in range(2):
        code, mat = extractor.extract(f"out{place}")
        if code:
            raise RefusedError(f"ncnn ends with {code}")
        found.append(np.array(mat))
    return found


def tract(path: Path, given: Given) -> list[np.ndarray]:
    """Sonos' tract, its axes open."""
    import tract as package

    try:
        model = package.onnx().load(str(path)).into_model().into_runnable()
        return [found.to_numpy() for found in model.run(list(given.values()))]
    except package.TractError as error:
        raise RefusedError(str(error).strip().splitlines()[0]) from error


ENGINES: dict[str, Engine] = {
    "onnxruntime": onnxruntime, "openvino": openvino, "ncnn": ncnn, "onnx": reference, "tract": tract
}  # fmt: skip
WITHOUT = {"tinygrad": "nn/onnx.py", "onnx2torch": "node_converters"}
"""Packages whose sources, there, have no GRU."""

VERSIONS = (
    "onnxruntime 1.32.0, openvino 2026.4.1, ncnn 1.0.20261020, onnx 1.23.2, tract 0.23.9, tinygrad 0.14.0,"
    " onnx2torch 1.5.15"
)

# A letter for each engine of ENGINES: right, wrong, refused, or - for what is not run: ncnn has no lengths.
EXPECTED = {
    "plain": "rrrrr",
    "two layers, both directions": "rrrrr",
    "time-major, h0": "rrrrr",
    "no bias": "rrrrr",
    "minimal bias, residual, norm": "rrrrr",
    "rms": "rrwrr",
    "reverse": "rrxrw",
    "reset before": "rrwrr",
    "relu": "rrxww",
    "hard_sigmoid": "rxxww",
    "clip": "rrwww",
    "lengths": "rr-rx",
    "lengths, both directions, h0": "rr-rx",
    "lengths, reverse, reset before": "rr-rx",
    "lengths, hold": "rr-rx",
    "lengths, sum, time-major": "rr-rx",
    "sequence_lens": "rw-wx",
    "sequence_lens, both directions": "rr-wx",
}


def difference(engine: Engine, path: Path, given: Given, wanted: list[np.ndarray]) -> float | str:
    """The largest difference of y and h_n; "refused" when the engine says that it cannot, "shape" for another one."""
    try:
        found = engine(path, given)
    except RefusedError:
        return "refused"
    sizes = [(one.size, other.size) for one, other in zip(found, wanted, strict=True)]
    if any(one != other for one, other in sizes):
        return "shape"
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(one.reshape(other.shape) - other).max()) for one, other in pairs)


def verdict(found: float | str) -> str:
    """The letter of `EXPECTED`."""
    if isinstance(found, str):
        return {"shape": "w", "refused": "x"}.get(found, "-")
    return "r" if found <= RIGHT else "w"


def row_of(name: str, folder: Path) -> list[float | str]:
    """The difference of one row in every engine; ncnn runs one sequence, without lengths."""
    options, takes = ROWS[name]
    layer = layer_of(options)
    row: list[float | str] = []
    for engine, run in ENGINES.items():
        if engine == "ncnn" and takes.get("lengths"):
            row.append("not run")
            continue
        place = folder / name.replace(",", "").replace(" ", "_").replace("-", "_") / engine
        place.mkdir(parents=True)
        path = gj.interop.onnx.export(layer, place / "gru.onnx", **takes)
        given = given_to(layer, takes, 1 if engine == "ncnn" else BATCH)
        row.append(difference(run, path, given, expected(layer, given)))
    return row


def has_gru(package: str, part: str) -> bool:
    """Whether the word GRU stands in a package's sources."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed")
    place = Path(found.origin).parent / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return any(re.search(r"\bGRU\b", file.read_text()) for file in files)


def main() -> int:
    """Prints the table; 1 when a row is another than `EXPECTED`."""
    print("|", "layer", "|", " | ".join(ENGINES), "|")
    changed = []
    with tempfile.TemporaryDirectory() as folder:
        for name, wanted in EXPECTED.items():
            row = row_of(name, Path(folder))
            shown = [one if isinstance(one, str) else f"{one:.1e}" for one in row]
            print("|", name, "|", " | ".join(shown), "|", flush=True)
            if "".join(map(verdict, row)) != wanted:
                changed.append(name)
    for package, part in WITHOUT.items():
        if has_gru(package, part):
            changed.append(package)
    print(f"another result than with {VERSIONS}: {', '.join(changed)}" if changed else f"as with {VERSIONS}")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
