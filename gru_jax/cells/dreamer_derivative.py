"""What a DreamerGRU's step is made of, and the derivative of the step in closed form.

A norm and its derivative: with i = 1 / sqrt(mean((a - m)^2) + epsilon) and m = mean(a), 0 for norm="rms",

    a^ = i (a - m),  da^ = i (da - mean(da) - a^ mean(a^ da)),        without mean(da) for norm="rms"

which is symmetric in da and da^, so that one function goes both ways. What is kept of a norm is (a^, i); with that and
the slopes of activations and gates all of the derivative is known but for the products with matrices, which are left
to the loop over time.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells import activations
from gru_jax.cells.base import accumulator, sum_rows
from gru_jax.cells.dreamer_params import DreamerGRUParams, DreamerLinear
from gru_jax.cells.gated import GatedCell, add, rows
from gru_jax.types import Activation, Array, DType, exportable

WRITTEN_OUT = 32
"""Up to how many heads a block product is one product for each on a CPU, where XLA's one for all takes longer."""


@exportable("DreamerNormed")
class Normed(NamedTuple):
    """A norm, and the activation of what it gives, at one point.

    Attributes:
      normed: what was normalised, `[*batch, m]`.
      inverse: what it was multiplied with for that, `[*batch, 1]`.
      slope: the activation's, `[*batch, m]`; None where gates follow.
    """

    normed: Array
    inverse: Array
    slope: Array | None


@exportable("DreamerLinearization")
class Linearization(NamedTuple):
    """The elementwise part of a DreamerGRU step's derivative at one point.

    Attributes:
      kept: how much of the old state is kept, `[*batch, H]`.
      k_a: the factors of the gates' pre-activations, `[*batch, 3H]`.
      state: the norm of the state's projection; None with `layers=0`.
      norms: those of the joint product and of each that follows, None where it has none.
    """

    kept: Array
    k_a: Array
    state: Normed | None
    norms: tuple[Normed | None, ...]


class Reaching(NamedTuple):
    """Gradients at a linear map: of its product, and of what its norm makes of that, after scale and shift."""

    product: Array
    normed: Array


