"""The section `model: {kind: dreamer_gru}`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.cells import Cell, DreamerGRU
from gru_jax.config.sections.base import Positive, Width, broken_rule
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.models.recurrent import Activation, RecurrentModel


class DreamerModel(RecurrentModel):
    """A stack of layers of DreamerV3's recurrent cell, whose recurrent matrices are blocks, one for each of `heads`.

    `cell_norm` and `cell_layers` are the cell's, `norm` and `layers` the stack's; `activation` and `projection_size`
    are of cells with `cell_layers`.
    """

    of = DreamerGRU
    kind: Literal["dreamer_gru"]
    heads: Width = 8
    cell_norm: Literal["layer", "rms"] = "layer"
    cell_layers: Annotated[int, Field(ge=0, le=256)] = 0
    projection_size: Width | None = None
    activation: Activation = "silu"
    epsilon: Positive = 1e-4
    update_bias: float = -1.0

    @model_validator(mode="after")
    def _fits_the_cell(self) -> "DreamerModel":
        if self.hidden % self.heads:
            raise broken_rule("heads", f"{self.heads} heads do not divide hidden, {self.hidden}, evenly")
        if not self.cell_layers and self.activation != "silu":
            raise broken_rule("activation", "is of a cell with layers of its own; set cell_layers: 1")
        if not self.cell_layers and self.projection_size is not None:
            raise broken_rule("projection_size", "is of a cell with layers of its own; set cell_layers: 1")
        return self

    def cell(self) -> Cell:
        """What one step of a layer computes."""
        return given(DreamerGRU, self, hidden_size=self.hidden, norm=self.cell_norm, layers=self.cell_layers)
