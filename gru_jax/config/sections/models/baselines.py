"""The sections `model: {kind: lstm}` and `{kind: tanh}`: flax's own cells, to compare with."""

from typing import Literal

from gru_jax.config.sections.models.recurrent import RecurrentModel
from gru_jax.models import LSTM, TanhRNN


class LSTMModel(RecurrentModel):
    """A stack of LSTM layers; `forget_bias` is added to the forget gate's bias of 0 before the first step."""

    of = LSTM
    kind: Literal["lstm"]
    forget_bias: float = 0.0


class TanhModel(RecurrentModel):
    """A stack of layers of the simplest recurrent cell, `tanh(x w_x + b + h w_h)`."""

    of = TanhRNN
    kind: Literal["tanh"]
