"""The sections `model: {kind: gru}`, `{kind: gru_d}` and `{kind: mgu}`."""

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import model_validator

from gru_jax.cells import GRU, GRUD, MGU, Cell
from gru_jax.config.sections.base import Fraction, Width, broken_rule
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.models.recurrent import Activation, RecurrentModel
from gru_jax.data.dataset import TaskShape


class GRUModel(RecurrentModel):
    """A stack of GRU layers; `heads` equal to `hidden` makes their recurrent matrices diagonal."""

    of: ClassVar[Callable[..., Cell]] = GRU
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


class GRUDModel(GRUModel):
    """GRU-D, for tasks whose steps are values, masks and times since; with several `layers` a GRU above it."""

    of = GRUD
    kind: Literal["gru_d"]  # type: ignore[assignment]
    reset: Literal["after", "before"] = "before"

    def cells(self) -> list[Cell]:
        """The cell of each layer: what is above the first sees states."""
        return [self.cell(), *[given(GRU, self, hidden_size=self.hidden)] * (self.layers - 1)]

    def broken_rules(self, task: TaskShape) -> list[tuple[str, str]]:
        """(key, fact) for every rule that the section breaks together with its task."""
        found = super().broken_rules(task)
        if not task.gaps:
            found.append(("kind", "the task's steps are not values, masks and times since; choose 'gru'"))
        if self.bidirectional:
            found.append(("bidirectional", "times since are those of one direction; choose false"))
        if self.input_dropout:
            found.append(("input_dropout", "would scale masks and times; set 0"))
        return found


class MGUModel(RecurrentModel):
    """A stack of layers of minimal gated units, with one gate that forgets and, with `reset_gate`, resets."""

    of = MGU
    kind: Literal["mgu"]
    reset_gate: bool = True
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    recurrent_dropout: Fraction = 0.0
