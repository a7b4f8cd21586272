"""The gated recurrent unit, one step of it.

Neutral layout: gates in the order r, z, n on the last axis; z keeps the old state.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import activations, gru_params, initializers
from gru_jax.cells.base import Dense, Equations, Gates, accumulator
from gru_jax.cells.gru_derivative import GRUDerivative
from gru_jax.cells.gru_params import GRUParams
from gru_jax.cells.initializers import Initializers
from gru_jax.types import Activation, Array, DType, Key


@checks.suggesting
@dataclasses.dataclass(frozen=True, init=False)
class GRU(GRUDerivative):
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
        self._set(hidden_size, reset, activation, gate_activation, bias, heads, init)

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
        self._check_init(key, input_size, dtype)
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
        gru_params.check(params, features, self.hidden_size, self.bias, self.heads, self._check_features)

    def step(
        self, params: GRUParams, u: Array, h: Array, drop: Array | None = None, products: Array | None = None
    ) -> Array:
        """One step, `h' = (1 - z) * n + z * h`.

        Args:
          params: from `init`.
          u: projected input, `[*batch, 3H]`.
          h: state, `[*batch, H]`.
          drop: recurrent dropout mask, `[*batch, H]`, already scaled; it multiplies h inside the products only.
          products: the recurrent products, where they are known.

        Returns:
          The next state, `[*batch, H]`, in the dtype of h.

        Raises:
          ValueError: when u or h does not have its shape.
        """
        self._check_step(u, h)
        _, a_z, a_n, _, _ = self._preactivations(params, u, h, drop, products)
        z, n = self._gate(a_z), self._candidate(a_n)
        return (n + z * (h.astype(n.dtype) - n)).astype(h.dtype)

    def gates(self, params: GRUParams, u: Array, h: Array, drop: Array | None = None) -> Gates:
        """What the step from h decides: `Gates(r, z, n)`, each `[*batch, H]`. Arguments as for `step`."""
        _, a_z, a_n, _, r = self._preactivations(params, u, h, drop)
        return Gates(*(a.astype(h.dtype) for a in (r, self._gate(a_z), self._candidate(a_n))))

    @property
    def equations(self) -> Equations:
        """Those above, by the place of the reset."""
        names = {"after": "gru", "before": "gru, reset before"}
        return Equations(names[self.reset], *map(activations.named, (self.gate_activation, self.activation)))

    def dense(self, params: GRUParams) -> Dense:
        """The parameters as those equations take them, a matrix of heads with its zeros."""
        if self.heads == 1:
            return Dense(*params)
        k, size = self.heads, self.hidden_size // self.heads
        blocks = params.w_h.reshape(k, size, 3, 1, size)
        whole = jnp.broadcast_to(blocks, (k, size, 3, k, size))
        own = jnp.broadcast_to(jnp.eye(k, dtype=bool).reshape(k, 1, 1, k, 1), whole.shape)
        w_h = jnp.where(own, whole, jnp.zeros_like(whole)).reshape(self.hidden_size, 3 * self.hidden_size)
        return Dense(params.w_x, w_h, params.b_x, params.b_h)

    @property
    def block_size(self) -> int:
        """Units of one head: no unit's next state depends on a state outside of its own head."""
        return self.hidden_size // self.heads
