"""The sections `model: {kind: min_gru}` and `{kind: min_lstm}`."""

from typing import TYPE_CHECKING, Literal

from gru_jax.training.architectures.recurrent import RecurrentModel

if TYPE_CHECKING:
    from gru_jax.cells import Cell


class MinGRUModel(RecurrentModel):
    """A stack of minGRU layers, whose gates see the input alone; `form: log` is the paper's."""

    kind: Literal["min_gru"]
    form: Literal["linear", "log"] = "linear"
    bias: bool = True
    init: Literal["flax", "keras", "torch"] = "flax"

    def cell(self) -> "Cell":
        """The minGRU."""
        import gru_jax as gj

        return gj.MinGRU(self.hidden, form=self.form, bias=self.bias, init=self.init)


class MinLSTMModel(RecurrentModel):
    """A stack of minLSTM layers, whose gates see the input alone; `form: log` is the paper's."""

    kind: Literal["min_lstm"]
    form: Literal["linear", "log"] = "linear"
    bias: bool = True
    init: Literal["flax", "keras", "torch"] = "flax"

    def cell(self) -> "Cell":
        """The minLSTM."""
        import gru_jax as gj

        return gj.MinLSTM(self.hidden, form=self.form, bias=self.bias, init=self.init)
