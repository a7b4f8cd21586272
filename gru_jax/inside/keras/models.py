"""Whole models: Keras' recurrent layers turned into ours where they stand, and made ours from the start."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import keras

from gru_jax import checks
from gru_jax.inside.keras.gru import GRU
from gru_jax.inside.keras.lstm import LSTM

Model = TypeVar("Model", bound=keras.Layer)

_COMPILED = ("train_function", "test_function", "predict_function")
_OURS: dict[type, type] = {keras.layers.GRU: GRU, keras.layers.LSTM: LSTM}
_making = threading.Lock()
_inside = 0


def accelerate(model: Model) -> Model:
    """Turns every `keras.layers.GRU` and `LSTM` of a model into that of `gru_jax.inside.keras`, where it stands.

    Only the class of the layers changes. They stay the same objects, so weights, the optimizer's state, compilation,
    shared layers and your own references to them stay too. Layers are found in Sequential, functional and subclassed
    models, in lists and dicts that Keras tracks, inside of Bidirectional, TimeDistributed and other models. Classes of
    your own that derive from them stay as they are.

    A model that is saved afterwards names the class of this package; `unaccelerate` takes that back.

    Args:
      model: a Keras model, or a layer. Of nested models the outermost one, which may hold a compiled step of the rest.

    Returns:
      The same model.

    Raises:
      TypeError: when model is no layer of Keras.
      ValueError: when there is no such layer in it.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import accelerate
      >>> model = keras.Sequential([keras.layers.Bidirectional(keras.layers.GRU(4)), keras.layers.Dense(1)])
      >>> type(accelerate(model).layers[0].forward_layer).__module__
      'gru_jax.inside.keras.gru'
    """
    return _turned("accelerate", model, "keras.layers", _OURS)


def unaccelerate(model: Model) -> Model:
    """Turns the layers of `gru_jax.inside.keras` in a model back into Keras' own: the inverse of `accelerate`.

    A file that is saved then can be loaded where this package is not.

    Args:
      model: a Keras model, or a layer.

    Returns:
      The same model.

    Raises:
      TypeError: when model is no layer of Keras.
      ValueError: when there is no layer of either's in it.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import GRU, unaccelerate
      >>> type(unaccelerate(keras.Sequential([GRU(4)])).layers[0]) is keras.layers.GRU
      True
    """
    return _turned("unaccelerate", model, "gru_jax.inside.keras", {ours: theirs for theirs, ours in _OURS.items()})


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Inside, every `keras.layers.GRU` and `LSTM` that is made is one of `gru_jax.inside.keras`, and stays one.

    Made by whom does not matter: code that imports `keras.layers.GRU`, `Bidirectional`, `clone_model`, or `load_model`
    of a file that was saved with Keras' own layer. Layers that are there already are turned by `accelerate`.

    Returns:
      A context manager; it counts for all threads.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import GRU, accelerated
      >>> with accelerated():
      ...     layer = keras.layers.GRU(4)
      >>> isinstance(layer, GRU), isinstance(keras.layers.GRU(4), GRU)
      (True, False)
    """
    global _inside
    with _making:
        _inside += 1
        for theirs in _OURS:
            theirs.__new__ = staticmethod(_made)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        with _making:
            _inside -= 1
            for theirs in () if _inside else _OURS:
                del theirs.__new__


def _made(cls: Any, *args: Any, **kwargs: Any) -> Any:
    # What Python calls __init__ on is the object that comes out, of whichever subclass it is.
    return keras.Layer.__new__(_OURS.get(cls, cls), *args, **kwargs)


def _turned(who: str, model: Model, home: str, turns: dict[type, type]) -> Model:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"{who}: model must be a Keras model or layer; got {checks.described(model)}")
    layers = model._flatten_layers()
    if not any(type(layer) in (*turns, *turns.values()) for layer in layers):
        raise ValueError(
            f"{who}: there is no GRU or LSTM of {home} in {model.name!r}; got {len(layers)} layers of other kinds; a"
            f" model that makes its layers in build() has to be built, or called, before"
        )
    for layer in layers:
        if type(layer) in turns:
            # Not by Keras' __setattr__, which looks for state to track.
            object.__setattr__(layer, "__class__", turns[type(layer)])
        if isinstance(layer, keras.Model):
            for name in _COMPILED:  # made again, of the layers as they are now, at the next fit, evaluate or predict
                setattr(layer, name, None)
    return model
