"""A cell: what one step computes. Here one gate decides what a unit keeps of its state; the place for yours is `step`.

    z  = sigmoid(x W_z + b_z)
    n  = tanh(x W_n + b_n + h U)
    h' = z * h + (1 - z) * n
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class OneGate:
    """The fields are the cell's options; `hidden_size` comes from `model.hidden`, the others from `model.options`."""

    hidden_size: int
    keep: float = 1.0  # what the gate's bias begins with: 1 keeps some 73 % of the state at every step

    def init(self, key: jax.Array, input_size: int) -> dict[str, jax.Array]:
        """The parameters, any tree of arrays."""
        of_x, of_h = jax.random.split(key)
        return {
            "w_x": jax.nn.initializers.glorot_uniform()(of_x, (input_size, 2 * self.hidden_size)),
            "w_h": jax.nn.initializers.orthogonal()(of_h, (self.hidden_size, self.hidden_size)),
            "b": jnp.repeat(jnp.array([self.keep, 0.0]), self.hidden_size),
        }

    def project(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """Everything that needs no state, for all of time at once."""
        return x @ params["w_x"] + params["b"]

    def step(self, params: dict[str, jax.Array], u: jax.Array, h: jax.Array) -> jax.Array:
        """The next state, of what `project` gives for a step and the state before it."""
        z, n = jnp.split(u, 2, axis=-1)
        z = jax.nn.sigmoid(z)
        return z * h + (1 - z) * jnp.tanh(n + h @ params["w_h"])

    def initial_state(self, batch: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """The state before the first step."""
        return jnp.zeros((*batch, self.hidden_size), dtype)

    def output(self, h: jax.Array) -> jax.Array:
        """What the next layer sees of a state."""
        return h
