"""Keras' models with our computation inside: Keras' GRU and LSTM, whose steps `gj.scan` runs.

    from gru_jax.inside.keras import GRU, accelerate

    model = keras.Sequential([keras.layers.Embedding(1000, 64), GRU(128), keras.layers.Dense(1)])
    accelerate(model_that_exists)

Keras 3 on its JAX backend.
"""

from gru_jax.inside.keras import backend

backend.check()  # before what derives from Keras' classes

from gru_jax.inside.keras.gru import GRU as GRU  # noqa: E402
from gru_jax.inside.keras.lstm import LSTM as LSTM  # noqa: E402
from gru_jax.inside.keras.models import accelerate as accelerate  # noqa: E402
from gru_jax.inside.keras.models import accelerated as accelerated  # noqa: E402
from gru_jax.inside.keras.models import unaccelerate as unaccelerate  # noqa: E402

__all__ = ["GRU", "LSTM", "accelerate", "accelerated", "unaccelerate"]
