"""The sections `model: {kind: min_gru}`, `{kind: min_lstm}` and `{kind: min_blocks}`."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.cells import MinGRU, MinLSTM
from gru_jax.combinators import stack
from gru_jax.config.sections.base import Fraction, Layers, Positive, Width, broken_rule
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.models.recurrent import RecurrentModel, TokenModel
from gru_jax.data.dataset import TaskShape
from gru_jax.models import Model, min_block

if TYPE_CHECKING:
    from jax.sharding import Mesh


class MinModel(RecurrentModel):
    """What minGRU and minLSTM have in common."""

    form: Literal["linear", "log"] = "linear"
    bias: bool = True
    init: Literal["flax", "keras", "torch"] = "flax"


class MinGRUModel(MinModel):
    """A stack of minGRU layers, whose gates see the input alone; `form: log` is the paper's."""

    of = MinGRU
    kind: Literal["min_gru"]


class MinLSTMModel(MinModel):
    """A stack of minLSTM layers, whose gates see the input alone; `form: log` is the paper's."""

    of = MinLSTM
    kind: Literal["min_lstm"]


class MinBlocksModel(TokenModel):
    """A stack of the residual blocks in which minGRU and minLSTM are used; tokens have embeddings of `width`.

    `cell: gru` and `para_gru`, a diagonal one, are for comparison. `conv` null and `feed_forward` null leave those
    parts out.
    """

    kind: Literal["min_blocks"]
    cell: Literal["min_gru", "min_lstm", "gru", "para_gru"] = "min_gru"
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
        method = self.method_over(mesh)
        last = self.layers - 1
        # The state in float32, as in every network of recurrent layers that computes in bfloat16.
        own = {"method": method, "state_dtype": "float32"}
        blocks = [given(min_block, self, **own, last_norm=index == last) for index in range(self.layers)]
        return self.with_outputs(stack(*blocks), task, self.width)
