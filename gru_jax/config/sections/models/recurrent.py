"""What the sections of all models of recurrent layers share: directions, layers, pooling, tokens, the output layer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from gru_jax.between import Network
from gru_jax.cells import Cell
from gru_jax.combinators import bidirectional, recurrent, stack
from gru_jax.config.sections.base import Fraction, Layers, Section, Width, broken_rule
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.methods import AnyMethod, AutoMethod, NewtonMethod
from gru_jax.data.dataset import TaskShape
from gru_jax.models import Model, readout, sequence_model
from gru_jax.scans import Method, TimeSharded

if TYPE_CHECKING:
    from jax.sharding import Mesh

# The names of gru_jax.cells.activations, which a test compares; written out so that they are types.
Activation = Literal[
    "tanh", "sigmoid", "hard_sigmoid", "hard_tanh", "linear", "relu", "relu6", "elu", "selu",
    "gelu", "silu", "softplus", "softsign", "exponential",
]  # fmt: skip


class TokenModel(Section):
    """What every model has: pooling, a method, and an output layer, which may share an embedding of tokens."""

    kind: str
    tied: bool = False
    pool: Literal["last", "mean"] = "last"
    method: AnyMethod = AutoMethod(kind="auto")

    @property
    def newton(self) -> NewtonMethod | None:
        """The method, if it is Newton's."""
        return self.method if isinstance(self.method, NewtonMethod) else None

    def method_over(self, mesh: "Mesh | None") -> str | Method:
        """The method; with a mesh, split over it in time."""
        method = self.method.build()
        return method if mesh is None else TimeSharded(mesh, "time", "data", method)

    def broken_rules(self, task: TaskShape) -> list[tuple[str, str]]:
        """(key, fact) for every rule that the section breaks together with its task."""
        if not self.tied:
            return []
        if not task.tokens:
            return [("tied", "the task has numbers at each step, not tokens; choose false")]
        if task.outputs != task.features or task.target in ("values", "notes"):
            return [("tied", "the task does not ask for one of the tokens that it shows; choose false")]
        return []

    @property
    def idle(self) -> list[tuple[str, str]]:
        """(key, fact) for every key that was set and changes nothing beside the others."""
        return []

    def with_outputs(self, net: Network, task: TaskShape, width: int | None) -> Model:
        """A network's functions, with what the task needs in front of it and behind.

        Args:
            net: the network.
            task: sizes and target.
            width: of a token's embedding; None for one-hot tokens.
        """
        steps = self.pool if task.target in ("class", "values") else "all"
        if task.tokens:
            return sequence_model(net, task.features, width, steps=steps, tied=self.tied, outputs=task.outputs)
        return readout(net, task.features, task.outputs, steps=steps)


class RecurrentModel(TokenModel):
    """A stack of recurrent layers and a linear output layer.

    It sits on the last valid step or the mean over time where the task asks for one answer a sequence, and on every
    step where it asks for one a step. Tokens are one-hot where there is no `embedding`.
    """

    of: ClassVar[Callable[..., Cell]]
    """The cell's constructor, which is given the keys by name."""

    embedding: Width | None = None
    hidden: Width = 64
    layers: Layers = 1
    bidirectional: bool = False
    merge: Literal["concat", "sum", "mul", "mean"] = "concat"
    dropout: Fraction = 0.0
    input_dropout: Fraction = 0.0
    residual: bool = False
    norm: Literal["layer", "rms"] | None = None

    @model_validator(mode="after")
    def _tied_to_an_embedding(self) -> Self:
        if self.tied:
            features = self.hidden * (2 if self.bidirectional and self.merge == "concat" else 1)
            if self.embedding is None:
                raise broken_rule("tied", f"the output layer has no embedding to share; set embedding: {features}")
            if self.embedding != features:
                fact = f"the output layer sees {features} features, and the embedding has {self.embedding}"
                raise broken_rule("embedding", fact)
        return self

    def broken_rules(self, task: TaskShape) -> list[tuple[str, str]]:
        """(key, fact) for every rule that the section breaks together with its task."""
        if self.embedding is not None and not task.tokens:
            return [("embedding", "the task has numbers at each step, not tokens; leave it out")]
        found = super().broken_rules(task)
        if self.bidirectional and task.next_step:
            fact = "the task tells each step the next one, which the other direction has seen; choose false"
            found.append(("bidirectional", fact))
        return found

    @property
    def idle(self) -> list[tuple[str, str]]:
        """(key, fact) for every key that was set and changes nothing beside the others."""
        found = []
        if self.dropout and self.layers == 1:
            found.append(("dropout", "acts between layers, and there is one; set input_dropout, or more layers"))
        if self.merge != "concat" and not self.bidirectional:
            found.append(("merge", "joins two directions, and there is one; set bidirectional"))
        return found

    @property
    def stochastic(self) -> bool:
        """Whether training draws dropout masks."""
        return max(self.dropout, self.input_dropout, self._recurrent_dropout) > 0

    @property
    def _recurrent_dropout(self) -> float:
        """The rate inside the recurrent products, of the cells that have it."""
        return getattr(self, "recurrent_dropout", 0.0)

    def cell(self) -> Cell:
        """What one step of a layer computes."""
        return given(self.of, self, hidden_size=self.hidden)

    def cells(self) -> list[Cell]:
        """The cell of each layer."""
        return [self.cell()] * self.layers

    def build(self, task: TaskShape, mesh: "Mesh | None" = None) -> Model:
        """The model's pure functions, for sequences of the task's shape; with a mesh, split over it in time."""
        method = self.method_over(mesh)
        layers = [
            recurrent(
                cell,
                method=method,
                input_dropout=self.input_dropout,
                recurrent_dropout=self._recurrent_dropout,
                # Of a network that computes in bfloat16 too: a unit that forgets slowly would stop half its way.
                state_dtype="float32",
            )
            for cell in self.cells()
        ]
        if self.bidirectional:
            layers = [bidirectional(layer, merge=self.merge) for layer in layers]
        dropout = self.dropout if self.layers > 1 else 0.0
        net = stack(*layers, dropout=dropout, residual=self.residual, norm=self.norm)
        return self.with_outputs(net, task, self.embedding)
