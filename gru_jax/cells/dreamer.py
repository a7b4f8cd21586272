"""The recurrent cell of DreamerV3: a GRU in blocks, with norms between its products and its gates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import activations, dreamer_params
from gru_jax.cells.base import accumulator
from gru_jax.cells.dreamer_derivative import DreamerDerivative, product
from gru_jax.cells.dreamer_params import DreamerGRUParams
from gru_jax.cells.gated import add
from gru_jax.types import Activation, Array, DType, Key


@checks.suggesting
@dataclasses.dataclass(frozen=True, init=False)
class DreamerGRU(DreamerDerivative):
    """The recurrent cell of DreamerV3.

    With `[h] w` a product with a matrix of blocks, k of them on its diagonal, and N a norm over all of its argument,

        a = N(x w_x + [h] w)                                      layers=0: as in dreamerv3 1.5.0 (there with k = 1)

        s = g(N(h w_s + b_s)), e = g(N(x w_e + b_e))              layers=1: as in Dreamer since 2024 and in TorchRL
        v = g(N(e w_x + s w_v + [h] w + b))
        a = [v] w_a + b_a

        r  = sigmoid(a_r)
        z  = sigmoid(a_z - 1)
        n  = tanh(r * a_n)
        h' = (1 - z) * h + z * n

    Note that z takes the new state here, as in Dreamer, where in `GRU` it keeps the old one. More layers put
    `v = g(N([v] w + b))` before a. A norm sees all units, those of all blocks: every unit's next state depends on every
    unit, however many blocks there are.

    Args:
      hidden_size: H, the number of units.
      heads: k, the number of blocks.
      norm: "layer" (minus the mean, divided by the standard deviation, with scale and shift) or "rms" (divided by the
        root of the mean square, with scale).
      layers: block products that follow the joint one of input and state: 0, where that one gives the gates, or more.
      projection_size: P, the width of s and e, with layers above 0; None is H.
      input_sizes: features of the parts of x, each of which has an e of its own, with layers above 0: Dreamer projects
        its latent and its action apart. None is one part.
      activation: g, with layers above 0: a name (see `gru_jax.cells.activations.ACTIVATIONS`) or an elementwise
        function.
      epsilon: what norms add to the mean square: 1e-4 in Dreamer and in TorchRL, 1e-3 in dreamerv3 1.5.0.
      update_bias: what is added to a_z.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.DreamerGRU(16, heads=4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), resets=jnp.zeros((2, 7), bool))
      >>> y.shape, h.shape
      ((2, 7, 16), (2, 16))

    Source: Hafner et al. 2023, arXiv:2301.04104; the code of dreamerv3, and DreamerV3BlockGRU of TorchRL 0.14.
    """

    hidden_size: int
    heads: int
    norm: str
    layers: int
    projection_size: int | None
    input_sizes: tuple[int, ...] | None
    activation: Activation
    epsilon: float
    update_bias: float

    def __init__(
        self,
        hidden_size: int,
        *,
        heads: int = 8,
        norm: str = "layer",
        layers: int = 0,
        projection_size: int | None = None,
        input_sizes: tuple[int, ...] | None = None,
        activation: Activation = "silu",
        epsilon: float = 1e-4,
        update_bias: float = -1.0,
    ) -> None:
        who = self.name
        checks.positive(who, "hidden_size", hidden_size)
        checks.positive(who, "heads", heads)
        if hidden_size % heads:
            raise ValueError(
                f"{who}: hidden_size must be divisible by heads; got hidden_size={hidden_size} and heads={heads};"
                f" pass heads=1 for a dense recurrent matrix"
            )
        checks.choice(who, "norm", norm, ("layer", "rms"))
        if layers != 0 or isinstance(layers, bool):
            checks.positive(who, "layers", layers)
        if projection_size is not None:
            checks.positive(who, "projection_size", projection_size)
        for size in input_sizes or ():
            checks.positive(who, "each of input_sizes", size)
        activations.check(who, "activation", activation)
        for name, value in (("epsilon", epsilon), ("update_bias", update_bias)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{who}: {name} must be a plain number; got {value!r}")
        if epsilon <= 0:
            raise ValueError(f"{who}: epsilon must be above 0; got {epsilon}")
        idle: dict[str, object] = {"projection_size": projection_size, "input_sizes": input_sizes}
        if activation != "silu":
            idle["activation"] = activation
        for name, given in idle.items() if layers == 0 else ():
            if given is not None:
                raise ValueError(f"{who}: {name} needs layers of at least 1; got {name}={given!r} with layers=0")
        sizes = None if input_sizes is None else tuple(input_sizes)
        self._set(hidden_size, heads, norm, layers, projection_size, sizes, activation, epsilon, update_bias)

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> DreamerGRUParams:
        """Fresh parameters: matrices from a truncated normal distribution of variance 1 / n, n being the inputs of all
        blocks together, scales 1, all else 0, as in Dreamer.

        Args:
          key: random key.
          input_size: I, the number of input features.
          dtype: of every parameter.

        Returns:
          `DreamerGRUParams`.

        Raises:
          TypeError, ValueError: when `input_size` is no whole number of at least 1, or not the sum of `input_sizes`.
        """
        self._check_init(key, input_size, dtype)
        shapes = self._shapes(input_size)
        if self.input_size(shapes) != input_size:
            raise ValueError(f"{self.name}: input_size must be the sum of input_sizes; got {input_size}")
        # What comes into the joint product: the state, and for each block all of the rest.
        rest = shapes.w_x.shape[0] + (0 if shapes.w_s is None else shapes.w_s.shape[0])
        joint = self.hidden_size + self.heads * rest
        full = accumulator(dtype)
        names = dreamer_params.named(shapes)
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

        def leaf(name: str, shape: jax.ShapeDtypeStruct | None) -> Array | None:
            if shape is None or len(shape.shape) == 1:
                return None if shape is None else jnp.full(shape.shape, name.endswith("scale"), dtype)
            fan = shape.shape[-2] * (self.heads if len(shape.shape) == 3 else 1)
            fan = joint if name in ("params.w_x", "params.w_s", "params.joint.w") else fan
            # Cut off at two standard deviations, it has a variance of 1 / 1.1368^2.
            drawn = 1.1368 * fan**-0.5 * jax.random.truncated_normal(keys[name], -2, 2, shape.shape, full)
            return drawn.astype(dtype)

        leaves = [leaf(name, shape) for name, shape in names.items()]
        structure: Any = jax.tree.structure(shapes, is_leaf=lambda one: one is None)
        return structure.unflatten(leaves)

    def input_size(self, params: DreamerGRUParams) -> int:
        """How many features of the input parameters were made for, those of all its parts."""
        return sum(self._widths(params))

    def check_params(self, params: DreamerGRUParams, features: int) -> None:
        """Raises unless every parameter has the shape that these options and `features` of the input ask for."""
        options = f"hidden_size={self.hidden_size}, heads={self.heads}, norm={self.norm!r}, layers={self.layers}"
        if isinstance(params, DreamerGRUParams):
            self._check_features(params, features)
        dreamer_params.check(f"{self.name}({options})", params, self._shapes(features))

    def project(self, params: DreamerGRUParams, x: Array) -> Array:
        """What of the joint product belongs to the input: everything that needs no state.

        Args:
          params: from `init`.
          x: input, `[*batch, I]`; a time axis may be among the leading ones.

        Returns:
          u, `[*batch, 3H]`, with layers above 0 `[*batch, H]`; float32 for half-precision `x`.

        Raises:
          ValueError: when x has another number of features than `params` were made for.
        """
        x = checks.floating(self.name, "x", x)
        self._check_features(params, x.shape[-1] if x.ndim else 0)
        made, start = [] if params.inputs else [x], 0
        for linear in params.inputs:
            part = x[..., start : start + linear.w.shape[0]]
            made.append(self._normed(linear, add(product(linear.w, part), linear.b))[0])
            start += linear.w.shape[0]
        return add(product(params.w_x, jnp.concatenate(made, -1)), params.joint.b)

    def step(self, params: DreamerGRUParams, u: Array, h: Array, products: Array | None = None) -> Array:
        """One step, `h' = (1 - z) * h + z * n`.

        Args:
          params: from `init`.
          u: projected input, `[*batch, 3H]`, with layers above 0 `[*batch, H]`.
          h: state, `[*batch, H]`.
          products: the recurrent products, where they are known.

        Returns:
          The next state, `[*batch, H]`, in the dtype of h.

        Raises:
          ValueError: when u or h does not have its shape.
        """
        self._check_step(u, h)
        _, z, n, _ = self._gates(self._preactivations(params, u, h, products)[0])
        old = h.astype(n.dtype)
        return (old + z * (n - old)).astype(h.dtype)

    def _shapes(self, features: int) -> DreamerGRUParams:
        return dreamer_params.shapes(
            (features,) if self.input_sizes is None else self.input_sizes,
            self.hidden_size, self.heads, self.layers, self.projection_size or self.hidden_size, self.norm == "layer",
        )  # fmt: skip

    def _check_features(self, params: DreamerGRUParams, features: int) -> None:
        widths = self._widths(params)
        if sum(widths) != features:
            raise ValueError(
                f"{self.name}: x has {features} features but params were made for {' + '.join(map(str, widths))};"
                f" pass input_size={features} to init"
            )

    @staticmethod
    def _widths(params: DreamerGRUParams) -> list[int]:
        """Features of each part of the input."""
        return [linear.w.shape[0] for linear in params.inputs] or [params.w_x.shape[0]]
