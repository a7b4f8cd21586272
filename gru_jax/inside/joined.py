"""Cells of other frameworks that this library has no cell of: their LSTM and tanh RNN, of any activation.

`gru_jax.models.LSTM` runs flax's own cell in every step, with flax's parameters. These have their matrices side by
side, and project the input apart from the loop.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from gru_jax.cells import activations
from gru_jax.cells.base import Dense, Equations, accumulator
from gru_jax.types import Activation, Array, DType, Key, Params


class Matrices(NamedTuple):
    """The parameters of both: gates side by side, i f o g, or the one product of a simple cell.

    Attributes:
      w_x: input matrix, `[I, 4H]` or `[I, H]`.
      w_h: recurrent matrix, `[H, 4H]` or `[H, H]`.
      b: bias, `[4H]` or `[H]`.
    """

    w_x: Array
    w_h: Array
    b: Array


class LSTMState(NamedTuple):
    """An LSTM's two states, each `[*batch, H]`.

    Attributes:
      c: its memory.
      h: its output.
    """

    c: Array
    h: Array


def lstm_matrices(w_x: Array, w_h: Array, b: Array) -> Matrices:
    """Those of an LSTM whose gates stand in the order i f g o, as flax and Keras have them."""

    def reordered(a: Array) -> Array:
        i, f, g, o = jnp.split(a, 4, -1)
        return jnp.concatenate([i, f, o, g], -1)

    return Matrices(reordered(w_x), reordered(w_h), reordered(b))


class Projecting:
    """What both have in common: `u = x w_x + b`, and parameters that are flax's to make."""

    def init(self, key: Key, input_size: int) -> Params:
        """Not here: flax's cell makes its parameters."""
        raise NotImplementedError("the parameters are made by flax's cell")

    def project(self, params: Matrices, x: Array) -> Array:
        """The projected input, `[*batch, I]` to `[*batch, 4H]` or `[*batch, H]`."""
        u = jnp.matmul(x, params.w_x, preferred_element_type=accumulator(x.dtype))
        return u + jnp.broadcast_to(params.b.astype(u.dtype), u.shape)

    def dense(self, params: Matrices) -> Dense:
        """The parameters as the equations take them."""
        return Dense(*params, None)


@dataclasses.dataclass(frozen=True)
class LSTM(Projecting):
    """The LSTM of flax and of Keras.

        i, f, o = s(u + h w_h),  g = a(u + h w_h)
        c' = f * c + i * g,      h' = o * a(c')

    Args:
      hidden_size: H.
      gate_activation: s.
      activation: a.
      both: put out c and h side by side, `[*batch, 2H]`, instead of h.
    """

    hidden_size: int
    gate_activation: Activation = "sigmoid"
    activation: Activation = "tanh"
    both: bool = False

    def step(self, params: Matrices, u: Array, state: LSTMState) -> LSTMState:
        """One step from c and h, each `[*batch, H]`."""
        c, h = state
        s, a = activations.get(self.gate_activation), activations.get(self.activation)
        i, f, o, g = jnp.split(u + _product(params.w_h, h), 4, -1)
        c_new = s(f) * c.astype(u.dtype) + s(i) * a(g)
        return LSTMState(c_new.astype(c.dtype), (s(o) * a(c_new)).astype(h.dtype))

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> LSTMState:
        """Zeros, each `[*batch, H]`."""
        zeros = jnp.zeros((*batch, self.hidden_size), dtype)
        return LSTMState(zeros, zeros)

    def output(self, state: LSTMState) -> Array:
        """h, or c and h."""
        return jnp.concatenate(state, -1) if self.both else state.h

    @property
    def equations(self) -> Equations:
        """Those above."""
        return Equations("lstm", self.gate_activation, self.activation)

    def split(self, outputs: Array) -> LSTMState:
        """The states from outputs of both."""
        return LSTMState(*jnp.split(outputs, 2, -1))


@dataclasses.dataclass(frozen=True)
class Simple(Projecting):
    """flax's SimpleCell, `h' = a(u + h w_h)`, plus h inside of a with `residual`.

    Args:
      hidden_size: H.
      activation: a.
      residual: whether the state is added before the activation.
    """

    hidden_size: int
    activation: Activation = "tanh"
    residual: bool = False

    def step(self, params: Matrices, u: Array, h: Array) -> Array:
        """One step from h, `[*batch, H]`."""
        inner = u + _product(params.w_h, h)
        inner = inner + h.astype(u.dtype) if self.residual else inner
        return activations.get(self.activation)(inner).astype(h.dtype)

    @property
    def equations(self) -> Equations:
        """That above."""
        name = "tanh rnn, its state inside" if self.residual else "tanh rnn"
        return Equations(name, "sigmoid", self.activation)

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        """Zeros, `[*batch, H]`."""
        return jnp.zeros((*batch, self.hidden_size), dtype)

    def output(self, h: Array) -> Array:
        """The state itself."""
        return h


def _product(w: Array, h: Array) -> Array:
    return jnp.matmul(h.astype(w.dtype), w, preferred_element_type=accumulator(w.dtype))
