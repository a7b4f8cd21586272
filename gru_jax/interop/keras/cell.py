"""`GRUCell` of Keras: the weights in Keras' layout and one step with them."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells import GRU as NeutralGRU
from gru_jax.cells import Cell, GRUParams
from gru_jax.cells.gru_layout import LaidOut, Layout, Original
from gru_jax.interop import neutral
from gru_jax.interop.arrays import Weight
from gru_jax.interop.keras import activations, constraints, identifiers, initializers, policy, regularizers
from gru_jax.interop.keras.attributes import OptionAttributes, Shape
from gru_jax.interop.keras.base import KINDS, NAMES, Frozen, Layer, as_state
from gru_jax.interop.keras.dropout import DroppedGRU, DroppedParams, Stream
from gru_jax.types import Activation, Array, DType, Function, Params, Tree


@dataclasses.dataclass(frozen=True)
class Options:
    """What the constructors of GRU and GRUCell have in common, validated.

    Attributes:
      units: H.
      activation, recurrent_activation: a name, or a function.
      use_bias, reset_after: as in Keras.
      initializers, regularizers, constraints: of kernel, recurrent kernel and bias.
      dropout, recurrent_dropout: rates.
      seed: of dropout.
      implementation: 1 draws a mask for each gate, 2 one for all.
    """

    units: int
    activation: Activation
    recurrent_activation: Activation
    use_bias: bool
    initializers: tuple[Function, ...]
    regularizers: tuple[Function | None, ...]
    constraints: tuple[Function | None, ...]
    dropout: float
    recurrent_dropout: float
    reset_after: bool
    seed: int | None
    implementation: int

    @property
    def neutral(self) -> NeutralGRU:
        """The cell of this library."""
        return NeutralGRU(
            self.units,
            reset="after" if self.reset_after else "before",
            activation=activations.for_cell(self.activation),
            gate_activation=activations.for_cell(self.recurrent_activation),
            bias="full" if self.use_bias else "none",
            init="keras",
        )

    @property
    def elementwise(self) -> bool:
        """Whether both activations are, which the closed form of the cell's derivative relies on."""
        return activations.is_elementwise(self.activation) and activations.is_elementwise(self.recurrent_activation)

    def config(self) -> dict[str, object]:
        """As Keras writes them."""
        written: dict[str, object] = {
            "units": self.units,
            "activation": self.activation,
            "recurrent_activation": self.recurrent_activation,
            "use_bias": self.use_bias,
        }
        for name, module in (("initializer", initializers), ("regularizer", regularizers), ("constraint", constraints)):
            for kind, thing in zip(KINDS, getattr(self, f"{name}s"), strict=True):
                written[f"{kind}_{name}"] = identifiers.serialize(thing, f"keras.{name}s", module.KNOWN)
        return written | {name: getattr(self, name) for name in ("dropout", "recurrent_dropout", "reset_after", "seed")}


SHARED = (
    *(f"{kind}_{thing}" for thing in ("initializer", "regularizer", "constraint") for kind in KINDS),
    *("units", "activation", "recurrent_activation", "use_bias", "dropout", "recurrent_dropout", "seed"),
    *("reset_after", "dtype", "trainable", "implementation", "rngs"),
)
"""The arguments that a GRU hands on to its cell."""


def checked(who: str, given: dict[str, Any]) -> Options:
    """`Options` of the constructor's arguments."""
    checks.positive(who, "units", given["units"])
    for name in ("use_bias", "reset_after"):
        checks.flag(who, name, given[name])
    for name in ("dropout", "recurrent_dropout"):
        checks.rate(who, name, given[name])
    policy.number(who, "seed", given["seed"], "a whole number")
    checks.choice(who, "implementation", given["implementation"], (0, 1, 2))

    def three(name: str, module: Any) -> tuple[Any, ...]:
        return tuple(module.get(who, f"{kind}_{name}", given[f"{kind}_{name}"]) for kind in KINDS)

    return Options(
        units=int(given["units"]),
        activation=activations.get(who, "activation", given["activation"]),
        recurrent_activation=activations.get(who, "recurrent_activation", given["recurrent_activation"]),
        use_bias=given["use_bias"],
        initializers=three("initializer", initializers),
        regularizers=three("regularizer", regularizers),
        constraints=three("constraint", constraints),
        dropout=float(given["dropout"]),
        recurrent_dropout=float(given["recurrent_dropout"]),
        reset_after=given["reset_after"],
        seed=given["seed"],
        # As in Keras: with recurrent dropout each gate has masks of its own. 0 is what Keras 2 had before 1 and 2.
        implementation=1 if given["recurrent_dropout"] else given["implementation"] or 1,
    )


class Runnable(NamedTuple):
    """What `scan` needs: a cell and its parameters, and the mask to multiply the input with before, or None."""

    cell: Cell
    params: Params
    drop_x: Array | None


