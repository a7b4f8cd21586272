"""The sections `model: {kind: lstm}` and `{kind: tanh}`: flax's own cells, to compare with."""

from typing import TYPE_CHECKING, Literal

from gru_jax.config.sections.models.recurrent import RecurrentModel

if TYPE_CHECKING:
    from gru_jax.cells import Cell


class LSTMModel(RecurrentModel):
    """A stack of LSTM layers; `forget_bias` is added to the forget gate's bias of 0 before the first step."""

    kind: Literal["lstm"]
    forget_bias: float = 0.0

    def cell(self) -> "Cell":
        """Flax's LSTM."""
        import gru_jax as gj

        return gj.models.LSTM(self.hidden, self.forget_bias)


class TanhModel(RecurrentModel):
    """A stack of layers of the simplest recurrent cell, `tanh(x w_x + b + h w_h)`."""

    kind: Literal["tanh"]

    def cell(self) -> "Cell":
        """Flax's SimpleCell."""
        import gru_jax as gj

        return gj.models.TanhRNN(self.hidden)
