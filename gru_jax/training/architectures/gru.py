"""The section `model: {kind: gru}`."""

from typing import Literal

from jax.sharding import Mesh
from pydantic import model_validator

from gru_jax.data.dataset import TaskShape
from gru_jax.models import Readout, readout
from gru_jax.training.methods import AnyMethod, AutoMethod, NewtonMethod
from gru_jax.training.sections import Fraction, Section, Width, broken_rule

# The names of gru_jax.cells.activations, which a test compares; written out so that they are types.
Activation = Literal[
    "tanh", "sigmoid", "hard_sigmoid", "hard_tanh", "linear", "relu", "relu6", "elu", "selu",
    "gelu", "silu", "softplus", "softsign", "exponential",
]  # fmt: skip


class GRUModel(Section):
    """A stack of GRU layers, the last valid step or the mean over time, and a linear head."""

    kind: Literal["gru"]
    hidden: Width = 64
    layers: Width = 1
    bidirectional: bool = False
    merge: Literal["concat", "sum", "mul", "mean"] = "concat"
    reset: Literal["after", "before"] = "after"
    bias: Literal["full", "minimal", "none"] = "full"
    heads: Width = 1
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    init: Literal["flax", "keras", "torch"] = "flax"
    dropout: Fraction = 0.0
    input_dropout: Fraction = 0.0
    recurrent_dropout: Fraction = 0.0
    residual: bool = False
    norm: Literal["layer", "rms"] | None = None
    pool: Literal["last", "mean"] = "last"
    method: AnyMethod = AutoMethod(kind="auto")

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "GRUModel":
        if self.hidden % self.heads:
            raise broken_rule("heads", f"{self.heads} heads do not divide hidden, {self.hidden}, evenly")
        return self

    @property
    def stochastic(self) -> bool:
        """Whether training draws dropout masks."""
        return max(self.dropout, self.input_dropout, self.recurrent_dropout) > 0

    @property
    def newton(self) -> NewtonMethod | None:
        """The method, if it is Newton's."""
        return self.method if isinstance(self.method, NewtonMethod) else None

    def build(self, task: TaskShape, mesh: Mesh | None = None) -> Readout:
        """The model's pure functions, for sequences of the task's shape; with a mesh, split over it in time."""
        import gru_jax as gj

        cell = gj.GRU(
            hidden_size=self.hidden,
            reset=self.reset,
            activation=self.activation,
            gate_activation=self.gate_activation,
            bias=self.bias,
            heads=self.heads,
            init=self.init,
        )
        method = self.method.build()
        if mesh is not None:
            method = gj.TimeSharded(mesh, "time", "data", method)
        layer = gj.recurrent(
            cell,
            method=method,
            input_dropout=self.input_dropout,
            recurrent_dropout=self.recurrent_dropout,
        )
        if self.bidirectional:
            layer = gj.bidirectional(layer, merge=self.merge)
        net = gj.stack(*[layer] * self.layers, dropout=self.dropout, residual=self.residual, norm=self.norm)
        return readout(net, task.features, task.classes, steps=self.pool)
