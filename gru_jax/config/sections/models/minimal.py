"""The sections `model: {kind: min_gru}`, `{kind: min_lstm}` and `{kind: min_blocks}`."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Fraction, Layers, Positive, Width, broken_rule
from gru_jax.config.sections.models.recurrent import RecurrentModel, TokenModel
from gru_jax.data.dataset import TaskShape
from gru_jax.models import Model

if TYPE_CHECKING:
    from jax.sharding import Mesh

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


class MinBlocksModel(TokenModel):
    """A stack of the residual blocks in which minGRU and minLSTM are used; tokens have embeddings of `width`.

    `conv` null and `feed_forward` null leave those parts out.
    """

    kind: Literal["min_blocks"]
    cell: Literal["min_gru", "min_lstm"] = "min_gru"
    width: Width = 64
    layers: Layers = 1
    expansion: Annotated[Positive, Field(le=64)] = 1.5
    conv: Annotated[int, Field(ge=1, le=64)] | None = 4
    feed_forward: Annotated[Positive, Field(le=64)] | None = 4.0
    dropout: Fraction = 0.0
    norm: Literal["rms", "layer"] = "rms"
    form: Literal["linear", "log"] = "log"
    forget_bias: float = 0.0

    @model_validator(mode="after")
    def _parts_fit(self) -> "MinBlocksModel":
        for key, factor in (("expansion", self.expansion), ("feed_forward", self.feed_forward)):
            if factor is not None and int(self.width * factor) < 1:
                raise broken_rule(key, f"{factor} times width, {self.width}, is less than one unit")
        if self.dropout and self.feed_forward is None:
            raise broken_rule("dropout", "it acts on the feed-forward, which is null; set 0")
        if self.forget_bias and self.cell != "min_lstm":
            raise broken_rule("forget_bias", f"{self.cell} has no forget gate; leave it out")
        return self

    @property
    def stochastic(self) -> bool:
        """Whether training draws dropout masks."""
        return self.dropout > 0

    def build(self, task: TaskShape, mesh: "Mesh | None" = None) -> Model:
        """The model's pure functions, for sequences of the task's shape; with a mesh, split over it in time."""
        import gru_jax as gj

        method = self.method.build()
        if mesh is not None:
            method = gj.TimeSharded(mesh, "time", "data", method)
        blocks = [
            gj.models.min_block(
                self.width,
                cell=self.cell,
                expansion=self.expansion,
                conv=self.conv,
                feed_forward=self.feed_forward,
                dropout=self.dropout,
                norm=self.norm,
                form=self.form,
                forget_bias=self.forget_bias,
                last_norm=index == self.layers - 1,
                method=method,
            )
            for index in range(self.layers)
        ]
        return self.with_outputs(gj.stack(*blocks), task, self.width)
