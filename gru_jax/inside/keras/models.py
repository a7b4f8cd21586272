"""Whole models: Keras' GRU layers turned into ours where they stand, and made ours from the start."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import keras

from gru_jax import checks
from gru_jax.inside.keras.gru import GRU

Model = TypeVar("Model", bound=keras.Layer)

_COMPILED = ("train_function", "test_function", "predict_function")
_making = threading.Lock()
_inside = 0


def accelerate(model: Model) -> Model:
    """Turns every `keras.layers.GRU` of a model into a `gru_jax.inside.keras.GRU`, where it stands.

    Only the class of the layers changes. They stay the same objects, so weights, the optimizer's state, compilation,
    shared layers and your own references to them stay too. Layers are found in Sequential, functional and subclassed
    models, in lists and dicts that Keras tracks, inside of Bidirectional, TimeDistributed and other models. Classes of
    your own that derive from `keras.layers.GRU` stay as they are.

    A model that is saved afterwards names the class of this package; `unaccelerate` takes that back.

    Args:
      model: a Keras model, or a layer. Of nested models the outermost one, which may hold a compiled step of the rest.

    Returns:
      The same model.

    Raises:
      TypeError: when model is no layer of Keras.
      ValueError: when there is no `keras.layers.GRU` in it.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import accelerate
      >>> model = keras.Sequential([keras.layers.Bidirectional(keras.layers.GRU(4)), keras.layers.Dense(1)])
      >>> type(accelerate(model).layers[0].forward_layer).__module__
      'gru_jax.inside.keras.gru'
    """
    return _turned("accelerate", model, keras.layers.GRU, GRU)


def unaccelerate(model: Model) -> Model:
    """Turns every `gru_jax.inside.keras.GRU` of a model back into a `keras.layers.GRU`: the inverse of `accelerate`.

    A file that is saved then can be loaded where this package is not.

    Args:
      model: a Keras model, or a layer.

    Returns:
      The same model.

    Raises:
      TypeError: when model is no layer of Keras.
      ValueError: when there is no GRU of either class in it.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import GRU, unaccelerate
      >>> type(unaccelerate(keras.Sequential([GRU(4)])).layers[0]) is keras.layers.GRU
      True
    """
    return _turned("unaccelerate", model, GRU, keras.layers.GRU)


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Inside, every `keras.layers.GRU` that is made is a `gru_jax.inside.keras.GRU`, and stays one afterwards.

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
    theirs = keras.layers.GRU
    with _making:
        _inside += 1
        theirs.__new__ = staticmethod(_made)
    try:
        yield
    finally:
        with _making:
            _inside -= 1
            if not _inside:
                del theirs.__new__


def _made(cls: Any, *args: Any, **kwargs: Any) -> Any:
    # What Python calls __init__ on is the object that comes out, of whichever subclass it is.
    return keras.Layer.__new__(GRU if cls is keras.layers.GRU else cls, *args, **kwargs)


def _turned(who: str, model: Model, before: Any, after: Any) -> Model:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"{who}: model must be a Keras model or layer; got {checks.described(model)}")
    layers = model._flatten_layers()
    if not any(type(layer) in (before, after) for layer in layers):
        name = "keras.layers.GRU" if after is GRU else "gru_jax.inside.keras.GRU"
        raise ValueError(
            f"{who}: there is no {name} in {model.name!r}; got {len(layers)} layers of other kinds; a model that makes"
            f" its layers in build() has to be built, or called, before"
        )
    for layer in layers:
        if type(layer) is before:
            # Not by Keras' __setattr__, which looks for state to track.
            object.__setattr__(layer, "__class__", after)
        if isinstance(layer, keras.Model):
            for name in _COMPILED:  # made again, of the layers as they are now, at the next fit, evaluate or predict
                setattr(layer, name, None)
    return model