class DreamerDerivative(GatedCell):
    """The part of `DreamerGRU` that its step and the derivative of the step share; the options are those there."""

    name = "DreamerGRU"

    heads: int
    norm: str
    layers: int
    activation: Activation
    epsilon: float
    update_bias: float

    @property
    def gates_wide(self) -> int:  # type: ignore[override]
        """How many times H numbers a projected input has."""
        return 1 if self.layers else 3

    def linearize(self, params: DreamerGRUParams, u: Array, h: Array, products: Array | None = None) -> Linearization:
        """The elementwise coefficients of the step's derivative at (u, h), for `tangent` and `cotangent`."""
        a, state, norms = self._preactivations(params, u, h, products)
        r, z, n, q = self._gates(a)
        k_n = z * (1 - n * n)
        k_z = (n - h.astype(n.dtype)) * z * (1 - z)
        return Linearization(1 - z, jnp.concatenate([k_n * q * r * (1 - r), k_z, k_n * r], -1), state, norms)

    def tangent(self, params: DreamerGRUParams, at: Linearization, v: Array) -> Array:
        """`J v`, J the step's Jacobian at the linearized point; v and the result `[*batch, H]`."""
        wide = v.astype(at.kept.dtype)
        p = block_product(params.joint.w, wide)
        if params.state is not None and at.state is not None and params.w_s is not None:
            inside = self._after(params.state, at.state, product(params.state.w, wide))
            p = p + product(params.w_s, inside)
        for k, (linear, norm) in enumerate(zip((params.joint, *params.layers), at.norms, strict=True)):
            p = block_product(linear.w, p) if k else p
            p = p if norm is None else self._after(linear, norm, p)
        p_r, p_z, p_n = jnp.split(at.k_a * p, 3, -1)
        return (at.kept * wide + p_r + p_z + p_n).astype(v.dtype)

    def cotangent(
        self, params: DreamerGRUParams, at: Linearization, c: Array, transposed: DreamerGRUParams | None = None
    ) -> Array:
        """`J^T c`, J the step's Jacobian at the linearized point; c and the result `[*batch, H]`.

        `transposed` is what `transposed` made of params, for a loop that would otherwise transpose them in every step.
        """
        back = self.transposed(params, at.kept.dtype) if transposed is None else transposed
        return self._back(back, at, c.astype(at.kept.dtype))[0].astype(c.dtype)

    def transposed(self, params: DreamerGRUParams, dtype: DType) -> DreamerGRUParams:
        """The same parameters with all matrices transposed, for `cotangent`."""
        turn = lambda p: (jnp.swapaxes(p, -1, -2) if p.ndim > 1 else p).astype(dtype)  # noqa: E731
        return jax.tree.map(turn, params)

    def pullback(
        self, params: DreamerGRUParams, at: Linearization, x: Array, h: Array, c: Array
    ) -> tuple[DreamerGRUParams, Array]:
        """What gradients c of the states after some steps give to the parameters and to the steps' input.

        Args:
          params: from `init`.
          at: the steps' linearization, of c's dtype.
          x: their input, `[*batch, I]`.
          h: the states before them, `[*batch, H]`.
          c: gradients, `[*batch, H]`, float32 at least.

        Returns:
          The gradients of the parameters, summed over the batch, and of x, all of c's dtype.
        """
        full, shape = jax.tree.map(lambda p: p.astype(c.dtype), params), x.shape
        at, x, h, c = jax.tree.map(rows, (at, x, h, c))
        x, h = x.astype(c.dtype), h.astype(c.dtype)
        _, at_state, at_linears = self._back(self.transposed(full, c.dtype), at, c)
        # All that the input goes through, the bias of the joint product with it.
        d_params, d_x = jax.vjp(self.project, full, x)[1](at_linears[0].product)
        found, inside = [], h
        for linear, norm, g in zip((full.joint, *full.layers), at.norms, at_linears, strict=True):
            found.append(_gradients(linear, norm, g, _block_pullback(linear.w, inside, g.product)))
            inside = inside if norm is None else self._activated(linear, norm.normed)
        found[0] = found[0]._replace(b=d_params.joint.b)
        d_params = d_params._replace(joint=found[0], layers=tuple(found[1:]))
        if full.state is not None and at.state is not None and at_state is not None:
            d_w_s = jnp.matmul(self._activated(full.state, at.state.normed).T, at_linears[0].product)
            d_state = _gradients(full.state, at.state, at_state, jnp.matmul(h.T, at_state.product))
            d_params = d_params._replace(state=d_state, w_s=d_w_s)
        return d_params, d_x.reshape(shape)

    def products(self, params: DreamerGRUParams, h: Array) -> Array:
        """The products of a step that are known from h alone, for `step` and `linearize`.

        `[*batch, 3H]`; with layers above 0 `[*batch, P + H]`: the state's projection before its norm, and what of the
        joint product does not come from the input.
        """
        own = block_product(params.joint.w, h)
        if params.state is None or params.w_s is None:
            return own
        projected = add(product(params.state.w, h), params.state.b)
        return jnp.concatenate([projected, own + product(params.w_s, self._normed(params.state, projected)[0])], -1)

    @property
    def has_products(self) -> bool:
        """True: the larger ones are known from h alone."""
        return True

    def _preactivations(
        self, params: DreamerGRUParams, u: Array, h: Array, products: Array | None
    ) -> tuple[Array, Normed | None, tuple[Normed | None, ...]]:
        """What the gates are made of, and the norms on the way there: the state's and one for each block product."""
        known = self.products(params, h) if products is None else products
        state = None if params.state is None else self._normed(params.state, known[..., : -self.hidden_size])[1]
        a, norms = u + known[..., -u.shape[-1] :], []
        for k, linear in enumerate((params.joint, *params.layers)):
            a = add(block_product(linear.w, a), linear.b) if k else a
            a, norm = (a, None) if linear.scale is None else self._normed(linear, a)
            norms.append(norm)
        return a, state, tuple(norms)

    def _gates(self, a: Array) -> tuple[Array, Array, Array, Array]:
        """r, z, n, and what r multiplies in n."""
        a_r, a_z, q = jnp.split(a, 3, -1)
        r, z = jax.nn.sigmoid(a_r), jax.nn.sigmoid(a_z + self.update_bias)
        return r, z, jnp.tanh(r * q), q

    def _back(
        self, back: DreamerGRUParams, at: Linearization, c: Array
    ) -> tuple[Array, Reaching | None, list[Reaching]]:
        """`J^T c`; what reaches the state's projection and each block product on the way. back: `transposed`."""
        y = at.k_a * jnp.concatenate([c, c, c], -1)
        found: list[Reaching] = []
        for linear, norm in zip((*back.layers[::-1], back.joint), at.norms[::-1], strict=True):
            found.insert(0, self._before(linear, norm, y))
            y = block_product(linear.w, found[0].product)
        through, state = at.kept * c + y, None
        if back.state is not None and back.w_s is not None:
            state = self._before(back.state, at.state, product(back.w_s, found[0].product))
            through = through + product(back.state.w, state.product)
        return through, state, found

    def _normed(self, linear: DreamerLinear, a: Array) -> tuple[Array, Normed]:
        """The activation of a, normalised, scaled and shifted; and what is kept of that."""
        centred = a - _mean(a) if self.norm == "layer" else a
        inverse = jax.lax.rsqrt(_mean(centred * centred) + self.epsilon)
        normed = centred * inverse
        y = _scaled(linear, normed)
        if not self.layers:
            return y, Normed(normed, inverse, None)
        function = activations.get(self.activation)
        return function(y), Normed(normed, inverse, activations.slope(function, y))

    def _through(self, norm: Normed, d: Array) -> Array:
        """The derivative of a norm, or its transpose, which is the same."""
        centred = d - _mean(d) if self.norm == "layer" else d
        return norm.inverse * (centred - norm.normed * _mean(norm.normed * d))

    def _after(self, linear: DreamerLinear, norm: Normed, p: Array) -> Array:
        """A tangent behind the norm and the activation, from one before them."""
        y = self._through(norm, p) * _spread(linear.scale, p)
        return y if norm.slope is None else y * norm.slope

    def _before(self, linear: DreamerLinear, norm: Normed | None, y: Array) -> Reaching:
        """A gradient before the norm and the activation, from one behind them."""
        if norm is None:
            return Reaching(y, y)
        y = y if norm.slope is None else y * norm.slope
        return Reaching(self._through(norm, y * _spread(linear.scale, y)), y)

    def _activated(self, linear: DreamerLinear, normed: Array) -> Array:
        return activations.get(self.activation)(_scaled(linear, normed))