class GRUCell(OptionAttributes, Layer):
    """One step of a GRU, `keras.layers.GRUCell` of Keras 3.

        z  = f(x W_z + b_z + h U_z + c_z)
        r  = f(x W_r + b_r + h U_r + c_r)
        n  = g(x W_n + b_n + r * (h U_n + c_n))       reset_after=True
        n  = g(x W_n + b_n + (r * h) U_n)             reset_after=False
        h' = (1 - z) * n + z * h

    Weights, with gates z, r, n side by side: `kernel` W `[I, 3H]`, `recurrent_kernel` U `[H, 3H]`, and `bias` (b; c)
    `[2, 3H]`, for reset_after=False b `[3H]`. They are made by the first call, or by `build`.

    Args:
      units: H.
      activation: g, one of Keras' names, None for linear, or a function.
      recurrent_activation: f, likewise.
      use_bias: whether there are biases.
      kernel_initializer: a name, a config, an object of `initializers`, an array, or a function.
      recurrent_initializer: likewise.
      bias_initializer: likewise.
      kernel_regularizer: None, a name, a config, an object of `regularizers`, or a function to one number.
      recurrent_regularizer: likewise.
      bias_regularizer: likewise.
      kernel_constraint: None, a name, a config, an object of `constraints`, or a function to the projected weight.
      recurrent_constraint: likewise.
      bias_constraint: likewise.
      dropout: rate on the input, in [0, 1).
      recurrent_dropout: rate on the state inside the recurrent products, in [0, 1).
      reset_after: whether the reset gate comes after the recurrent product.
      seed: of the dropout masks; the same masks as Keras on its JAX backend draws.
      name: of the layer; numbered when None.
      dtype: "float32", another dtype, or a policy such as "mixed_bfloat16".
      trainable: False makes the weights no `nnx.Param`.
      activity_regularizer: a penalty on the outputs.
      implementation: 1 (or 0) draws a dropout mask for each gate, 2 one for all.
      rngs: `nnx.Rngs` to initialise with ("params") and to draw masks from ("dropout"), in place of seeds.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import keras
      >>> cell = keras.layers.GRUCell(4)
      >>> output, [state] = cell(jnp.ones((2, 3)), [jnp.zeros((2, 4))])
      >>> output.shape, [w.shape for w in cell.get_weights()]
      ((2, 4), [(3, 12), (4, 12), (2, 12)])

    Source: keras.layers.GRUCell of Keras 3.15.
    """

    who = "GRUCell"
    rank = 2
    supports_masking = False
    input_spec = None
    kernel: nnx.Variable[Array]
    recurrent_kernel: nnx.Variable[Array]
    bias: nnx.Variable[Array]

    def __init__(
        self,
        units: int,
        activation: identifiers.Identifier = "tanh",
        recurrent_activation: identifiers.Identifier = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: initializers.Initial = "glorot_uniform",
        recurrent_initializer: initializers.Initial = "orthogonal",
        bias_initializer: initializers.Initial = "zeros",
        kernel_regularizer: identifiers.Identifier = None,
        recurrent_regularizer: identifiers.Identifier = None,
        bias_regularizer: identifiers.Identifier = None,
        kernel_constraint: identifiers.Identifier = None,
        recurrent_constraint: identifiers.Identifier = None,
        bias_constraint: identifiers.Identifier = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        *,
        name: str | None = None,
        dtype: DType = None,
        trainable: bool = True,
        activity_regularizer: identifiers.Identifier = None,
        implementation: int = 2,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__(name, dtype, trainable, activity_regularizer, 1)
        if rngs is not None and not isinstance(rngs, nnx.Rngs):
            raise TypeError(f"{self.who}: rngs must be nnx.Rngs; got {type(rngs).__name__}; pass rngs=nnx.Rngs(0)")
        self.options = checked(self.who, given)
        self.elementwise = self.options.elementwise
        self.stream = nnx.data(Stream(seed, rngs) if dropout or recurrent_dropout else None)
        self.unused_keys = None if rngs is None else nnx.data([rngs.params() for _ in KINDS])

    def _own_options(self) -> Options:
        return self.options

    state_size = output_size = OptionAttributes.units

    def _cells(self) -> Iterator["GRUCell"]:
        yield self

    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights that there are, in Keras' order."""
        if not self.built:
            return ()
        return tuple(NAMES.values()) if self.options.use_bias else tuple(NAMES.values())[:2]

    def constraints(self) -> dict[str, Function]:
        """The constraints of the weights that have one, by the weights' names."""
        pairs = zip(NAMES.values(), self.options.constraints, strict=True)
        return {name: constraint for name, constraint in pairs if constraint and name in self.weight_names()}

    def build(self, input_shape: Shape) -> None:
        """Makes the weights.

        Args:
          input_shape: `(batch, features)`; the batch may be None.

        Raises:
          ValueError: when the number of features is unknown.
        """
        if self.built:
            return
        features, width = self._features(input_shape, 2), 3 * self.units
        shapes = [(features, width), (self.units, width), (2, width) if self.options.reset_after else (width,)]
        kind = nnx.Param if self._trainable else Frozen
        keys = self.unused_keys or [None] * 3
        for index, name in enumerate(NAMES.values() if self.options.use_bias else list(NAMES.values())[:2]):
            value = initializers.make(
                self.who,
                f"{KINDS[index]}_initializer",
                self.options.initializers[index],
                shapes[index],
                self.dtype_policy.variable,
                keys[index],
            )
            setattr(self, name, kind(value))
        self.unused_keys = None
        self.built = True

    def get_initial_state(self, batch_size: int) -> list[Array]:
        """Zeros, `[batch_size, H]`, in a list.

        Args:
          batch_size: B.
        """
        return [jnp.zeros((batch_size, self.units), self.dtype_policy.compute)]

    def __call__(self, inputs: ArrayLike, states: Tree, training: bool | None = None) -> tuple[Array, Tree]:
        """One step.

        Args:
          inputs: `[B, I]`.
          states: `[B, H]`, or a list of it.
          training: whether dropout is on; None is what `train()`, `eval()` or `nnx.view` said last, off before.

        Returns:
          The state after the step, `[B, H]`, and the same again in the structure of `states`.

        Raises:
          TypeError, ValueError: for input that does not fit.
        """
        x = self._input("inputs", inputs, 2, self.kernel[...].shape[0] if self.built else None)
        self._build_for_call(x.shape)
        h = as_state(self.who, "states", states, (x.shape[0], self.units), x.dtype)
        cell, params, drop_x = self.runnable(x.shape, x.dtype, self._training(training))
        after = cell.step(params, cell.project(params, x if drop_x is None else x * drop_x), h)
        self._record_activity([after])
        return after, [after] if isinstance(states, list | tuple) else after

    def params(self, dtype: DType = None) -> GRUParams:
        """The weights in the neutral layout, a pure function of them."""
        weights = (getattr(self, name)[...] for name in self.weight_names())
        params = to_neutral(*weights, reset_after=self.options.reset_after)
        return params if dtype is None else jax.tree.map(lambda p: p.astype(dtype), params)

    def laid_out(self, dtype: DType) -> LaidOut:
        """`laid_out` of the weights, for reset_after=True."""
        return laid_out(*(getattr(self, name)[...].astype(dtype) for name in self.weight_names()))

    def runnable(self, shape: tuple[int, ...], dtype: DType, training: bool) -> Runnable:
        """The cell and parameters for inputs of shape `[B, ..., I]`, with this call's dropout masks."""
        params, options = self.params(dtype), self.options
        if not training or self.stream is None:
            cell, plain = options.neutral, self.elementwise
            return Runnable(cell, params, None) if plain else Runnable(DroppedGRU(cell), DroppedParams(params), None)
        count = 3 if options.implementation == 1 else 1
        drop_x = self.stream.masks(options.dropout, count, (shape[0], shape[-1]), dtype, self._keep)
        drop_h = self.stream.masks(options.recurrent_dropout, 3, (shape[0], self.units), dtype, self._keep)
        if count == 1 and self.elementwise:
            return Runnable(options.neutral, params, None if drop_x is None else drop_x[0])
        if count == 1:
            return Runnable(DroppedGRU(options.neutral), DroppedParams(params), None if drop_x is None else drop_x[0])
        return Runnable(DroppedGRU(options.neutral), DroppedParams(params, drop_x, drop_h), None)

    def get_config(self) -> dict[str, object]:
        """The options as a dict, equal to what Keras' cell of the same options gives."""
        return self._base_config() | self.options.config()


def to_neutral(kernel: Weight, recurrent_kernel: Weight, bias: Weight = None, *, reset_after: bool) -> GRUParams:
    """Weights in Keras' layout as `GRUParams`, bit for bit the same numbers; NumPy's stay NumPy's.

    Args:
      kernel: `[I, 3H]`, gates z, r, n.
      recurrent_kernel: `[H, 3H]`.
      bias: `[2, 3H]`, with reset_after=False `[3H]`, or None.
      reset_after: as in Keras.
    """
    sw = neutral.swapped
    if bias is None:
        return GRUParams(sw(kernel), sw(recurrent_kernel), None, None)
    if reset_after:
        return GRUParams(sw(kernel), sw(recurrent_kernel), sw(bias[0]), sw(bias[1]))
    xp = np if isinstance(bias, np.ndarray) else jnp
    return GRUParams(sw(kernel), sw(recurrent_kernel), sw(bias), xp.zeros_like(bias))


def laid_out(kernel: Array, recurrent_kernel: Array, bias: Array | None = None) -> LaidOut:
    """`to_neutral` with reset_after=True, together with the arrays as they were given."""
    given = GRUParams(kernel, recurrent_kernel, *((None, None) if bias is None else (bias[0], bias[1])))
    return LaidOut(to_neutral(kernel, recurrent_kernel, bias, reset_after=True), Original(given, Layout("zrn")))
