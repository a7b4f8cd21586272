"""The sections `model: {kind: gru}` and `{kind: mgu}`."""

from typing import Literal

from pydantic import model_validator

from gru_jax.cells import GRU, MGU
from gru_jax.config.sections.base import Fraction, Width, broken_rule
from gru_jax.config.sections.models.recurrent import Activation, RecurrentModel


class GRUModel(RecurrentModel):
    """A stack of GRU layers; `heads` equal to `hidden` makes their recurrent matrices diagonal."""

    of = GRU
    kind: Literal["gru"]
    reset: Literal["after", "before"] = "after"
    bias: Literal["full", "minimal", "none"] = "full"
    heads: Width = 1
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    init: Literal["flax", "keras", "torch"] = "flax"
    recurrent_dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "GRUModel":
        if self.hidden % self.heads:
            raise broken_rule("heads", f"{self.heads} heads do not divide hidden, {self.hidden}, evenly")
        return self


class MGUModel(RecurrentModel):
    """A stack of layers of minimal gated units, with one gate that forgets and, with `reset_gate`, resets."""

    of = MGU
    kind: Literal["mgu"]
    reset_gate: bool = True
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    recurrent_dropout: Fraction = 0.0