def product(w: Array, a: Array) -> Array:
    """`a w`, summed in float32 at least."""
    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=accumulator(w.dtype))


def block_product(w: Array, a: Array) -> Array:
    """`a w` for the blocks `[k, n, m]` on the diagonal of a matrix, `[*batch, k n]` to `[*batch, k m]`.

    Where a block has three gates, on either side, they stand side by side in a or the result, each of all heads.
    """
    k, size, wide = w.shape
    unit, a = min(size, wide), a.astype(w.dtype)
    if _written_out(k):
        made = [product(block, of_head) for block, of_head in zip(w, _heads(a, k, unit), strict=True)]
        return _joined([one[..., g : g + unit] for g in range(0, wide, unit) for one in made])
    blocks = jnp.moveaxis(a.reshape(*a.shape[:-1], size // unit, k, unit), -2, -3).reshape(*a.shape[:-1], k, size)
    together = jnp.einsum("...ki,kij->...kj", blocks, w, preferred_element_type=accumulator(w.dtype))
    gates = together.reshape(*a.shape[:-1], k, wide // unit, unit)
    return jnp.moveaxis(gates, -2, -3).reshape(*a.shape[:-1], k * wide)


def _block_pullback(w: Array, a: Array, g: Array) -> Array:
    """The gradient of w in `block_product`, for a `[N, k n]` and g `[N, k m]`."""
    k, size, wide = w.shape
    if not _written_out(k):
        return jax.linear_transpose(lambda w: block_product(w, a), w)(g)[0]
    pairs = zip(_heads(a, k, min(size, wide)), _heads(g, k, min(size, wide)), strict=True)
    return jnp.stack([jnp.matmul(of_a.T, of_g) for of_a, of_g in pairs])


def _written_out(heads: int) -> bool:
    return heads <= WRITTEN_OUT and jax.default_backend() == "cpu"


def _heads(a: Array, heads: int, unit: int) -> list[Array]:
    """What of a belongs to each head: `unit` numbers of each gate."""
    whole = heads * unit
    return [
        _joined([a[..., start + i * unit : start + (i + 1) * unit] for start in range(0, a.shape[-1], whole)])
        for i in range(heads)
    ]


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def _gradients(linear: DreamerLinear, norm: Normed | None, reaching: Reaching, d_w: Array) -> DreamerLinear:
    """The gradients of a linear map and its norm, from what reaches it."""
    return DreamerLinear(
        d_w,
        None if linear.b is None else sum_rows(reaching.product),
        None if norm is None else sum_rows(reaching.normed * norm.normed),
        None if linear.shift is None else sum_rows(reaching.normed),
    )


def _scaled(linear: DreamerLinear, normed: Array) -> Array:
    return add(normed * _spread(linear.scale, normed), linear.shift)


def _spread(scale: Any, a: Array) -> Array:
    """A vector for each row of a."""
    return jnp.broadcast_to(scale.astype(a.dtype), a.shape)


def _mean(a: Array) -> Array:
    return a.mean(-1, keepdims=True)
