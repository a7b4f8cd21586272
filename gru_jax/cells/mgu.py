"""The minimal gated unit: a GRU with one gate, which both forgets and resets."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from gru_jax import checks
from gru_jax.cells import activations, initializers
from gru_jax.cells.base import Dense, Equations, accumulator, sum_rows
from gru_jax.cells.gated import RecurrentGates, add, rows, scale
from gru_jax.cells.initializers import Initializers, PerGate
from gru_jax.types import Activation, Array, DType, Key, exportable


@exportable("MGUParams")
class MGUParams(NamedTuple):
    """The parameters of an `MGU`, gates f, n side by side.

    Attributes:
      w_x: input matrix, `[I, 2H]`.
      w_h: recurrent matrix, `[H, 2H]`.
      b_x: bias of the projected input, `[2H]`.
      b_h: bias inside the candidate's recurrent product, `[H]`; None with `reset_gate=False`.
    """

    w_x: Array
    w_h: Array
    b_x: Array
    b_h: Array | None


@exportable("MGULinearization")
class Linearization(NamedTuple):
    """The elementwise part of an MGU step's derivative at one point.

    Attributes:
      f: how much of the old state is kept, `[*batch, H]`.
      k_f, k_n: the factors of the recurrent products, each `[*batch, H]`.
      k_u: the factor of the candidate's projected input, `[*batch, H]`.
    """

    f: Array
    k_f: Array
    k_n: Array
    k_u: Array


@checks.suggesting
@dataclasses.dataclass(frozen=True, init=False)
class MGU(RecurrentGates):
    """Minimal gated unit.

    With `u = x w_x + b_x`, and s, g the gate and the candidate activation,

        f  = s(u_f + h w_hf)
        n  = g(u_n + f * (h w_hn + b_h))            reset_gate=True
        n  = g(u_n + h w_hn)                        reset_gate=False
        h' = (1 - f) * n + f * h

    Args:
      hidden_size: H, the number of units.
      reset_gate: whether f scales what the candidate sees of the state.
      activation: g, a name (see `gru_jax.cells.activations.ACTIVATIONS`) or an elementwise function.
      gate_activation: s, likewise.
      init: "flax" (lecun_normal and orthogonal for each gate, forget bias 1, other biases 0), or `Initializers`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.MGU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))

    Source: Zhou et al. 2016, arXiv:1603.09420; the numbers are those of flax.linen.MGUCell.
    """

    name = "MGU"
    gates_wide = 2

    hidden_size: int
    reset_gate: bool
    activation: Activation
    gate_activation: Activation
    initializers: str | Initializers

    def __init__(
        self,
        hidden_size: int,
        *,
        reset_gate: bool = True,
        activation: Activation = "tanh",
        gate_activation: Activation = "sigmoid",
        init: str | Initializers = "flax",
    ) -> None:
        checks.positive("MGU", "hidden_size", hidden_size)
        checks.flag("MGU", "reset_gate", reset_gate)
        activations.check("MGU", "activation", activation)
        activations.check("MGU", "gate_activation", gate_activation)
        if not isinstance(init, Initializers):
            checks.choice("MGU", "init", init, ("flax",))
        initializers.check("MGU", init)
        self._set(hidden_size, reset_gate, activation, gate_activation, init)

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> MGUParams:
        """Fresh parameters, `MGUParams`, for `input_size` input features."""
        self._check_init(key, input_size, dtype)
        start = self.initializers if isinstance(self.initializers, Initializers) else _FLAX
        full, H = accumulator(dtype), self.hidden_size
        keys = jax.random.split(key, 4)
        params = MGUParams(
            start.w_x(keys[0], (input_size, 2 * H), full),
            start.w_h(keys[1], (H, 2 * H), full),
            start.b_x(keys[2], (2 * H,), full),
            start.b_h(keys[3], (H,), full) if self.reset_gate else None,
        )
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def check_params(self, params: MGUParams, features: int) -> None:
        """Raises unless every parameter has the shape that these options and `features` of the input ask for."""
        H, who = self.hidden_size, f"MGU(hidden_size={self.hidden_size}, reset_gate={self.reset_gate})"
        if not isinstance(params, MGUParams):
            raise TypeError(f"{who}: params must be MGUParams, from cell.init; got {type(params).__name__}")
        self._check_features(params, features)
        fix = "make params with this cell's init"
        if (params.b_h is None) == self.reset_gate:
            wanted = f"have shape {[H]}" if self.reset_gate else "be None"
            raise ValueError(f"{who}: params.b_h must {wanted}; got {checks.described(params.b_h)}; {fix}")
        shapes = {"w_x": (features, 2 * H), "w_h": (H, 2 * H), "b_x": (2 * H,), "b_h": (H,)}
        for name, array in params._asdict().items():
            if array is not None:
                checks.shape(who, f"params.{name}", checks.floating(who, name, array).shape, shapes[name], fix)

    def step(
        self, params: MGUParams, u: Array, h: Array, drop: Array | None = None, products: Array | None = None
    ) -> Array:
        """One step: u `[*batch, 2H]`, h and the recurrent dropout mask `[*batch, H]` to the next state.

        `products` are the recurrent products, where they are known.
        """
        self._check_step(u, h)
        a_f, a_n, _ = self._preactivations(params, u, h, drop, products)
        f, n = self._gate(a_f), self._candidate(a_n)
        return (n + f * (h.astype(n.dtype) - n)).astype(h.dtype)

    # dh' = f dh + k_f dg_f + k_n dg_n, g being the recurrent products and s', g' the activations' slopes:
    #   k_f = (h - n) s' + (1 - f) g' q s' with q = h w_hn + b_h, the second term for reset_gate=True alone;
    #   k_n = (1 - f) g' f, without the last f for reset_gate=False.
    # With respect to u it is k_f and k_u = (1 - f) g'.

    def linearize(
        self, params: MGUParams, u: Array, h: Array, drop: Array | None = None, products: Array | None = None
    ) -> Linearization:
        """The elementwise coefficients of the step's derivative at (u, h), for `tangent` and `cotangent`."""
        a_f, a_n, q = self._preactivations(params, u, h, drop, products)
        f, n = self._gate(a_f), self._candidate(a_n)
        slope_f = activations.slope(self._gate, a_f)
        k_u = (1 - f) * activations.slope(self._candidate, a_n)
        k_f = (h.astype(n.dtype) - n) * slope_f
        if self.reset_gate:
            return Linearization(f, k_f + k_u * q * slope_f, k_u * f, k_u)
        return Linearization(f, k_f, k_u, k_u)

    def tangent(self, params: MGUParams, at: Linearization, v: Array, drop: Array | None = None) -> Array:
        """`J v`, J the step's Jacobian at the linearized point; v and the result `[*batch, H]`."""
        wide = v.astype(at.f.dtype)
        g_f, g_n = jnp.split(_product(params.w_h, scale(wide, drop)), 2, -1)
        return (at.f * wide + at.k_f * g_f + at.k_n * g_n).astype(v.dtype)

    def cotangent(
        self, params: MGUParams, at: Linearization, c: Array, drop: Array | None = None, transposed: Array | None = None
    ) -> Array:
        """`J^T c`, J the step's Jacobian at the linearized point; c and the result `[*batch, H]`.

        `transposed` is what `transposed` made of params, for a loop that would otherwise transpose them in every step.
        """
        wide = c.astype(at.f.dtype)
        back = self.transposed(params, wide.dtype) if transposed is None else transposed
        through = _product(back, jnp.concatenate([at.k_f * wide, at.k_n * wide], -1))
        return (at.f * wide + scale(through, drop)).astype(c.dtype)

    def transposed(self, params: MGUParams, dtype: DType) -> Array:
        """The recurrent matrix, transposed, for `cotangent`."""
        return params.w_h.T.astype(dtype)

    def pullback(
        self, params: MGUParams, at: Linearization, x: Array, h: Array, c: Array, drop: Array | None = None
    ) -> tuple[MGUParams, Array]:
        """What gradients c of the states after some steps give to the parameters and to the steps' input.

        Args:
          params: from `init`.
          at: the steps' linearization, of c's dtype.
          x: their input, `[*batch, I]`.
          h: the states before them, `[*batch, H]`.
          c: gradients, `[*batch, H]`, float32 at least.
          drop: recurrent dropout mask, of h's shape.

        Returns:
          The gradients of the parameters, summed over the batch, and of x, all of c's dtype.
        """
        # Gate by gate: XLA's CPU code for slices of a wider array takes several times as long.
        at_f, at_n, at_c = (rows(k * c) for k in (at.k_f, at.k_n, at.k_u))
        at_u = jnp.concatenate([at_f, at_c], -1)
        d_w_h = jnp.matmul(rows(scale(h.astype(c.dtype), drop)).T, jnp.concatenate([at_f, at_n], -1))
        d_w_x = jnp.matmul(rows(x.astype(c.dtype)).T, at_u)
        d_x = jnp.matmul(at_u, params.w_x.astype(c.dtype).T).reshape(x.shape)
        return MGUParams(d_w_x, d_w_h, sum_rows(at_u), None if params.b_h is None else sum_rows(at_n)), d_x

    def products(self, params: MGUParams, h: Array, drop: Array | None = None) -> Array:
        """The recurrent products of a step from h, `[*batch, 2H]`, for `step` and `linearize`."""
        return _product(params.w_h, scale(h, drop))

    @property
    def has_products(self) -> bool:
        """True: all recurrent products of a step are known from h alone."""
        return True

    @property
    def equations(self) -> Equations:
        """Those above, with the reset gate or without."""
        name = "mgu" if self.reset_gate else "mgu without its reset"
        return Equations(name, *map(activations.named, (self.gate_activation, self.activation)))

    def dense(self, params: MGUParams) -> Dense:
        """The parameters as those equations take them."""
        return Dense(*params)

    def diagonal(self, params: MGUParams, at: Linearization, drop: Array | None = None) -> Array:
        """The diagonal of the step's Jacobian at the linearized point, `[*batch, H]`."""
        spread = lambda w: jnp.broadcast_to(jnp.diagonal(w).astype(at.f.dtype), at.f.shape)  # noqa: E731
        w_f, w_n = map(spread, jnp.split(params.w_h, 2, -1))
        return at.f + scale(at.k_f * w_f + at.k_n * w_n, drop)

    def _preactivations(
        self, params: MGUParams, u: Array, h: Array, drop: Array | None, products: Array | None
    ) -> tuple[Array, Array, Array]:
        """Pre-activations of f and n, and the recurrent part of the candidate's."""
        u_f, u_n = jnp.split(u, 2, -1)
        g_f, q = jnp.split(self.products(params, h, drop) if products is None else products, 2, -1)
        a_f = u_f + g_f
        if params.b_h is None:
            return a_f, u_n + q, q
        q = add(q, params.b_h)
        return a_f, u_n + self._gate(a_f) * q, q


def _forget_one(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """1 for the gate's half of the biases, 0 for the candidate's."""
    return jnp.concatenate([jnp.ones(shape[0] // 2, dtype), jnp.zeros(shape[0] // 2, dtype)])


_FLAX = Initializers(
    PerGate(lecun_normal(), 2), PerGate(orthogonal(), 2), _forget_one, jax.nn.initializers.zeros
)


def _product(w: Array, h: Array) -> Array:
    return jnp.matmul(h.astype(w.dtype), w, preferred_element_type=accumulator(w.dtype))
