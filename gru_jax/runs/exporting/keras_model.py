"""A whole network as a functional model of Keras, in its own file format."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import jax
import numpy as np

from gru_jax.between import EPSILON
from gru_jax.runs.exit_codes import MISSING
from gru_jax.runs.exporting.network import ExportError, NetworkLayer, Recurrence, check_directions, refuse
from gru_jax.runs.exporting.request import Request
from gru_jax.types import Activation, Options

KerasModel: TypeAlias = Any
"""A model or a layer of Keras, which ships no types."""

KerasTensor: TypeAlias = Any
"""A symbolic tensor of Keras."""

LAYERS: dict[str, tuple[str, tuple[int, ...], Options]] = {
    "gru": ("GRU", (1, 0, 2), {"reset_after": True}),
    "gru, reset before": ("GRU", (1, 0, 2), {"reset_after": False}),
    "lstm": ("LSTM", (0, 1, 3, 2), {}),
    "tanh rnn": ("SimpleRNN", (0,), {}),
}
"""The layer of each kind, its gates in our order, and what else it is told."""

MERGES = {"mean": "ave"}
"""The merges that Keras calls otherwise."""


def files(request: Request) -> Mapping[str, bytes]:
    """The model as a `.keras` file."""
    with _keras() as keras, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _model(keras, request).save(path)
        return {"": path.read_bytes()}


def outputs(made: Mapping[str, bytes], request: Request, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What Keras makes of sequences with the model that it read from the file."""
    with _keras() as keras, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(made[""])
        model = keras.models.load_model(path)
        given = x if lengths is None else [x, np.arange(x.shape[1]) < lengths[:, None]]
        return keras.ops.convert_to_numpy(model(given))


@contextlib.contextmanager
def _keras() -> Iterator[ModuleType]:
    """Keras on the backend that is set, where none is on jax, and with jax's settings that it needs."""
    before = dict(os.environ)
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")  # of Keras and its backends about each other
        os.environ.setdefault("KERAS_BACKEND", "jax")
        try:
            import keras
        except ImportError as error:
            if error.name == "keras":
                raise
            fix = "set KERAS_BACKEND=jax, or install the other"
            raise ExportError(f"export: Keras finds no backend: {error}; {fix}", exit_code=MISSING) from error
        finally:
            if "KERAS_BACKEND" not in before:
                del os.environ["KERAS_BACKEND"]
        yield keras


def _model(keras: ModuleType, request: Request) -> KerasModel:
    network, layers = request.network, keras.layers
    numbers = network.vocabulary is None
    shape, dtype = ((None, network.features), "float32") if numbers else ((None,), "int32")
    x = y = keras.Input(shape, dtype=dtype, name="x")
    mask = keras.Input((None,), dtype="bool", name="mask") if request.lengths else None
    if request.scaling is not None:
        y = (y - request.scaling.mean) / request.scaling.deviation
    if network.embedding is not None:
        embedding = layers.Embedding(*network.embedding.shape, name="embedding")
        y = embedding(y)
        embedding.set_weights([network.embedding])
    elif not numbers:
        y = keras.ops.one_hot(y, network.vocabulary)
    for index, layer in enumerate(network.layers):
        above = network.steps != "last" or index < len(network.layers) - 1
        # Of two directions the final states are read, whatever follows them; of one, what does follow.
        whole = above or (len(layer.directions) == 1 and not layer.plain)
        rnn = _layer(keras, index, layer, whole)
        after = rnn(y, mask=mask)
        rnn.set_weights([array for one in layer.directions for array in _weights(one)])
        y = _followed(keras, index, layer, after, y) if whole else after
        if whole and not above:
            y = _at_the_end(keras, y, mask)
    if network.steps == "mean":
        y = layers.GlobalAveragePooling1D(name="pool")(y, mask=mask)
    head = layers.Dense(network.b.size, activation=network.activation, name="head")
    y = head(y)
    head.set_weights([network.w, network.b])
    return keras.Model(x if mask is None else [x, mask], y, name="gru_jax")


def _layer(keras: ModuleType, index: int, layer: NetworkLayer, whole: bool) -> KerasModel:
    """The layer of Keras without its weights; `whole`: it puts out all steps."""
    check_directions("keras", layer)
    one = layer.directions[0]
    name, _, options = LAYERS[one.kind]
    options = {"activation": _named(one.candidate), "return_sequences": whole, "name": f"rnn_{index}", **options}
    if one.kind != "tanh rnn":
        options["recurrent_activation"] = _named(one.gate)
    rnn = getattr(keras.layers, name)(one.units, **options)
    if len(layer.directions) == 1:
        return rnn
    # Final states stand side by side, however the outputs of all steps are joined.
    merge = MERGES.get(layer.merge, layer.merge) if whole else "concat"
    return keras.layers.Bidirectional(rnn, merge_mode=merge, name=f"both_{index}")


def _followed(keras: ModuleType, index: int, layer: NetworkLayer, y: KerasTensor, x: KerasTensor) -> KerasTensor:
    """What follows a layer, `norm(y) + x`, the parts that there are."""
    if layer.norm is not None and layer.scale is not None:
        name = {"layer": "LayerNormalization", "rms": "RMSNormalization"}[layer.norm]
        norm = getattr(keras.layers, name)(epsilon=EPSILON, name=f"norm_{index}")
        y = norm(y)
        norm.set_weights([array for array in layer.scale if array is not None])
    return keras.layers.Add(name=f"sum_{index}")([y, x]) if layer.residual else y


def _at_the_end(keras: ModuleType, y: KerasTensor, mask: KerasTensor | None) -> KerasTensor:
    """y `[B, T, F]` at each sequence's last step, `[B, F]`."""
    if mask is None:
        return y[:, -1]
    last = keras.ops.sum(keras.ops.cast(mask, "int32"), axis=1) - 1
    return keras.ops.squeeze(keras.ops.take_along_axis(y, last[:, None, None], axis=1), axis=1)


def _named(activation: Activation) -> str:
    if not isinstance(activation, str):
        raise refuse("keras", f"name for the activation {activation!r}", "no other")
    return activation


def _weights(one: Recurrence) -> list[np.ndarray]:
    """As `set_weights` takes them; two biases only where the reset gate stands between them."""
    moved = one.ordered(LAYERS[one.kind][1])
    bias = np.stack([moved.b_x, moved.b_h]) if one.kind == "gru" else moved.b_x + moved.b_h
    return [moved.w_x, moved.w_h, bias]
