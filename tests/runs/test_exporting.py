"""Files of other frameworks, opened as their users do, against the models that they were made of."""

import ast
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

import gru_jax as gj
from gru_jax.config.config import Config
from gru_jax.data.dataset import DataMissing, Dataset, Split
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.data.series.table import Reading
from gru_jax.runs.exporting import ExportError, export, of_run, onnx_graph, read_safetensors
from gru_jax.runs.exporting.network import takes
from gru_jax.runs.exporting.of_run import plain
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.training.experiment import build

from ..interop import keras_oracle

ROWS = {"kind": "digits", "view": "rows"}
COPYING = {"kind": "copying", "blank": 5, "symbols": 3}


def of_config(task: dict[str, Any], **model: Any) -> Any:
    """The model of a config, as `gru-jax export` writes it."""
    values = {"schema": 1, "name": "tiny", "task": task, "model": {"hidden": 4, **model}}
    return plain(Config.model_validate(values))


def params_of(model: Any) -> Any:
    """Random numbers in every parameter, biases and norms included."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda p: jnp.asarray(0.6 * draw.normal(size=p.shape), p.dtype), shapes)


MODELS: dict[str, Callable[[], Any]] = {
    "two directions": lambda: of_config(ROWS, kind="gru", layers=2, bidirectional=True),
    "tags of tokens": lambda: of_config(COPYING, kind="gru", embedding=3, bias="minimal"),
    "one-hot": lambda: of_config(COPYING, kind="gru", bidirectional=True, merge="mean", layers=2),
    "tied": lambda: gj.models.sequence_model(gj.recurrent(gj.GRU(4)), 5, 4, tied=True),
    "lstm, mean": lambda: of_config(ROWS, kind="lstm", pool="mean"),
    "lstm, two directions": lambda: of_config(ROWS, kind="lstm", bidirectional=True, forget_bias=1.0),
    "peepholes": lambda: of_config(ROWS, kind="lstm", peepholes=True, layers=2, bidirectional=True),
    "tanh": lambda: of_config(ROWS, kind="tanh", layers=2, merge="concat"),
    "probabilities": lambda: gj.models.readout(gj.recurrent(gj.GRU(4)), 3, 2, activation="softmax", steps="mean"),
    "norms and sums": lambda: of_config(ROWS, kind="gru", hidden=8, layers=2, norm="layer", residual=True),
    "rms over both": lambda: of_config(
        ROWS, kind="gru", hidden=16, layers=2, norm="rms", residual=True, bidirectional=True, merge="sum", pool="mean"
    ),
    "relu, reset before": lambda: of_config(ROWS, kind="gru", reset="before", activation="relu", bias="none"),
    "unlike directions": lambda: gj.models.readout(
        gj.bidirectional(gj.recurrent(gj.GRU(4)), gj.recurrent(gj.models.LSTM(3))), 3, 2
    ),
    "mgu": lambda: of_config(ROWS, kind="mgu", layers=2, bidirectional=True),
    "min_gru": lambda: of_config(ROWS, kind="min_gru", layers=2, bidirectional=True),
    "blocks of heads": lambda: of_config(ROWS, kind="gru", heads=2),
    "Newton's method": lambda: of_config(ROWS, kind="gru", method={"kind": "newton"}),
    "convolutions": lambda: plain(
        Config.model_validate(
            {"schema": 1, "name": "tiny", "task": COPYING, "model": {"kind": "min_blocks", "width": 4, "layers": 2}}
        )
    ),
}


def by_onnxruntime(path: Path, model: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x} if lengths is None else {"x": x, "lengths": lengths})[0]


def by_torch(path: Path, model: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("theirs", path.with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.no_grad():
        return module.load(path)(torch.tensor(x), None if lengths is None else torch.tensor(lengths)).numpy()


def by_keras(path: Path, model: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    keras = keras_oracle.keras()
    with keras_oracle.theirs():
        given = x if lengths is None else [x, np.arange(x.shape[1]) < lengths[:, None]]
        return np.asarray(keras.models.load_model(path)(given))


def by_jax(path: Path, model: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    content = path.read_bytes()
    assert str(Path(gj.__file__).parent).encode() not in content
    read = jax_export.deserialize(bytearray(content))
    return np.asarray(read.call(x) if lengths is None else read.call(x, lengths))


def by_names(path: Path, model: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    _, params = read_safetensors(path, model)
    return np.asarray(model.apply(params, jnp.asarray(x), lengths=lengths, deterministic=True))


OPENED = {
    "model.onnx": ("onnx", by_onnxruntime),
    "model.pt": ("torch", by_torch),
    "model.keras": ("keras", by_keras),
    "model.stablehlo": ("stablehlo", by_jax),
    "model.safetensors": ("safetensors", by_names),
}
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "torch": ("torch",), "keras": ("keras",), "safetensors": ("safetensors",)}
QUICK = {
    # A model, a file, lengths: one row for each reason; the others are slow.
    ("two directions", "model.onnx", True),
    ("tags of tokens", "model.onnx", False),
    ("lstm, mean", "model.onnx", True),
    ("two directions", "model.pt", True),
    ("probabilities", "model.keras", True),
    ("two directions", "model.safetensors", True),
    ("Newton's method", "model.stablehlo", True),
}
NOT = {
    "convolutions": ("model.onnx", "model.pt", "model.keras"),
    "blocks of heads": ("model.pt", "model.keras"),
    "unlike directions": ("model.pt", "model.keras"),
    "peepholes": ("model.pt", "model.keras"),
    "mgu": ("model.pt", "model.keras"),
    "min_gru": ("model.pt", "model.keras"),
    "relu, reset before": ("model.pt",),
}
TABLE = [
    pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow, id=" ".join(map(str, row)))
    for row in ((name, file, lengths) for name in MODELS for file in OPENED for lengths in (False, True))
    # What knows nothing of a network's parts needs no row for each of them without lengths too.
    if row[1] not in NOT.get(row[0], ()) and (row[2] or row[1] not in ("model.stablehlo", "model.safetensors"))
]


@keras_oracle.QUIETLY
@pytest.mark.parametrize(("name", "file", "lengths"), TABLE)
def test_what_is_written_computes_the_same(name: str, file: str, lengths: bool, tmp_path: Path) -> None:
    to, opened = OPENED[file]
    for package in PACKAGES.get(to, ()):
        keras_oracle.keras() if package == "keras" else pytest.importorskip(package)
    model = MODELS[name]()
    params = params_of(model)
    made = export((model, params), tmp_path / file, to, lengths=lengths)
    assert made.difference < 1e-5 and made.paths[0] == tmp_path / file
    size, tokens = takes(model)
    draw = np.random.default_rng(1)
    # Another batch and another number of steps than those that were compared before it was written.
    x = draw.normal(size=(3, 9, size)).astype(np.float32)
    if tokens:
        x = draw.integers(0, size, (3, 9)).astype(np.int32)
    steps = np.array([9, 4, 1], np.int32) if lengths else None
    apply = jax.jit(lambda p, x, steps: model.apply(p, x, lengths=steps, deterministic=True))
    wanted = np.asarray(apply(params, x, steps))
    got = opened(tmp_path / file, model, x, steps)
    assert got.shape == wanted.shape
    if wanted.ndim == 3 and steps is not None:
        counts = np.arange(9) < steps[:, None]
        wanted, got = wanted[counts], got[counts]
    assert np.abs(wanted).max() > 1e-2
    assert np.abs(got - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@keras_oracle.QUIETLY
@pytest.mark.parametrize("file", [
    pytest.param(file, marks=() if file == "model.pt" else pytest.mark.slow) for file in OPENED
    if file != "model.safetensors"
])  # fmt: skip
def test_numbers_as_they_are_in_the_data(file: str, tmp_path: Path) -> None:
    to, opened = OPENED[file]
    for package in PACKAGES.get(to, ()):
        keras_oracle.keras() if package == "keras" else pytest.importorskip(package)
    # With a sum, x itself comes through; what stands past the lengths must not, though it is scaled too.
    model = gj.models.readout(gj.stack(gj.recurrent(gj.GRU(3)), residual=True), 3, 2, steps="mean")
    params, mean, deviation = params_of(model), np.float32([10, -500, 0]), np.float32([2, 0.5, 3])
    about = {"data": "of a file"}
    made = export((model, params), tmp_path / file, to, lengths=True, scale=(mean, deviation), about=about)
    assert [path.suffix for path in made.paths[1:]] == {"onnx": [], "torch": [".py"]}.get(to, [".json"])
    if made.paths[-1].suffix == ".json":
        assert json.loads(made.paths[-1].read_text())["data"] == "of a file"
    x, steps = np.random.default_rng(1).normal(size=(3, 9, 3)).astype(np.float32), np.array([9, 4, 1], np.int32)
    wanted = model.apply(params, jnp.asarray(x), lengths=steps, deterministic=True)
    got = opened(tmp_path / file, model, x * deviation + mean, steps)
    np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_run_takes_numbers_as_they_are_in_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    values = {"schema": 1, "name": "tiny", "task": ROWS, "model": {"kind": "gru", "hidden": 4}}
    config = Config.model_validate(values)
    model, draw = build(config).model, np.random.default_rng(1)
    params, mean, deviation = params_of(model), np.full(8, 7, np.float32), np.full(8, 0.5, np.float32)
    split = Split(draw.normal(size=(5, 8, 8)).astype(np.float32), np.zeros(5, np.int32))
    data = Dataset(split, split, split, "of a file", "same", scale=(mean, deviation))
    monkeypatch.setattr(type(config.task), "load", lambda *_: data)
    monkeypatch.setattr(of_run, "_best", lambda _: (config, params, "same"))
    wanted, notes = model.apply(params, jnp.asarray(split.x), deterministic=True), list[str]()
    for scaled, x in ((False, np.asarray(split.x) * deviation + mean), (True, np.asarray(split.x))):
        path = tmp_path / f"{scaled}.onnx"
        made = of_run.export_run("out", path, "onnx", scaled=scaled, note=notes.append)
        assert made.what == "test"
        np.testing.assert_allclose(by_onnxruntime(path, model, x, None), wanted, atol=2e-5)
    assert notes == [f"x is {of_run.RAW}", f"x is {of_run.SCALED}"]


OTHER = "'stablehlo' and 'safetensors' alone"
REFUSED: list[tuple[str, str, str]] = [
    ("convolutions", "model.onnx", f"the block of a convolution, a cell and a feed-forward.*{OTHER}"),
    ("relu, reset before", "model.pt", "torch has no GRU with the reset gate before the .*'onnx' and 'keras' can have"),
    ("unlike directions", "model.pt", "torch has no layer whose two directions are of different .*'onnx' can have it"),
    ("peepholes", "model.keras", "keras has no LSTM with peepholes; 'onnx' can have it"),
    ("blocks of heads", "model.keras", "keras has no recurrent matrix of 2 blocks, and .*'onnx' can have it"),
    ("mgu", "model.pt", "torch has no pair of gates that are one, an MGU's, and training there would lose it; 'onnx'"),
]


@pytest.mark.parametrize(("name", "file", "words"), REFUSED)
def test_what_a_format_lacks_is_named(name: str, file: str, words: str, tmp_path: Path) -> None:
    to, _ = OPENED[file]
    for package in PACKAGES.get(to, ()):
        keras_oracle.keras() if package == "keras" else pytest.importorskip(package)
    model = MODELS[name]()
    with pytest.raises(ExportError, match=words):
        export((model, params_of(model)), tmp_path / file, to)
    assert not list(tmp_path.iterdir())


CELLS = {
    "MGU in this form": gj.MGU(4, reset_gate=False),
    "MinGRU in this form": gj.MinGRU(4, form="log"),
    "MinLSTM": gj.MinLSTM(4),
    "GRUD": gj.GRUD(4),
    "DreamerGRU": gj.DreamerGRU(8),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_that_no_other_format_knows(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model = gj.models.readout(gj.recurrent(CELLS[name]), 6, 2)
    with pytest.raises(ExportError, match=f"the cell {name} is known to .*{OTHER}"):
        export((model, params_of(model)), tmp_path / "model.onnx", "onnx")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "model.pt"}, r"a file of onnx ends in \.onnx; got 'model\.pt'"),
    ({"path": "nowhere/model.onnx"}, "there is no folder nowhere"),
    ({"to": "onxx"}, "did you mean 'onnx'"),
    ({"scale": (np.zeros(2), np.ones(2))}, r"the model takes 3 numbers a step; got shapes \(2,\), \(2,\)"),
    ({"platforms": ("gpu",)}, "platforms must be one of 'cuda', 'rocm', 'tpu'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_calls(options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = MODELS["probabilities"]()
    with pytest.raises(ValueError, match=words):
        export((model, params_of(model)), **{"path": "model.onnx", "to": "onnx", **options})
    assert not list(tmp_path.iterdir())


def test_half_precision_and_models_of_ones_own_are_refused(tmp_path: Path) -> None:
    model = MODELS["probabilities"]()
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params_of(model))
    with pytest.raises(ExportError, match="files are written in float32; got parameters in bfloat16"):
        export((model, half), tmp_path / "model.onnx", "onnx")
    own = gj.models.Readout(model.init, model.apply)
    with pytest.raises(ExportError, match=r"needs a model that gj\.models\.readout or"):
        export((own, params_of(model)), tmp_path / "model.onnx", "onnx")


@pytest.mark.parametrize("wrong", [1.0, np.nan])
def test_what_differs_is_not_written(wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    right = onnx_graph.outputs
    monkeypatch.setattr(onnx_graph, "outputs", lambda *given: right(*given) + np.float32(wrong))
    path = tmp_path / "model.onnx"
    path.write_text("before")
    model = MODELS["probabilities"]()
    said = r"what onnx computes differs .*on 8 random sequences; .*was not written"
    with pytest.raises(ExportError, match=said) as refused:
        export((model, params_of(model)), path, "onnx")
    assert refused.value.exit_code == 1
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"] and path.read_text() == "before"


def test_what_the_data_say_goes_along() -> None:
    split = Split(np.zeros((1, 2, 1), np.float32), np.zeros((1, 1), np.float32))
    facts = SeriesFacts(
        names=("load",), values=np.zeros((9, 1)), times=None, scale={"load": (3.5, 0.25)}, period=1, horizon=2,
        quantiles=(0.5,), starts=(np.zeros(1, int),) * 3, trained=5,
    )  # fmt: skip
    scale = np.array([1.5]), np.array([0.5])
    task = SimpleNamespace(missing="gaps", arguments=lambda: {"reading": Reading(("load",), ("hour",), ("time",))})
    about = of_run._of_data(Dataset(split, split, split, "of a file", "", ("no", "yes"), facts, scale=scale), task)
    assert about["data"] == "of a file" and json.loads(about["classes"]) == ["no", "yes"]
    series, said = json.loads(about["series"]), {"horizon": 2, "quantiles": [0.5], "relative": False}
    assert series.items() >= {**said, "names": ["load"], "scale": {"load": [3.5, 0.25]}}.items()
    assert series["outputs"] == {"horizon": 2, "columns": 1, "quantiles": 1}
    assert series["inputs"][0] == {"column": "load", "what": "value", "ahead": 0, "mean": 3.5, "deviation": 0.25}
    words = [(each["column"], each["what"], each.get("of"), each["ahead"]) for each in series["inputs"][1:]]
    beside = [
        ("load", what, "value", 0) if of == "value" else ("hour", what, of, 2)
        for what in ("mask", "time since") for of in ("value", "sine", "cosine")
    ]  # fmt: skip
    assert words == [("hour", "sine", None, 2), ("hour", "cosine", None, 2), *beside]
    assert json.loads(about["scale"]) == {"mean": [1.5], "deviation": [0.5]}


def test_a_run_in_half_precision_whose_data_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    values = {"schema": 1, "name": "tiny", "task": ROWS, "model": {"kind": "gru", "hidden": 4}}
    config = Config.model_validate({**values, "precision": {"params": "bfloat16", "compute": "bfloat16"}})
    model = build(config).model
    params, path, notes = params_of(model), tmp_path / "model.safetensors", list[str]()

    def missing(*_: Any) -> None:
        raise DataMissing("no such file")

    monkeypatch.setattr(type(config.task), "load", missing)
    monkeypatch.setattr(of_run, "_best", lambda _: (config, params, "of other data"))
    made = of_run.export_run("out", path, "safetensors", note=notes.append)
    assert (made.sequences, made.what) == (8, "random")
    first, second = notes
    assert first.endswith(" parameters in bfloat16 and computes in bfloat16; what is written does both in float32")
    said = "compared on random sequences, and with lengths, for no such file; x is taken as the task scales it"
    assert second == said
    _, back = read_safetensors(path)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(back)} == {"bfloat16"}
    monkeypatch.undo()
    monkeypatch.setattr(of_run, "_best", lambda _: (config, params, "of other data"))
    with pytest.raises(RunError, match="the data are not those that out was trained on"):
        of_run.export_run("out", path, "safetensors")


def test_the_source_of_a_module(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model, about = MODELS["probabilities"](), {"data": 'of "x" \\ """ and more'}
    for _ in ("new", "in the place of the older one"):
        export((model, params_of(model)), tmp_path / "model.pt", "torch", about=about)
    source = ast.parse((tmp_path / "model.py").read_text())
    assert f"data: {about['data']}" in (ast.get_docstring(source) or "").splitlines()
    (tmp_path / "model.py").write_text("my = 'own'\n")
    with pytest.raises(ExportError, match=r"model\.py is there, and no export wrote it"):
        export((model, params_of(model)), tmp_path / "model.pt", "torch")
    assert (tmp_path / "model.py").read_text() == "my = 'own'\n"


def test_parameters_of_another_model(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model, path = MODELS["probabilities"](), tmp_path / "model.safetensors"
    export((model, params_of(model)), path, "safetensors", about={"unit": "degrees"})
    with pytest.raises(ExportError, match="holds no config of a run; pass the model"):
        read_safetensors(path)
    with pytest.raises(ExportError, match=r"holds other parameters than the model has: net\.b_h"):
        read_safetensors(path, gj.models.readout(gj.recurrent(gj.GRU(4, bias="minimal")), 3, 2))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ExportError, match=r"is no whole \.safetensors file"):
        read_safetensors(path, model)
