"""What a GRU's step is made of, and the derivative of the step in closed form.

Everything elementwise in the derivative is known once u and h are, for all steps at once; what is left for the loop
over time is one product with w_h (or its transpose). With respect to h,

    dh' = z dh + k_z dg_z + k_n dg_n + k_r dg_r

g being the recurrent products, f' and g' the slopes of the gate and the candidate activation, and

    k_z = (h - n) f'
    k_r = (1 - z) g' q f',  k_n = (1 - z) g' r     for reset="after", q = h w_hn + b_hn
    k_r = h f',             k_n = (1 - z) g'       for reset="before", where dg_n = (k_r dg_r + r dh) w_hn
                                                   and the k_r dg_r above is this one

With respect to u it is k_r, k_z and k_u = (1 - z) g', for reset="before" k_r dg_r as above.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells import activations
from gru_jax.cells.base import accumulator, sum_rows
from gru_jax.cells.gated import RecurrentGates, add, rows, scale
from gru_jax.cells.gru_params import GRUParams
from gru_jax.types import Array, DType, Tree, exportable


@exportable("GRULinearization")
class Linearization(NamedTuple):
    """The elementwise part of a GRU step's derivative at one point.

    Attributes:
      z: how much of the old state is kept, `[*batch, H]`.
      k_r, k_z, k_n: the factors of the recurrent products, each `[*batch, H]`.
      k_u: the factor of the candidate's projected input, `[*batch, H]`.
      r: the reset gate, with reset="before"; None otherwise.
    """

    z: Array
    k_r: Array
    k_z: Array
    k_n: Array
    k_u: Array
    r: Any


class GRUDerivative(RecurrentGates):
    """The part of `GRU` that its step and the derivative of the step share; the options are those of `GRU`."""

    name = "GRU"
    gates_wide = 3

    reset: str
    bias: str
    heads: int

    def linearize(
        self, params: GRUParams, u: Array, h: Array, drop: Array | None = None, products: Array | None = None
    ) -> Linearization:
        """The elementwise coefficients of the step's derivative at (u, h), for `tangent` and `cotangent`."""
        return self.linearize_with_gates(params, u, h, drop, products)[0]

    def linearize_with_gates(
        self, params: GRUParams, u: Array, h: Array, drop: Array | None = None, products: Array | None = None
    ) -> tuple[Linearization, tuple[Array, Array]]:
        """The same, and (r, n), which are computed on the way to them."""
        a_r, a_z, a_n, q, r = self._preactivations(params, u, h, drop, products)
        z, n = self._gate(a_z), self._candidate(a_n)
        old = h.astype(z.dtype)
        k_z = (old - n) * activations.slope(self._gate, a_z)
        k_u = (1 - z) * activations.slope(self._candidate, a_n)
        slope_r = activations.slope(self._gate, a_r)
        if self.reset == "after":
            return Linearization(z, k_u * q * slope_r, k_z, k_u * r, k_u, None), (r, n)
        return Linearization(z, scale(old, drop) * slope_r, k_z, k_u, k_u, r), (r, n)

    def tangent(self, params: GRUParams, at: Linearization, v: Array, drop: Array | None = None) -> Array:
        """`J v`, J the step's Jacobian at the linearized point; v and the result `[*batch, H]`."""
        v, dtype = v.astype(at.z.dtype), v.dtype
        inside = scale(v, drop)
        if self.reset == "after":
            g_r, g_z, g_n = jnp.split(self._product(params.w_h, inside), 3, -1)
            return (at.z * v + at.k_r * g_r + at.k_z * g_z + at.k_n * g_n).astype(dtype)
        w_rz, w_n = self._split_recurrent(params)
        g_r, g_z = jnp.split(self._product(w_rz, inside), 2, -1)
        g_n = self._product(w_n, at.k_r * g_r + at.r * inside)
        return (at.z * v + at.k_z * g_z + at.k_n * g_n).astype(dtype)

    def cotangent(
        self, params: GRUParams, at: Linearization, c: Array, drop: Array | None = None, transposed: Tree = None
    ) -> Array:
        """`J^T c`, J the step's Jacobian at the linearized point; c and the result `[*batch, H]`.

        `transposed` is what `transposed` made of params, for a loop that would otherwise transpose them in every step.
        """
        c, dtype = c.astype(at.z.dtype), c.dtype
        if self.reset == "after":
            at_products = jnp.concatenate([at.k_r * c, at.k_z * c, at.k_n * c], -1)
            through = self._product_transpose(params.w_h, at_products, transposed)
            return (at.z * c + scale(through, drop)).astype(dtype)
        w_rz, w_n = self._split_recurrent(params)
        w_rz_t, w_n_t = (None, None) if transposed is None else transposed
        p = self._product_transpose(w_n, at.k_n * c, w_n_t)
        at_rz = jnp.concatenate([at.k_r * p, at.k_z * c], -1)
        through = at.r * p + self._product_transpose(w_rz, at_rz, w_rz_t)
        return (at.z * c + scale(through, drop)).astype(dtype)

    def transposed(self, params: GRUParams, dtype: DType) -> Array | tuple[Array, ...]:
        """The recurrent matrices, transposed, for `cotangent`."""
        turn = lambda w: jnp.swapaxes(w, -1, -2).astype(dtype)  # noqa: E731
        if self.reset == "after":
            return turn(params.w_h)
        return tuple(turn(w) for w in self._split_recurrent(params))

    def pullback(
        self, params: GRUParams, at: Linearization, x: Array, h: Array, c: Array, drop: Array | None = None
    ) -> tuple[GRUParams, Array]:
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
        inside, x_rows = rows(scale(h.astype(c.dtype), drop)), rows(x.astype(c.dtype))
        if self.reset == "after":
            # Gate by gate: XLA's CPU code for slices of a wider array takes several times as long.
            at_r, at_z, at_n, at_c = (rows(k * c) for k in (at.k_r, at.k_z, at.k_n, at.k_u))
            at_products = jnp.concatenate([at_r, at_z, at_n], -1)
            at_u = jnp.concatenate([at_r, at_z, at_c], -1)
            d_w_h = self._product_pullback(inside, at_products)
        else:
            at_n = at.k_u * c
            through_n = self._product_transpose(self._split_recurrent(params)[1], at_n)
            at_products = at_u = rows(jnp.concatenate([at.k_r * through_n, at.k_z * c, at_n], -1))
            d_w_rz = self._product_pullback(inside, at_u[:, : 2 * self.hidden_size])
            d_w_n = self._product_pullback(rows(at.r) * inside, rows(at_n))
            d_w_h = jnp.concatenate([d_w_rz, d_w_n], -1)
        d_x = jnp.matmul(at_u, params.w_x.astype(c.dtype).T).reshape(x.shape)
        d_w_x = jnp.matmul(x_rows.T, at_u)
        if params.b_x is None:
            return GRUParams(d_w_x, d_w_h, None, None), d_x
        d_b_h = sum_rows(at_products if self.bias == "full" else at_products[:, 2 * self.hidden_size :])
        return GRUParams(d_w_x, d_w_h, sum_rows(at_u), d_b_h), d_x

    def products(self, params: GRUParams, h: Array, drop: Array | None = None) -> Array:
        """The recurrent products of a step from h, `[*batch, 3H]`, for `step` and `linearize`; reset="after" only."""
        return self._product(params.w_h, scale(h, drop))

    @property
    def has_products(self) -> bool:
        """Whether all recurrent products of a step are known from h alone."""
        return self.reset == "after"

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
            return at.z + scale(through + at.k_r * spread(w_r) + at.k_n * spread(w_n), drop)
        # (k_r (h w_hr) + r h) w_hn: the first term reaches a unit from itself through all the others of its head.
        wide = blocks.astype(at.z.dtype)
        product = jnp.einsum("kim,kmi->kmi", wide[..., :size], wide[..., 2 * size :])
        k_r = at.k_r.reshape(*at.k_r.shape[:-1], self.heads, size)
        around = jnp.einsum("...km,kmi->...ki", k_r, product).reshape(at.z.shape)
        return at.z + scale(through + at.k_n * (around + at.r * spread(w_n)), drop)

    def _preactivations(
        self, params: GRUParams, u: Array, h: Array, drop: Array | None, products: Array | None = None
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Pre-activations of r, z, n, the recurrent part q of the candidate's, and r."""
        inside = scale(h, drop)
        u_r, u_z, u_n = jnp.split(u, 3, -1)
        b_rz, b_n = self._split_bias(params)
        if self.reset == "after":
            g_r, g_z, g_n = jnp.split(self._product(params.w_h, inside) if products is None else products, 3, -1)
        else:
            w_rz, w_n = self._split_recurrent(params)
            g_r, g_z = jnp.split(self._product(w_rz, inside), 2, -1)
        if b_rz is not None:
            b_r, b_z = jnp.split(b_rz, 2, -1)
            g_r, g_z = add(g_r, b_r), add(g_z, b_z)
        a_r, a_z = u_r + g_r, u_z + g_z
        r = self._gate(a_r)
        if self.reset == "after":
            q = add(g_n, b_n)
            return a_r, a_z, u_n + r * q, q, r
        q = add(self._product(w_n, r * inside.astype(r.dtype)), b_n)
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

    def _product_transpose(self, w: Array, c: Array, transposed: Array | None = None) -> Array:
        """The transpose of `_product`: `[*batch, G H]` to `[*batch, H]`."""
        if transposed is not None and self.heads == 1:
            return jnp.matmul(c, transposed)
        # The point is a slice of c, not a bare shape: inside jax.shard_map it has to vary over the mesh as c does, or
        # the transpose would add up over devices what belongs to each.
        point = jnp.zeros_like(c[..., : self.hidden_size])
        return jax.vjp(lambda v: self._product(w.astype(c.dtype), v), point)[1](c)[0]

    def _product_pullback(self, h: Array, c: Array) -> Array:
        """The gradient of w in `_product`, summed over the batch, for h `[N, H]` and c `[N, G H]`."""
        if self.heads == 1:
            return jnp.matmul(h.T, c)
        size = self.hidden_size // self.heads
        w = jax.ShapeDtypeStruct((self.heads, size, c.shape[-1] // self.heads), c.dtype)
        return jax.linear_transpose(lambda w: self._product(w, h), w)(c)[0]

    def _split_recurrent(self, params: GRUParams) -> tuple[Array, Array]:
        width = 2 * self.hidden_size // self.heads
        return params.w_h[..., :width], params.w_h[..., width:]

    def _split_bias(self, params: GRUParams) -> tuple[Array | None, Array | None]:
        if params.b_h is None or self.bias == "minimal":
            return None, params.b_h
        return params.b_h[: 2 * self.hidden_size], params.b_h[2 * self.hidden_size :]
