"""A model with its parameters taken apart, as NumPy arrays, for what writes it down in another format."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gru_jax.between import Both, Norm, Output, OutputOfTokens, Recurrent, Stack
from gru_jax.cells.base import gifts
from gru_jax.models import BlockParams, Model
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.types import Activation, Params

GATES = {"gru": 3, "gru, reset before": 3, "lstm": 4, "tanh rnn": 1}
"""The equations that other formats have too, with how many products of the input a step of each has."""


class ExportError(RunError, ValueError):
    """A model cannot be written in a format, or what was written does not compute what the model does."""


class Recurrence(NamedTuple):
    """One direction of a recurrent layer.

    Attributes:
        kind: of `GATES`, see `gru_jax.cells.base.Equations`.
        gate, candidate: activations.
        heads: blocks on the diagonal of the recurrent matrix, whose zeros are among its numbers here.
        w_x: `[I, G H]`, side by side r, z, n of a GRU and i, f, o, g of an LSTM.
        w_h: `[H, G H]`.
        b_x, b_h: `[G H]`, zeros where the cell has none.
    """

    kind: str
    gate: Activation
    candidate: Activation
    heads: int
    w_x: np.ndarray
    w_h: np.ndarray
    b_x: np.ndarray
    b_h: np.ndarray

    @property
    def units(self) -> int:
        """H."""
        return self.w_h.shape[0]

    def ordered(self, order: tuple[int, ...]) -> "Recurrence":
        """The same with its gates in another order."""
        arrays = (self.w_x, self.w_h, self.b_x, self.b_h)
        parts = [np.split(array, len(order), axis=-1) for array in arrays]
        moved = [np.concatenate([each[place] for place in order], axis=-1) for each in parts]
        return self._replace(w_x=moved[0], w_h=moved[1], b_x=moved[2], b_h=moved[3])


class NetworkLayer(NamedTuple):
    """A recurrent layer and what follows it: `norm(y) + x`, the parts that there are.

    Attributes:
        directions: one, or two, the second of which reads from the end.
        merge: how two are joined, see `gru_jax.bidirectional`.
        norm: "layer", "rms" or None.
        scale: the parameters of the norm.
        residual: whether the layer's input is added.
    """

    directions: tuple[Recurrence, ...]
    merge: str = "concat"
    norm: str | None = None
    scale: Norm | None = None
    residual: bool = False

    @property
    def features(self) -> int:
        """I."""
        return self.directions[0].w_x.shape[0]

    @property
    def width(self) -> int:
        """F, the features that come out."""
        units = [one.units for one in self.directions]
        return sum(units) if self.merge == "concat" else units[0]

    @property
    def plain(self) -> bool:
        """Whether nothing follows the layer, and two directions stand side by side."""
        return self.norm is None and not self.residual and self.merge == "concat"


class Network(NamedTuple):
    """Recurrent layers with what stands in front of them and behind.

    Attributes:
        vocabulary: how many tokens there are; None where steps are numbers.
        embedding: `[V, E]`; None where tokens are one-hot, or there are none.
        layers: from the first to the last.
        steps: "last", "mean" or "all", see `gru_jax.models.readout`.
        w, b: of the output layer, `[F, O]` and `[O]`.
        tied: whether w is the embedding's transpose.
        activation: "linear", "softmax" or "sigmoid".
    """

    vocabulary: int | None
    embedding: np.ndarray | None
    layers: tuple[NetworkLayer, ...]
    steps: str
    w: np.ndarray
    b: np.ndarray
    tied: bool = False
    activation: str = "linear"

    @property
    def features(self) -> int:
        """I of the first layer."""
        return self.layers[0].features


def takes(model: Model) -> tuple[int, bool]:
    """How many numbers, or tokens, there are at a step, and whether it is a token."""
    made_of = getattr(model, "made_of", None)
    if isinstance(made_of, Output):
        return made_of.input_size, False
    if isinstance(made_of, OutputOfTokens):
        return made_of.vocabulary, True
    raise ExportError("export: needs a model that gj.models.readout or gj.models.sequence_model made")


def taken_apart(model: Model, params: Params) -> Network:
    """A model of `gru_jax.models` as a network of parts that other formats know.

    Raises:
        ExportError: for a part that they do not know; the message names it.
    """
    takes(model)
    made_of: Output | OutputOfTokens = model.made_of  # type: ignore[attr-defined]
    params = jax.tree.map(lambda a: np.asarray(a, np.float32), params)
    layers = tuple(_layers(made_of.net, params.net))
    if isinstance(made_of, Output):
        return Network(None, None, layers, made_of.steps, params.w, params.b, activation=made_of.activation)
    tied = params.w is None
    w = params.embedding.T if tied else params.w
    return Network(made_of.vocabulary, params.embedding, layers, made_of.steps, w, params.b, tied)


def _layers(layer: Any, params: Params) -> list[NetworkLayer]:
    made_of = getattr(layer, "made_of", None)
    match made_of:
        case Recurrent():
            return [NetworkLayer((_recurrence(made_of.cell, params),))]
        case Both():
            pair = [_layers(*each) for each in zip(made_of.layers, params, strict=True)]
            if made_of.merge is None or any(len(one) > 1 or len(one[0].directions) > 1 for one in pair):
                raise _unknown("two directions that are stacks, or are not merged")
            return [NetworkLayer((*pair[0][0].directions, *pair[1][0].directions), made_of.merge)]
        case Stack():
            found = []
            for index, each in enumerate(zip(made_of.layers, params.layers, strict=True)):
                inner = _layers(*each)
                if made_of.norm is not None or made_of.residual:
                    if len(inner) > 1 or inner[0].norm is not None or inner[0].residual:
                        raise _unknown("a norm or a residual sum around a stack")
                    scale = params.norms[index] if made_of.norm is not None else None
                    adds = made_of.residual and inner[0].features == inner[0].width
                    inner = [inner[0]._replace(norm=made_of.norm, scale=scale, residual=adds)]
                found += inner
            return found
    if isinstance(params, BlockParams):
        raise _unknown("the block of a convolution, a cell and a feed-forward (gj.models.min_block)")
    raise _unknown("a layer that is not of gj.recurrent, gj.bidirectional or gj.stack")


def _recurrence(cell: Any, params: Params) -> Recurrence:
    kind = cell.equations.name if gifts(cell).equations else ""
    if kind not in GATES:
        raise _unknown(f"the cell {type(cell).__name__}")
    w_x, w_h, *biases = (None if part is None else np.asarray(part) for part in cell.dense(params))
    full = []
    for bias in biases:
        zeros = np.zeros(w_x.shape[-1], np.float32)
        if bias is not None:
            zeros[zeros.size - bias.size :] = bias  # the candidate's alone stands last
        full.append(zeros)
    return Recurrence(kind, cell.equations.gate, cell.equations.candidate, getattr(cell, "heads", 1), w_x, w_h, *full)


def _unknown(part: str) -> ExportError:
    return ExportError(
        f"export: {part} is known to the formats 'stablehlo' and 'safetensors' alone; export to one of them"
    )


def refuse(to: str, what: str, others: str) -> ExportError:
    """The error for a part that one format lacks and others have."""
    return ExportError(f"export: {to} has no {what}; {others} can have it, and 'stablehlo' anything")
