"""The gated recurrent unit, one step of it.

Neutral layout: gates in the order r, z, n on the last axis; z keeps the old state.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import activations, gru_params, initializers
from gru_jax.cells.base import Gates, accumulator
from gru_jax.cells.gru_params import GRUParams
from gru_jax.cells.initializers import Initializers
from gru_jax.types import Activation, Array, DType, Key


class Linearization(NamedTuple):
    """The elementwise part of a GRU step's derivative at one point, each `[*batch, H]`; r with reset="before" only."""

    z: Array
    k_r: Array
    k_z: Array
    k_n: Array
    r: Any


@dataclasses.dataclass(frozen=True, init=False)
class GRU:
    """Gated recurrent unit.

    With `u = x w_x + b_x` and f, g the gate and the candidate activation,

        r  = f(u_r + h w_hr + b_hr)
        z  = f(u_z + h w_hz + b_hz)
        n  = g(u_n + r * (h w_hn + b_hn))        reset="after": torch, cuDNN, Keras' default, flax
        n  = g(u_n + (r * h) w_hn + b_hn)        reset="before": the paper, Keras' reset_after=False
        h' = (1 - z) * n + z * h

    Args:
      hidden_size: H, the number of units.
      reset: "after" or "before" the recurrent product; the two compute different functions and cannot be converted
        into each other.
      activation: g, a name (see `gru_jax.cells.activations.ACTIVATIONS`) or an elementwise function.
      gate_activation: f, likewise.
      bias: "full" (6 vectors, as torch and Keras), "minimal" (4 vectors: those that are not redundant when the reset
        comes after the product) or "none".
      heads: k blocks on the diagonal of the recurrent matrix: 1 is dense, k > 1 is block-diagonal (each head of
        H/k units sees only itself), H is diagonal.
      init: "flax", "keras" or "torch" for that framework's default initialisation, or `Initializers`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> cell = GRU(hidden_size=4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> h = cell.step(params, cell.project(params, jnp.ones((2, 3))), jnp.zeros((2, 4)))
      >>> h.shape
      (2, 4)

    Source: Cho et al. 2014, arXiv:1406.1078; "after" as in torch.nn.GRU and keras.layers.GRU(reset_after=True).
    """

    hidden_size: int
    reset: str
    activation: Activation
    gate_activation: Activation
    bias: str
    heads: int
    initializers: str | Initializers

    # Written out because the option `init` and the method `init` share a name, which a generated one cannot do.
    def __init__(
        self,
        hidden_size: int,
        *,
        reset: str = "after",
        activation: Activation = "tanh",
        gate_activation: Activation = "sigmoid",
        bias: str = "full",
        heads: int = 1,
        init: str | Initializers = "flax",
    ) -> None:
        checks.positive("GRU", "hidden_size", hidden_size)
        checks.choice("GRU", "reset", reset, ("after", "before"))
        activations.check("GRU", "activation", activation)
        activations.check("GRU", "gate_activation", gate_activation)
        checks.choice("GRU", "bias", bias, ("full", "minimal", "none"))
        checks.positive("GRU", "heads", heads)
        if hidden_size % heads:
            raise ValueError(
                f"GRU: hidden_size must be divisible by heads; got hidden_size={hidden_size} and heads={heads};"
                f" pass heads=1 for a dense recurrent matrix or heads={hidden_size} for a diagonal one"
            )
        initializers.check("GRU", init)
        options = (hidden_size, reset, activation, gate_activation, bias, heads, init)
        for field, value in zip(dataclasses.fields(self), options, strict=True):
            object.__setattr__(self, field.name, value)

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> GRUParams:
        """Fresh parameters.

        Args:
          key: random key.
          input_size: I, the number of input features.
          dtype: of every parameter.

        Returns:
          `GRUParams`.

        Raises:
          TypeError, ValueError: when `input_size` is no whole number of at least 1.

        Example:
          >>> import jax
          >>> GRU(4, bias="none").init(jax.random.key(0), input_size=3).w_x.shape
          (3, 12)
        """
        checks.positive("GRU", "input_size", input_size)
        checks.random_key("GRU", key)
        checks.floating_dtype("GRU", dtype)
        start = initializers.get(self.initializers, self.hidden_size)
        # Drawn in full precision: an orthogonal matrix cannot be computed in half.
        full = accumulator(dtype)
        key_w_x, key_w_h, key_b_x, key_b_h = jax.random.split(key, 4)
        width = 3 * self.hidden_size
        block = (self.hidden_size // self.heads, width // self.heads)
        w_x = start.w_x(key_w_x, (input_size, width), full)
        if self.heads == 1:
            w_h = start.w_h(key_w_h, block, full)
        else:
            w_h = jax.vmap(lambda k: start.w_h(k, block, full))(jax.random.split(key_w_h, self.heads))
        b_x = None if self.bias == "none" else start.b_x(key_b_x, (width,), full)
        inside = gru_params.shape_of_b_h(self.hidden_size, self.bias)
        b_h = None if self.bias == "none" else start.b_h(key_b_h, inside, full)
        return jax.tree.map(lambda p: p.astype(dtype), GRUParams(w_x, w_h, b_x, b_h))

    def check_params(self, params: GRUParams, features: int) -> None:
        """Raises unless every parameter has the shape that these options and `features` of the input ask for."""
        gru_params.check(params, features, self.hidden_size, self.bias, self.heads)

    def project(self, params: GRUParams, x: Array) -> Array:
        """`u = x w_x + b_x`: everything that needs no state.

        Args:
          params: from `init`.
          x: input, `[*batch, I]`; a time axis may be among the leading ones.

        Returns:
          u, `[*batch, 3H]`, gates r, z, n side by side; float32 for half-precision `x`.

        Raises:
          ValueError: when x has another number of features than `params` were made for.
        """
        x = checks.floating("GRU", "x", x)
        gru_params.check_features(params, x.shape[-1] if x.ndim else 0)
        u = jnp.matmul(x, params.w_x, preferred_element_type=accumulator(x.dtype))
        return _add(u, params.b_x)

    def step(self, params: GRUParams, u: Array, h: Array, drop: Array | None = None) -> Array:
        """One step, `h' = (1 - z) * n + z * h`.

        Args:
          params: from `init`.
          u: projected input, `[*batch, 3H]`.
          h: state, `[*batch, H]`.
          drop: recurrent dropout mask, `[*batch, H]`, already scaled; it multiplies h inside the products only.

        Returns:
          The next state, `[*batch, H]`, in the dtype of h.

        Raises:
          ValueError: when u or h does not have its shape.
        """
        if u.shape[-1:] != (3 * self.hidden_size,):
            raise ValueError(
                f"GRU: u must be the projected input, [*batch, {3 * self.hidden_size}]; got shape {list(u.shape)};"
                f" make it with cell.project(params, x)"
            )
        batch = "the state has the batch of u; cell.initial_state(batch) makes zeros"
        checks.shape("GRU", "h", h.shape, (*u.shape[:-1], self.hidden_size), batch)
        _, a_z, a_n, _, _ = self._preactivations(params, u, h, drop)
        z, n = self._gate(a_z), self._candidate(a_n)
        return (n + z * (h.astype(n.dtype) - n)).astype(h.dtype)

    def gates(self, params: GRUParams, u: Array, h: Array, drop: Array | None = None) -> Gates:
        """What the step from h decides: `Gates(r, z, n)`, each `[*batch, H]`. Arguments as for `step`."""
        _, a_z, a_n, _, r = self._preactivations(params, u, h, drop)
        return Gates(*(a.astype(h.dtype) for a in (r, self._gate(a_z), self._candidate(a_n))))

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        """Zeros, `[*batch, H]`."""
        return jnp.zeros((*batch, self.hidden_size), dtype)

    def output(self, h: Array) -> Array:
        """The state itself, `[*batch, H]`."""
        return h

    # The derivative of the step with respect to h, in closed form. Everything elementwise in it is known once u and h
    # are, for all steps at once; what is left for the loop over time is one product with w_h (or its transpose).
    #
    #   dh' = z dh + k_z dg_z + k_n dg_n + k_r dg_r,  g = the recurrent products,  with, writing ' for the slopes,
    #   k_z = (h - n) f'
    #   k_r = (1 - z) g' q f',  k_n = (1 - z) g' r     for reset="after", q = h w_hn + b_hn
    #   k_r = h f',             k_n = (1 - z) g'       for reset="before", where dg_n = (k_r dg_r + r dh) w_hn
    #                                                  and the k_r dg_r above is this one

    def linearize(self, params: GRUParams, u: Array, h: Array, drop: Array | None = None) -> Linearization:
        """The elementwise coefficients of the step's derivative at (u, h), for `tangent` and `cotangent`."""
        a_r, a_z, a_n, q, r = self._preactivations(params, u, h, drop)
        z, n = self._gate(a_z), self._candidate(a_n)
        old = h.astype(z.dtype)
        k_z = (old - n) * activations.slope(self._gate, a_z)
        k_n = (1 - z) * activations.slope(self._candidate, a_n)
        slope_r = activations.slope(self._gate, a_r)
        if self.reset == "after":
            return Linearization(z, k_n * q * slope_r, k_z, k_n * r, None)
        return Linearization(z, _scale(old, drop) * slope_r, k_z, k_n, r)

    def tangent(self, params: GRUParams, at: Linearization, v: Array, drop: Array | None = None) -> Array:
        """`J v`, J the step's Jacobian at the linearized point; v and the result `[*batch, H]`."""
        v, dtype = v.astype(at.z.dtype), v.dtype
        inside = _scale(v, drop)
        if self.reset == "after":
            g_r, g_z, g_n = jnp.split(self._product(params.w_h, inside), 3, -1)
            return (at.z * v + at.k_r * g_r + at.k_z * g_z + at.k_n * g_n).astype(dtype)
        w_rz, w_n = self._split_recurrent(params)
        g_r, g_z = jnp.split(self._product(w_rz, inside), 2, -1)
        g_n = self._product(w_n, at.k_r * g_r + at.r * inside)
        return (at.z * v + at.k_z * g_z + at.k_n * g_n).astype(dtype)

    def cotangent(self, params: GRUParams, at: Linearization, c: Array, drop: Array | None = None) -> Array:
        """`J^T c`, J the step's Jacobian at the linearized point; c and the result `[*batch, H]`."""
        c, dtype = c.astype(at.z.dtype), c.dtype
        if self.reset == "after":
            through = self._product_transpose(
                params.w_h, jnp.concatenate([at.k_r * c, at.k_z * c, at.k_n * c], -1)
            )
            return (at.z * c + _scale(through, drop)).astype(dtype)
        w_rz, w_n = self._split_recurrent(params)
        p = self._product_transpose(w_n, at.k_n * c)
        through = at.r * p + self._product_transpose(w_rz, jnp.concatenate([at.k_r * p, at.k_z * c], -1))
        return (at.z * c + _scale(through, drop)).astype(dtype)

    def diagonal(self, params: GRUParams, at: Linearization, drop: Array | None = None) -> Array:
        """The diagonal of the step's Jacobian at the linearized point, `[*batch, H]`, without the Jacobian."""
        size = self.hidden_size // self.heads
        blocks = params.w_h if self.heads > 1 else params.w_h[None]
        w_r, w_z, w_n = (
            jnp.diagonal(w, axis1=-2, axis2=-1).reshape(-1).astype(at.z.dtype) for w in jnp.split(blocks, 3, -1)
        )
        spread = lambda w: jnp.broadcast_to(w, at.z.shape)  # noqa: E731
        through = at.k_z * spread(w_z)
        if self.reset == "after":
            return at.z + _scale(through + at.k_r * spread(w_r) + at.k_n * spread(w_n), drop)
        # (k_r (h w_hr) + r h) w_hn: the first term reaches a unit from itself through all the others of its head.
        wide = blocks.astype(at.z.dtype)
        product = jnp.einsum("kim,kmi->kmi", wide[..., :size], wide[..., 2 * size :])
        k_r = at.k_r.reshape(*at.k_r.shape[:-1], self.heads, size)
        around = jnp.einsum("...km,kmi->...ki", k_r, product).reshape(at.z.shape)
        return at.z + _scale(through + at.k_n * (around + at.r * spread(w_n)), drop)

    @property
    def block_size(self) -> int:
        """Units of one head: no unit's next state depends on a state outside of its own head."""
        return self.hidden_size // self.heads

    def _preactivations(
        self, params: GRUParams, u: Array, h: Array, drop: Array | None
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Pre-activations of r, z, n, the recurrent part q of the candidate's, and r."""
        inside = _scale(h, drop)
        u_r, u_z, u_n = jnp.split(u, 3, -1)
        b_rz, b_n = self._split_bias(params)
        if self.reset == "after":
            g_r, g_z, g_n = jnp.split(self._product(params.w_h, inside), 3, -1)
        else:
            w_rz, w_n = self._split_recurrent(params)
            g_r, g_z = jnp.split(self._product(w_rz, inside), 2, -1)
        if b_rz is not None:
            b_r, b_z = jnp.split(b_rz, 2, -1)
            g_r, g_z = _add(g_r, b_r), _add(g_z, b_z)
        a_r, a_z = u_r + g_r, u_z + g_z
        r = self._gate(a_r)
        if self.reset == "after":
            q = _add(g_n, b_n)
            return a_r, a_z, u_n + r * q, q, r
        q = _add(self._product(w_n, r * inside.astype(r.dtype)), b_n)
        return a_r, a_z, u_n + q, q, r

    def _product(self, w: Array, h: Array) -> Array:
        """The recurrent product, `[*batch, H]` to `[*batch, G H]`, for G gates side by side on w's last axis."""
        out = accumulator(w.dtype)
        h = h.astype(w.dtype)
        if self.heads == 1:
            return jnp.matmul(h, w, preferred_element_type=out)
        size = self.hidden_size // self.heads
        per_head = h.reshape(*h.shape[:-1], self.heads, size)
        if jax.default_backend() == "cpu":
            # XLA has no product there of half-precision blocks that is summed in single.
            per_head, w = per_head.astype(out), w.astype(out)
        g = jnp.einsum("...ki,kij->...kj", per_head, w, preferred_element_type=out)
        gates = w.shape[-1] // size
        g = g.reshape(*h.shape[:-1], self.heads, gates, size)
        return jnp.moveaxis(g, -2, -3).reshape(*h.shape[:-1], gates * self.hidden_size)

    def _product_transpose(self, w: Array, c: Array) -> Array:
        """The transpose of `_product`: `[*batch, G H]` to `[*batch, H]`."""
        # The point is a slice of c, not a bare shape: inside jax.shard_map it has to vary over the mesh as c does, or
        # the transpose would add up over devices what belongs to each.
        point = jnp.zeros_like(c[..., : self.hidden_size])
        return jax.vjp(lambda v: self._product(w.astype(c.dtype), v), point)[1](c)[0]

    def _split_recurrent(self, params: GRUParams) -> tuple[Array, Array]:
        width = 2 * self.hidden_size // self.heads
        return params.w_h[..., :width], params.w_h[..., width:]

    def _split_bias(self, params: GRUParams) -> tuple[Array | None, Array | None]:
        if params.b_h is None or self.bias == "minimal":
            return None, params.b_h
        return params.b_h[: 2 * self.hidden_size], params.b_h[2 * self.hidden_size :]

    def _gate(self, a: Array) -> Array:
        return activations.get(self.gate_activation)(a)

    def _candidate(self, a: Array) -> Array:
        return activations.get(self.activation)(a)


def _add(a: Array, bias: Array | None) -> Array:
    """`a + bias`, the bias spelled out to a's shape: users may run with rank promotion forbidden."""
    return a if bias is None else a + jnp.broadcast_to(bias.astype(a.dtype), a.shape)


def _scale(a: Array, mask: Array | None) -> Array:
    return a if mask is None else a * mask.astype(a.dtype)
