"""The sections `model: {kind: lstm}` and `{kind: tanh}`: flax's own cells, to compare with."""

from typing import Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from gru_jax.config.sections.models.recurrent import RecurrentModel
from gru_jax.models import LSTM, TanhRNN
from gru_jax.types import Plain


class LSTMModel(RecurrentModel):
    """A stack of LSTM layers; `forget_bias` is added to the forget gate's bias of 0 before the first step.

    With `peepholes` each gate sees its own unit's memory.
    """

    of = LSTM
    kind: Literal["lstm"]
    forget_bias: float = 0.0
    peepholes: bool = False

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Plain]:
        # Without them the key is left out, so that runs from before there were any keep their hash.
        written = write(self)
        if not self.peepholes:
            del written["peepholes"]
        return written


class TanhModel(RecurrentModel):
    """A stack of layers of the simplest recurrent cell, `tanh(x w_x + b + h w_h)`."""

    of = TanhRNN
    kind: Literal["tanh"]
