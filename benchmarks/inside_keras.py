"""Keras: an epoch of `model.fit`, and `model.predict`, with Keras' layers and with ours in their place."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import agreement, timing
from benchmarks.inside_rows import row
from benchmarks.layer_shapes import Shape

SHAPES = (Shape(90, 32, 64, 112), Shape(200, 16, 64, 128))
QUICK = (Shape(4, 2, 3, 2),)
BATCHES = 20
"""Of B sequences, in an epoch."""
BOUND = 5e-6
"""How far the losses of two epochs may be apart, in parts of the larger."""


def cases(keras: Any) -> dict[str, dict[str, Any]]:
    """Models of Embedding, GRU or LSTM, and Dense: options of the layers."""
    return {
        "plain": {},
        "masked": {"mask_zero": True},
        "two directions": {"wrap": keras.layers.Bidirectional},
        "reset before": {"reset_after": False},
        "backwards": {"go_backwards": True},
        "dropout": {"dropout": 0.2},
        "LSTM": {"layer": keras.layers.LSTM},
    }


@functools.cache
def data(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Words of sequences that end in zeros, and a number for each sequence."""
    drawn = np.random.default_rng(0)
    count = BATCHES * shape.B
    words = drawn.integers(1, 1000, (count, shape.T))
    words[np.arange(shape.T) >= drawn.integers(shape.T // 2, shape.T + 1, (count, 1))] = 0
    return words, drawn.normal(size=(count, 1)).astype("float32")


def model(shape: Shape, *, layer: Any = None, mask_zero: bool = False, wrap: Any = None, **options: Any) -> Any:
    """The model with Keras' own layer, compiled."""
    import keras

    keras.utils.set_random_seed(0)
    rnn = (layer or keras.layers.GRU)(shape.H, **options)
    layers = [
        keras.Input((shape.T,)),
        keras.layers.Embedding(1000, shape.I, mask_zero=mask_zero),
        rnn if wrap is None else wrap(rnn),
        keras.layers.Dense(1),
    ]
    made = keras.Sequential(layers)
    made.compile("adam", "mse")
    return made


def fit(model: Any, shape: Shape, epochs: int = 1) -> list[float]:
    """The losses of epochs in the same order."""
    return model.fit(*data(shape), batch_size=shape.B, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def predict(model: Any, shape: Shape) -> np.ndarray:
    """One number for each sequence."""
    return model.predict(data(shape)[0], batch_size=shape.B, verbose=0)


def compared(ours: Any, theirs: Any, shape: Shape, who: str) -> float:
    """How far losses of training are apart; raises Disagreement where that is more than rounding."""
    off = agreement.distance(np.array(fit(theirs, shape, 2)), np.array(fit(ours, shape, 2)))
    if not off <= BOUND:
        raise agreement.Disagreement(
            f"{who}: losses are off by {off:.2g}, more than the {BOUND:g} that rounding explains; the times would say"
            f" nothing"
        )
    return off


def rows(quick: bool, budget_s: float) -> Iterator[dict[str, Any]]:
    """A row for each shape, case and kind."""
    import keras

    from gru_jax.inside.keras import accelerate

    for shape in QUICK if quick else SHAPES:
        for case, options in cases(keras).items():
            ours, theirs = accelerate(model(shape, **options)), model(shape, **options)
            off = compared(ours, theirs, shape, f"keras, {case}, T,B,I,H = {shape}")
            for kind, run in {"fit": fit, "predict": predict}.items():
                steps = [functools.partial(run, one, shape) for one in (ours, theirs)]
                for step in steps:
                    step()
                yield row("keras", kind, case, shape, off, timing.side_by_side(*steps, budget_s)) | {"batches": BATCHES}
            jax.clear_caches()
