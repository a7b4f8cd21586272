"""`gru_jax.models.GRUReadout`: a GRU with an output layer, as one Flax NNX module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from gru_jax.layers.nnx import GRU
from gru_jax.layers.options import ALL, Signature
from gru_jax.models import output_layer
from gru_jax.scans.mesh_axes import left_to_xla
from gru_jax.types import Array, State, Tree


class GRUReadout(nnx.Module):
    """A GRU, or a stack of them in one or two directions, with an output layer: `activation(features w + b)`.

    The same function as `gj.models.readout` computes, for classification (steps="last" or "mean"), tagging
    (steps="all") and regression.

    Args:
      in_features: I, features of a time step.
      hidden_features: H, units of each layer and direction.
      out_features: O, labels, tags or predicted values.
      steps: "last", "mean" or "all", see `gj.models.readout`.
      activation: of the outputs: "linear", "softmax" or "sigmoid".
      rngs: `nnx.Rngs`; "params" initialises, "dropout" draws dropout masks.
      **options: of `gj.nnx.GRU`: num_layers, bidirectional, dropout, residual, norm, reset, stateful, ...

    The GRU stands under `gru`, the output layer, an `nnx.Linear`, under `out`.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import nnx
      >>> model = gj.models.GRUReadout(3, 4, 2, bidirectional=True, activation="softmax", rngs=nnx.Rngs(0))
      >>> model(jnp.ones((5, 7, 3)), lengths=jnp.array([7, 6, 5, 4, 0])).shape
      (5, 2)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        steps: str = "last",
        activation: str = "linear",
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        output_layer.check(in_features, out_features, steps, activation)
        if options.get("time_major"):
            raise ValueError("GRUReadout: x is batch-major, [*batch, T, I]; got time_major=True; leave it out")
        self.gru = GRU(in_features, hidden_features, rngs=rngs, **options)
        spec = self.gru.spec
        self.steps, self.activation = steps, activation
        both = 2 if spec.bidirectional and (steps == "last" or spec.merge == "concat") else 1
        dtypes = {"dtype": spec.dtype, "param_dtype": spec.param_dtype}
        self.out = nnx.Linear(both * hidden_features, out_features, rngs=rngs, **dtypes)

    __signature__ = Signature(name for name in ALL if name != "time_major")

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` calls, on a copy of the module that shares its arrays.

        Args:
          deterministic: turns all dropout off; None leaves it as it is.
        """
        self.gru.set_view(deterministic)

    def __call__(self, x: Array, h0: State = None, *, return_state: bool = False, **options: Any) -> Tree:
        """The outputs for whole sequences.

        Args:
          x: `[*batch, T, I]`.
          h0: states before the first step, see `gj.nnx.GRU`.
          return_state: also return the final states, which the next call takes as h0.
          **options: lengths, mask, resets, reset_to, deterministic, rngs, return_gates, stats of the GRU's call.

        Returns:
          `[*batch, O]`, `[*batch, T, O]` with steps="all"; followed by the states, the gates and the stats if
          asked for.

        Raises:
          TypeError, ValueError: for input that does not fit, before anything is computed.
        """
        y, h, *gates = self.gru(x, h0, **options)
        spec = self.gru.spec
        alone = spec.num_layers == 1 and not spec.residual and spec.norm is None
        valid = output_layer.valid_steps(jnp.asarray(x), options.get("lengths"), options.get("mask"))
        last = h if alone else h[-1]
        pooled = left_to_xla(lambda y, last, valid: output_layer.pooled(y, last, valid, self.steps), y, last, valid)
        out = self.out(pooled)
        others = ([h] if return_state else []) + gates
        made = output_layer.ACTIVATIONS[self.activation](out)
        return (made, *others) if others else made
