"""GRU-D: a GRU for series with missing values and uneven steps, whose inputs and state decay while nothing is seen."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.cells.base import Gates, accumulator
from gru_jax.cells.gated import GatedCell, add
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_params import GRUParams
from gru_jax.cells.initializers import Initializers
from gru_jax.types import Activation, Array, DType, Key, Tree, exportable


@exportable("GRUDParams")
class GRUDParams(NamedTuple):
    """The parameters of a `GRUD` for D variables.

    Attributes:
      gru: those of the GRU inside, whose input is filled-in values and masks side by side: `w_x` is `[2D, 3H]`.
      w_value, b_value: how fast a value decays, each `[D]`.
      w_state, b_state: how fast the state decays, `[D, H]` and `[H]`.
    """

    gru: GRUParams
    w_value: Array
    b_value: Array
    w_state: Array
    b_state: Array


@exportable("GRUDLinearization")
class Linearization(NamedTuple):
    """The elementwise part of a step's derivative at one point.

    Attributes:
      gru: that of the GRU's step from the state that has decayed.
      decay: what is left of the state before it, `[*batch, H]`.
    """

    gru: Any
    decay: Array


@checks.suggesting
@dataclasses.dataclass(frozen=True, init=False)
class GRUD(GatedCell):
    """Gated recurrent unit with decays, for series with missing values and uneven steps.

    A step's input is v, m and d side by side, as `gj.observed` makes them: of each variable the last value that was
    seen, whether that was now, and the time since the observation before. With c the variables' mean,

        gamma_x = exp(-max(0, w_value * d + b_value))
        gamma_h = exp(-max(0, d w_state + b_state))
        x       = m * v + (1 - m) * (gamma_x * v + (1 - gamma_x) * c)
        h'      = GRU([x, m], gamma_h * h)

    A missing value decays from the last one to the mean, and the state to 0.

    Args:
      hidden_size: H, the number of units.
      mean: c, a number or one for each variable: that of the observed training values. Not learned: with values less
        their mean, 0, the biases do the rest.
      reset: where the GRU's reset acts, "before" (the paper) or "after" the recurrent product.
      activation, gate_activation, bias, heads, init: of the GRU, see `GRU`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, numpy as np, gru_jax as gj
      >>> series = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, np.nan]], np.float32)
      >>> x = gj.observed(series, times=np.array([0.0, 0.2, 1.5])).x
      >>> cell = gj.GRUD(4)
      >>> params = cell.init(jax.random.key(0), input_size=x.shape[-1])
      >>> y, h = gj.scan(cell, params, x)
      >>> x.shape, y.shape
      ((3, 6), (3, 4))

    Source: Che et al. 2018, arXiv:1606.01865, equations 10 to 17.
    """

    name = "GRUD"
    gates_wide = 4  # the projected input of the GRU's three, and what is left of the state
    input_dropout = False

    hidden_size: int
    mean: float | tuple[float, ...]
    reset: str
    activation: Activation
    gate_activation: Activation
    bias: str
    heads: int
    initializers: str | Initializers

    def __init__(
        self,
        hidden_size: int,
        *,
        mean: float | Sequence[float] = 0.0,
        reset: str = "before",
        activation: Activation = "tanh",
        gate_activation: Activation = "sigmoid",
        bias: str = "full",
        heads: int = 1,
        init: str | Initializers = "flax",
    ) -> None:
        self._set(hidden_size, _mean(mean), reset, activation, gate_activation, bias, heads, init)
        _ = self.gru  # which looks at its options

    @property
    def gru(self) -> GRU:
        """The GRU inside."""
        return GRU(
            self.hidden_size, reset=self.reset, activation=self.activation, gate_activation=self.gate_activation,
            bias=self.bias, heads=self.heads, init=self.initializers,
        )  # fmt: skip

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> GRUDParams:
        """Fresh parameters, `GRUDParams`, for `input_size` input features, three for each variable."""
        self._check_init(key, input_size, dtype)
        D, full = self._variables(input_size), accumulator(dtype)
        keys = jax.random.split(key, 3)
        # Above 0: times are, so that a weight below 0 would be one that no gradient ever reaches.
        rate = lambda key, shape: jax.random.uniform(key, shape, full, 0, shape[-1] ** -0.5)  # noqa: E731
        of_value, of_state = rate(keys[1], (D,)), rate(keys[2], (D, self.hidden_size))
        gru, b_state = self.gru.init(keys[0], 2 * D, dtype), jnp.zeros(self.hidden_size, full)
        params = GRUDParams(gru, of_value, jnp.zeros(D, full), of_state, b_state)
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def input_size(self, params: GRUDParams) -> int:
        """How many features of the input parameters were made for: three for each variable."""
        return 3 * params.w_value.shape[0]

    def check_params(self, params: GRUDParams, features: int) -> None:
        """Raises unless every parameter has the shape that these options and `features` of the input ask for."""
        H, who = self.hidden_size, f"GRUD(hidden_size={self.hidden_size})"
        if not isinstance(params, GRUDParams):
            raise TypeError(f"{who}: params must be GRUDParams, from cell.init; got {type(params).__name__}")
        for name in GRUDParams._fields[1:]:
            checks.floating(who, f"params.{name}", getattr(params, name))
        self._check_features(params, features)
        D = self._variables(features)
        shapes = {"w_value": (D,), "b_value": (D,), "w_state": (D, H), "b_state": (H,)}
        for name, shape in shapes.items():
            fix = "make params with this cell's init"
            checks.shape(who, f"params.{name}", getattr(params, name).shape, shape, fix)
        self.gru.check_params(params.gru, 2 * D)

    def project(self, params: GRUDParams, x: Array) -> Array:
        """Everything that needs no state: the GRU's projected input and what will be left of the state.

        Args:
          params: from `init`.
          x: values, masks and times since, `[*batch, 3D]`; a time axis may be among the leading ones.

        Returns:
          u, `[*batch, 4H]`; float32 for half-precision `x`.

        Raises:
          ValueError: when x has another number of features than `params` were made for.
        """
        x = checks.floating(self.name, "x", x)
        self._check_features(params, x.shape[-1] if x.ndim else 0)
        inside, decay = self._inside(params, x)
        return jnp.concatenate([self.gru.project(params.gru, inside), decay], -1)

    def step(self, params: GRUDParams, u: Array, h: Array, drop: Array | None = None) -> Array:
        """One step: u `[*batch, 4H]`, h and the recurrent dropout mask `[*batch, H]` to the next state."""
        self._check_step(u, h)
        u, decay = self._parts(u)
        return self.gru.step(params.gru, u, _decayed(decay, h), drop).astype(h.dtype)

    def gates(self, params: GRUDParams, u: Array, h: Array, drop: Array | None = None) -> Gates:
        """What the GRU's step decides: `Gates(r, z, n)`, each `[*batch, H]`. Arguments as for `step`."""
        u, decay = self._parts(u)
        return Gates(*(a.astype(h.dtype) for a in self.gru.gates(params.gru, u, _decayed(decay, h), drop)))

    # The step's Jacobian is J diag(gamma_h), J being that of the GRU's step at gamma_h h.

    def linearize(self, params: GRUDParams, u: Array, h: Array, drop: Array | None = None) -> Linearization:
        """The elementwise coefficients of the step's derivative at (u, h), for `tangent` and `cotangent`."""
        u, decay = self._parts(u)
        return Linearization(self.gru.linearize(params.gru, u, _decayed(decay, h), drop), decay)

    def tangent(self, params: GRUDParams, at: Linearization, v: Array, drop: Array | None = None) -> Array:
        """`J v`, J the step's Jacobian at the linearized point; v and the result `[*batch, H]`."""
        return self.gru.tangent(params.gru, at.gru, _decayed(at.decay, v), drop).astype(v.dtype)

    def cotangent(
        self, params: GRUDParams, at: Linearization, c: Array, drop: Array | None = None, transposed: Tree = None
    ) -> Array:
        """`J^T c`, J the step's Jacobian at the linearized point; c and the result `[*batch, H]`.

        `transposed` is what `transposed` made of params, for a loop that would otherwise transpose them in every step.
        """
        through = self.gru.cotangent(params.gru, at.gru, c.astype(at.decay.dtype), drop, transposed)
        return (at.decay * through).astype(c.dtype)

    def transposed(self, params: GRUDParams, dtype: DType) -> Tree:
        """The recurrent matrices, transposed, for `cotangent`."""
        return self.gru.transposed(params.gru, dtype)

    def diagonal(self, params: GRUDParams, at: Linearization, drop: Array | None = None) -> Array:
        """The diagonal of the step's Jacobian at the linearized point, `[*batch, H]`."""
        return at.decay * self.gru.diagonal(params.gru, at.gru, drop)

    def pullback(
        self, params: GRUDParams, at: Linearization, x: Array, h: Array, c: Array, drop: Array | None = None
    ) -> tuple[GRUDParams, Array]:
        """What gradients c of the states after some steps give to the parameters and to the steps' input.

        Args:
          params: from `init`.
          at: the steps' linearization, of c's dtype.
          x: their input, `[*batch, 3D]`.
          h: the states before them, `[*batch, H]`.
          c: gradients, `[*batch, H]`, float32 at least.
          drop: recurrent dropout mask, of h's shape.

        Returns:
          The gradients of the parameters, summed over the batch, and of x, all of c's dtype.
        """
        wide, h = jax.tree.map(lambda a: a.astype(c.dtype), params), h.astype(c.dtype)
        (inside, decay), pull = jax.vjp(self._inside, wide, x.astype(c.dtype))
        d_gru, d_inside = self.gru.pullback(params.gru, at.gru, inside, decay * h, c, drop)
        d_decay = h * self.gru.cotangent(params.gru, at.gru, c, drop)
        d_params, d_x = pull((d_inside, d_decay))
        return d_params._replace(gru=d_gru), d_x

    @property
    def block_size(self) -> int:
        """Units of one head: no unit's next state depends on a state outside of its own head."""
        return self.gru.block_size

    def _inside(self, params: GRUDParams, x: Array) -> tuple[Array, Array]:
        """What the GRU is given, `[*batch, 2D]`, and what is left of the state, `[*batch, H]`."""
        wide = accumulator(x.dtype)
        v, m, d = jnp.split(x, 3, -1)
        left = jnp.exp(-jax.nn.relu(add(d.astype(wide) * _spread(params.w_value, d, wide), params.b_value)))
        to_mean = (1 - left) * _spread(jnp.asarray(self.mean, wide), d, wide)
        value, seen = v.astype(wide), m.astype(wide)
        filled = seen * value + (1 - seen) * (left * value + to_mean)
        rate = add(jnp.matmul(d, params.w_state, preferred_element_type=wide), params.b_state)
        return jnp.concatenate([filled.astype(x.dtype), m], -1), jnp.exp(-jax.nn.relu(rate))

    def _parts(self, u: Array) -> tuple[Array, Array]:
        return u[..., : 3 * self.hidden_size], u[..., 3 * self.hidden_size :]

    def _variables(self, features: int) -> int:
        """D; raises unless there are three features for each variable, and a mean."""
        D, rest = divmod(features, 3)
        if rest:
            raise ValueError(
                f"{self.name}: x must be [*batch, 3D], of each variable its value, its mask and the time since; got"
                f" {features} features; make it with gj.observed(series, times).x"
            )
        if isinstance(self.mean, tuple) and len(self.mean) != D:
            raise ValueError(
                f"{self.name}: mean must be a number or one for each of the {D} variables; got {len(self.mean)}"
            )
        return D

    def _check_features(self, params: GRUDParams, features: int) -> None:
        self._variables(features)
        made_for = self.input_size(params)
        if features != made_for:
            raise ValueError(
                f"{self.name}: x has {features} features but params were made for {made_for};"
                f" pass input_size={features} to init"
            )


def _decayed(decay: Array, h: Array) -> Array:
    return decay * h.astype(decay.dtype)


def _spread(a: Array, like: Array, dtype: DType) -> Array:
    return jnp.broadcast_to(a.astype(dtype), like.shape)


def _mean(got: float | Sequence[float]) -> float | tuple[float, ...]:
    """A plain number or a tuple of such, so that the cell can be hashed; raises for what is neither."""
    found = np.asarray(got)
    if found.dtype.kind not in "fiu" or found.ndim > 1 or not np.isfinite(found).all():
        raise TypeError(f"GRUD: mean must be a finite number or one for each variable; got {checks.described(got)}")
    return tuple(map(float, found)) if found.ndim else float(found)
