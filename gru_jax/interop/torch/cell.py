"""torch.nn.GRUCell as an NNX module: one step, with torch's arguments, names and numbers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import cells, checks
from gru_jax.cells import GRUParams
from gru_jax.interop import neutral
from gru_jax.interop.torch import names, streams, tensors
from gru_jax.interop.torch.module import TorchModule
from gru_jax.interop.torch.tensors import TensorLike
from gru_jax.layers import nnx as layers
from gru_jax.types import Array, DType


class GRUCell(TorchModule):
    """torch.nn.GRUCell in JAX: one step, with the same call, shapes, parameters and numbers, as an NNX module.

        r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Parameters are `nnx.Param`s of torch's names: `weight_ih` `[3H, I]`, `weight_hh` `[3H, H]`, `bias_ih` and `bias_hh`
    `[3H]`, or None without bias.

    Args:
      input_size: I, the number of input features.
      hidden_size: H, the number of units.
      bias: whether there are biases.
      device: None; JAX places arrays itself.
      dtype: of the parameters, torch's, NumPy's or JAX's; float32 when None.
      rngs: `nnx.Rngs`, whose stream "params" initialises; the process's stream when None, see `manual_seed`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> cell = nn.GRUCell(10, 20)
      >>> hx = cell(jnp.ones((3, 10)))
      >>> cell(jnp.ones((3, 10)), hx).shape
      (3, 20)

    Source: torch.nn.GRUCell of torch 2.13.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: None = None,
        dtype: DType = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        for name, size in {"input_size": input_size, "hidden_size": hidden_size}.items():
            if isinstance(size, bool) or size != 0:  # torch's cell, unlike its GRU, may have none
                checks.positive("GRUCell", name, size)
        checks.flag("GRUCell", "bias", bias)
        tensors.device("GRUCell", device)
        found = tensors.dtype("GRUCell", dtype)
        self.input_size, self.hidden_size, self.bias = int(input_size), int(hidden_size), bias
        self.deterministic = False
        self._draw(streams.checked("GRUCell", rngs, ("params",)), found)
        if not bias:
            self.bias_ih = self.bias_hh = None

    def __call__(self, input: TensorLike, h0: TensorLike | None = None, *, hx: TensorLike | None = None) -> Array:
        """One step.

        Args:
          input: `[B, I]`, or `[I]` for one sequence; a JAX, NumPy or torch array.
          h0: the state before the step, `[B, H]` or `[H]`; zeros when None.
          hx: torch's name of h0.

        Returns:
          The state after the step, `[B, H]` or `[H]`.

        Raises:
          TypeError, ValueError: for input that does not fit, before anything is computed.
        """
        if h0 is not None and hx is not None:
            raise TypeError("GRUCell: h0 and hx are two names of one argument; got both; pass one")
        x = self._tensor("input", input)
        if x.ndim not in (1, 2):
            raise ValueError(f"GRUCell: input must be [B, I], or [I] for one sequence; got shape {list(x.shape)}")
        self._features(x.shape)
        shape = (*x.shape[:-1], self.hidden_size)
        given = hx if h0 is None else h0
        h = jnp.zeros(shape, x.dtype) if given is None else self._tensor("h0", given)
        checks.shape("GRUCell", "h0", h.shape, shape, "it has the batch of input and hidden_size features")
        return _step(self._cell(), self._neutral(""), x, h) if self.hidden_size else h

    forward = __call__

    def to_layer(self, **options: Any) -> layers.GRU:
        """The cell over time, as a `gj.nnx.GRU` of one layer with a copy of the weights.

        Args:
          **options: of `gj.nnx.GRU` that say how it runs.

        Returns:
          A `gj.nnx.GRU`, which reads `[*batch, T, I]`.
        """
        return neutral.module("GRUCell", neutral.Weights(self._cell(), (self._neutral(""),)), options)

    def extra_repr(self) -> str:
        """The options, as torch writes them."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    @property
    def _layout(self) -> names.Layout:
        return names.Layout(self.input_size, self.hidden_size, bias=self.bias, cell=True)

    def _cell(self) -> cells.GRU:
        return cells.GRU(self.hidden_size, bias="full" if self.bias else "none")


# Compiled, because torch's code calls a cell from a Python loop.
@functools.partial(jax.jit, static_argnums=0)
def _step(cell: cells.GRU, params: GRUParams, x: Array, h: Array) -> Array:
    return cell.step(params, cell.project(params, x), h)
