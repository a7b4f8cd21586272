"""A model with its parameters taken apart, as NumPy arrays, for what writes it down in another format."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gru_jax.between import Both, Norm, Output, OutputOfTokens, Recurrent, Stack
from gru_jax.cells import MGU, MinGRU, MinParams
from gru_jax.cells.base import gifts
from gru_jax.models import BlockParams, Model
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.types import Activation, Array, Params

PEEPHOLES = "lstm with peepholes"
KINDS = ("gru", "gru, reset before", "lstm", PEEPHOLES, "tanh rnn")
"""The equations that other formats have too."""


class ExportError(RunError, ValueError):
    """A model cannot be written in a format, or what was written does not compute what the model does."""


class Recurrence(NamedTuple):
    """One direction of a recurrent layer.

    Attributes:
        kind: of `KINDS`, see `gru_jax.cells.base.Equations`.
        gate, candidate: activations.
        w_x: `[I, G H]`, side by side r, z, n of a GRU and i, f, o, g of an LSTM.
        w_h: `[H, G H]`.
        b_x, b_h: `[G H]`, zeros where the cell has none.
        peepholes: of an LSTM that has them, `[3, H]`, of i, f and o.
        bound: what numbers that are zeros, or the same twice, stand for, which more training elsewhere would make
            differ; "" where there are none.
    """

    kind: str
    gate: Activation
    candidate: Activation
    w_x: np.ndarray
    w_h: np.ndarray
    b_x: np.ndarray
    b_h: np.ndarray
    peepholes: np.ndarray | None = None
    bound: str = ""

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


    @property
    def alike(self) -> bool:
        """Whether two directions differ in nothing but their numbers."""
        return len({(one.kind, one.gate, one.candidate, one.bound, one.units) for one in self.directions}) == 1


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


def _layers(layer: object, params: Params) -> list[NetworkLayer]:
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
    if type(cell) is MinGRU and cell.form == "linear":
        return _of_min_gru(params)
    if kind not in (*KINDS, "mgu"):
        raise _unknown(f"the cell {type(cell).__name__}{' in this form' if type(cell) in (MinGRU, MGU) else ''}")
    dense, gate, candidate = cell.dense(params), cell.equations.gate, cell.equations.candidate
    w_x, w_h, b_x = (np.asarray(part) for part in (dense.w_x, dense.w_h, _full(dense.b_x, dense.w_x.shape[-1])))
    bound = f"recurrent matrix of {cell.heads} blocks" if getattr(cell, "heads", 1) > 1 else ""
    if kind == "mgu":
        # A GRU whose reset and update gates are one.
        w_x, w_h, b_x = (np.concatenate([part[..., : w_h.shape[0]], part], -1) for part in (w_x, w_h, b_x))
        kind, bound = "gru", "pair of gates that are one, an MGU's"
    peepholes = params["peepholes"] if kind == PEEPHOLES else None
    return Recurrence(kind, gate, candidate, w_x, w_h, b_x, _full(dense.b_h, w_x.shape[-1]), peepholes, bound)


def _of_min_gru(params: MinParams) -> Recurrence:
    """minGRU as a GRU whose gates and candidate do not see the state; its z takes what theirs keeps."""
    w_x = np.asarray(params.w_x)
    units = w_x.shape[-1] // 2
    b_x = _full(params.b_x, 2 * units)
    signed = [np.concatenate([part[..., :units] * 0, -part[..., :units], part[..., units:]], -1) for part in (w_x, b_x)]
    w_h, b_h = np.zeros((units, 3 * units), np.float32), np.zeros(3 * units, np.float32)
    bound = "cell that does not see its state, a minGRU's"
    return Recurrence("gru", "sigmoid", "linear", signed[0], w_h, signed[1], b_h, None, bound)


def _full(bias: np.ndarray | Array | None, size: int) -> np.ndarray:
    """A bias of all products: 0 where there is none; the candidate's alone stands last."""
    zeros = np.zeros(size, np.float32)
    if bias is not None:
        zeros[size - bias.size :] = np.asarray(bias)
    return zeros


def _unknown(part: str) -> ExportError:
    return ExportError(
        f"export: {part} is known to the formats 'stablehlo' and 'safetensors' alone; export to one of them"
    )


def check_directions(to: str, layer: NetworkLayer) -> None:
    """Raises unless a layer is one of a format that is trained in: with one cell, nothing bound and no peepholes."""
    if not layer.alike:
        raise refuse(to, "layer whose two directions are of different cells", "'onnx'")
    one = layer.directions[0]
    if one.bound:
        raise refuse(to, f"{one.bound}, and training there would lose it", "'onnx'")
    if one.peepholes is not None:
        raise refuse(to, "LSTM with peepholes", "'onnx'")


def refuse(to: str, what: str, others: str) -> ExportError:
    """The error for a part that one format lacks and others have."""
    return ExportError(f"export: {to} has no {what}; {others} can have it, and 'stablehlo' anything")
