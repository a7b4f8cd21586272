"""torch.nn.GRU as an NNX module: torch's arguments, shapes, names and numbers, run by `gru_jax`."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gru_jax import checks
from gru_jax.cells.gru_layout import LaidOut
from gru_jax.combinators import StackParams
from gru_jax.interop import neutral
from gru_jax.interop.torch import names, packed, streams, tensors
from gru_jax.interop.torch.module import TorchModule
from gru_jax.interop.torch.packed import PackedSequence
from gru_jax.interop.torch.tensors import TensorLike
from gru_jax.layers import nnx as layers
from gru_jax.layers.spec import GRUSpec
from gru_jax.scans import Method
from gru_jax.types import Array, DType, Options, Params


class GRU(TorchModule):
    """torch.nn.GRU in JAX: the same call, shapes, parameters and numbers, as an NNX module.

        r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Parameters are `nnx.Param`s of torch's names, with W_ir, W_iz, W_in below each other: `weight_ih_l0` `[3H, I]`,
    `weight_hh_l0` `[3H, H]`, `bias_ih_l0` and `bias_hh_l0` `[3H]`; `l1` for the second layer, `l0_reverse` for the
    second direction. `nnx.grad` and `nnx.Optimizer` speak of them by these names.

    Args:
      input_size: I, the number of input features.
      hidden_size: H, the number of units of each layer and direction.
      num_layers: L, layers on top of each other.
      bias: whether there are biases.
      batch_first: input and output are `[B, T, *]` instead of `[T, B, *]`; states are not.
      dropout: rate in [0, 1) on the outputs of all layers but the last, drawn anew at every step, in training mode.
      bidirectional: a second direction in each layer, run from each sequence's end.
      device: None; JAX places arrays itself.
      dtype: of the parameters, torch's, NumPy's or JAX's; float32 when None.
      rngs: `nnx.Rngs`; "params" initialises, "dropout" draws dropout masks. When None, the process's stream, see
        `manual_seed`.
      method: how the steps run over time, see `gru_jax.scan`.
      proj_size: None; torch's GRU has none either.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> rnn = nn.GRU(10, 20, 2)
      >>> output, h_n = rnn(jnp.ones((5, 3, 10)), jnp.zeros((2, 3, 20)))
      >>> output.shape, h_n.shape, rnn.weight_ih_l0.shape
      ((5, 3, 20), (2, 3, 20), (60, 10))

    Source: torch.nn.GRU of torch 2.13.
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: None = None,
        dtype: DType = None,
        *,
        rngs: nnx.Rngs | None = None,
        method: str | Method = "auto",
        proj_size: None = None,
    ) -> None:
        if proj_size is not None:
            raise ValueError(
                f"GRU: proj_size is torch.nn.LSTM's, which projects its state; got {proj_size!r}; leave it out, or put"
                f" a flax.nnx.Linear behind the GRU"
            )
        for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            checks.positive("GRU", name, size)
        for name, value in {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}.items():
            checks.flag("GRU", name, value)
        checks.rate("GRU", "dropout", dropout)
        tensors.device("GRU", device)
        found = tensors.dtype("GRU", dtype)
        if dropout and num_layers == 1:
            warnings.warn(
                f"GRU: dropout acts between layers, so dropout={dropout} does nothing with num_layers=1",
                stacklevel=5,  # three frames of flax's stand between
            )
        self.input_size, self.hidden_size, self.num_layers = int(input_size), int(hidden_size), int(num_layers)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.rngs: Any = nnx.data(None)
        self._dropout = float(dropout)
        self.method = method
        self.deterministic = False
        random = self._spec().random
        rngs = streams.checked("GRU", rngs, ("params", "dropout") if random else ("params",))
        self._draw(rngs, found)
        if random:
            self.rngs = nnx.data(rngs.dropout.fork())

    @property
    def dropout(self) -> float:
        """The rate on the outputs of all layers but the last; assign another one, in [0, 1), at any time.

        Where none was drawn before, masks then come from the process's stream, see `manual_seed`.
        """
        return self._dropout

    @dropout.setter
    def dropout(self, rate: float) -> None:
        checks.rate("GRU", "dropout", rate)
        self._dropout = float(rate)
        if self.rngs is None and self._spec().random:
            self.rngs = nnx.data(streams.default().dropout.fork())

    def __call__(
        self, input: TensorLike | PackedSequence, h0: TensorLike | None = None, *, hx: TensorLike | None = None
    ) -> tuple[Any, Array]:
        """Runs the layers over time.

        Args:
          input: `[T, B, I]` (`[B, T, I]` with batch_first), `[T, I]` for one sequence, or a `PackedSequence`; a JAX,
            NumPy or torch array.
          h0: states before the first step, `[L*D, B, H]`, or `[L*D, H]` for one sequence, whether batch_first or not;
            direction d of layer k is row k*D + d. Zeros when None.
          hx: torch's name of h0.

        Returns:
          output: the last layer's states, `[T, B, D*H]` (`[B, T, D*H]` with batch_first), `[T, D*H]`, or a
            `PackedSequence`.
          h_n: the states after each sequence's last step, in h0's shape and in the order of the sequences.

        Raises:
          TypeError, ValueError: for input that does not fit, before anything is computed.
        """
        if h0 is not None and hx is not None:
            raise TypeError("GRU: h0 and hx are two names of one argument; got both; pass one")
        h0 = hx if h0 is None else h0
        if packed.is_packed(input):
            return self._run_packed(packed.unwrapped("GRU", "input", input), h0)
        x = self._tensor("input", input)
        if x.ndim not in (2, 3):
            layout = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(f"GRU: input must be {layout}, or [T, I] for one sequence; got shape {list(x.shape)}")
        self._features(x.shape)
        time, batch = (0, ()) if x.ndim == 2 else (1, x.shape[:1]) if self.batch_first else (0, x.shape[1:2])
        if not x.shape[time]:
            raise ValueError(f"GRU: input must have at least 1 time step; got shape {list(x.shape)}; leave it out")
        return self._run(x, self._states(h0, batch), time_major=time == 0)

    forward = __call__

    @property
    def all_weights(self) -> list[list[nnx.Param[Array]]]:
        """For each layer and direction the list of its parameters."""
        kinds = self._layout.kinds()
        return [[getattr(self, kind + end) for kind in kinds] for ends in self._layout.suffixes() for end in ends]

    def to_layer(self, **own: Any) -> layers.GRU:
        """The same layers as a `gj.nnx.GRU`, with a copy of the weights; it too reads `[T, B, I]` without batch_first.

        Args:
          **own: options of `gj.nnx.GRU` that say how it runs.

        Returns:
          A `gj.nnx.GRU` with the same method, dropout and mode, whose states are tuples and pairs instead of rows.
        """
        options: Options = {"dropout": self.dropout, "deterministic": self.deterministic}
        if self.rngs is not None:
            options["rngs"] = nnx.Rngs(dropout=self.rngs.key[...])
        ends = self._layout.suffixes()
        pairs = self.bidirectional
        each: list[Params] = [tuple(map(self._neutral, end)) if pairs else self._neutral(end[0]) for end in ends]
        weights = neutral.Weights(self._spec().cell, tuple(each))
        options |= {"method": self.method, "time_major": not self.batch_first, **own}
        return neutral.module("GRU", weights, options)

    def extra_repr(self) -> str:
        """The options, as torch writes them."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)
        ):
            value = getattr(self, name)
            text += f", {name}={value}" if value != default else ""
        return text

    @property
    def _layout(self) -> names.Layout:
        return names.Layout(self.input_size, self.hidden_size, self.num_layers, self.bidirectional, self.bias)

    def _spec(self) -> GRUSpec:
        return GRUSpec(
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            bias="full" if self.bias else "none",
            method=self.method,
        )

    def _states(self, h0: object, batch: tuple[int, ...]) -> Array | None:
        if h0 is None:
            return None
        h = self._tensor("h0", h0)
        rows = self.num_layers * (1 + self.bidirectional)
        fix = "its first axis is num_layers * directions"
        if batch and h.shape == (*batch, rows, self.hidden_size):
            fix = "states are never batch-first, pass h0.swapaxes(0, 1)"
        elif h.ndim != 2 + len(batch):
            fix = "a batch has one with 3 axes, a single sequence one with 2"
        checks.shape("GRU", "h0", h.shape, (rows, *batch, self.hidden_size), fix)
        return h

    def _run(
        self, x: Array, h: Array | None, *, time_major: bool, lengths: np.ndarray | None = None
    ) -> tuple[Array, Array]:
        spec, ends, directions = self._spec(), self._layout.suffixes(), 1 + self.bidirectional
        each = [[self._laid_out(one) for one in pair] for pair in ends]
        starts = [
            [None if h is None else h[layer * directions + d] for d in range(directions)] for layer in range(len(ends))
        ]

        def nested(rows: list[list[LaidOut]] | list[list[Array | None]]) -> tuple[Params, ...]:
            return tuple(tuple(row) if self.bidirectional else row[0] for row in rows)

        params, states = nested(each), None if h is None else nested(starts)
        drawn = self.rngs() if spec.random and self.training else None
        y, final = spec.layer.apply(
            params[0] if len(ends) == 1 else StackParams(params, ()),
            x,
            states[0] if states is not None and len(ends) == 1 else states,
            key=drawn,
            deterministic=drawn is None,
            time_major=time_major,
            lengths=lengths,
        )
        return y, jnp.stack(jax.tree.leaves(final))

    def _run_packed(self, sequence: PackedSequence, h0: object) -> tuple[PackedSequence, Array]:
        data = self._tensor("input", sequence.data)
        if data.ndim != 2:
            raise ValueError(f"GRU: packed input must hold data [steps, I]; got shape {list(data.shape)}")
        self._features(data.shape)
        order, back = sequence.sorted_indices, sequence.unsorted_indices
        h = self._states(h0, (int(sequence.batch_sizes[0]),))
        if h is not None and order is not None:
            h = h[:, order]
        # What stands at padding is never seen: steps after a sequence's length are masked.
        x = packed.take(data, sequence.rows)
        y, final = self._run(x, h, time_major=True, lengths=sequence.lengths)
        y = packed.take(y.reshape(-1, y.shape[-1]), sequence.places)
        return sequence.with_data(y), final if back is None else final[:, back]


