"""minGRU and minLSTM: gates that see the input alone, so that the step is linear in the state."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import initializers
from gru_jax.cells.base import accumulator
from gru_jax.cells.gated import GatedCell
from gru_jax.cells.initializers import Initializers
from gru_jax.types import Array, DType, Key, exportable


@exportable("MinParams")
class MinParams(NamedTuple):
    """The parameters of a `MinGRU` or `MinLSTM`.

    Attributes:
      w_x: input matrix: `[I, 2H]`, gate z and candidate side by side, or `[I, 3H]`, gates f, i and candidate.
      b_x: bias of the same width; None with `bias=False`.
    """

    w_x: Array
    b_x: Array | None


@dataclasses.dataclass(frozen=True, init=False)
class _Minimal(GatedCell):
    """What the two cells share: all but the gates."""

    hidden_size: int
    form: str
    bias: bool
    initializers: str | Initializers

    def __init__(
        self, hidden_size: int, *, form: str = "linear", bias: bool = True, init: str | Initializers = "flax"
    ) -> None:
        checks.positive(self.name, "hidden_size", hidden_size)
        checks.choice(self.name, "form", form, ("linear", "log"))
        checks.flag(self.name, "bias", bias)
        initializers.check(self.name, init)
        self._set(hidden_size, form, bias, init)

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> MinParams:
        """Fresh parameters, `MinParams`, for `input_size` input features."""
        self._check_init(key, input_size, dtype)
        w_x, b_x = initializers.of_input(self.initializers, input_size)
        width, full = self.parts * self.hidden_size, accumulator(dtype)
        key_w, key_b = jax.random.split(key)
        b = b_x(key_b, (width,), full).astype(dtype) if self.bias else None
        return MinParams(w_x(key_w, (input_size, width), full).astype(dtype), b)

    def check_params(self, params: MinParams, features: int) -> None:
        """Raises unless every parameter has the shape that these options and `features` of the input ask for."""
        width = self.parts * self.hidden_size
        who = f"{self.name}(hidden_size={self.hidden_size}, bias={self.bias})"
        if not isinstance(params, MinParams):
            raise TypeError(f"{who}: params must be MinParams, from cell.init; got {type(params).__name__}")
        for name, array in params._asdict().items():
            if array is not None or name == "w_x":
                checks.floating(who, f"params.{name}", array)
        self._check_features(params, features)
        fix = "make params with this cell's init"
        checks.shape(who, "params.w_x", params.w_x.shape, (features, width), fix)
        if (params.b_x is None) == self.bias:
            got = "None" if params.b_x is None else f"shape {list(params.b_x.shape)}"
            wanted = f"have shape {[width]}" if self.bias else "be None"
            raise ValueError(f"{who}: params.b_x must {wanted}; got {got}; {fix}")
        if params.b_x is not None:
            checks.shape(who, "params.b_x", params.b_x.shape, (width,), fix)

    def step(self, params: MinParams, u: Array, h: Array) -> Array:
        """One step, `h' = a h + b` with (a, b) of `affine`: u `[*batch, 2H]` or `[*batch, 3H]`, h `[*batch, H]`."""
        self._check_step(u, h)
        a, b = self.affine(params, u)
        return (a * h.astype(a.dtype) + b).astype(h.dtype)

    def affine(self, params: MinParams, u: Array) -> tuple[Array, Array]:
        """(a, b) of `h' = a h + b`, each `[*batch, H]`, for projected input u."""
        return self.coefficients(*jnp.split(u, self.parts, -1))

    def coefficients(self, *u: Array) -> tuple[Array, Array]:
        """The same, of the `parts` of the projected input, element by element, for a kernel that reads them apart."""
        log_a, log_share, c = self._logarithms(*u)
        return jnp.exp(log_a), jnp.exp(log_share) * (c if self.form == "linear" else _positive(c))

    def log_affine(self, params: MinParams, u: Array) -> tuple[Array, Array]:
        """(log a, log b), with form="log", where a and b are above 0."""
        if self.form != "log":
            raise ValueError(f"{self.name}: only form='log' has coefficients with logarithms; got form={self.form!r}")
        log_a, log_share, c = self._logarithms(*jnp.split(u, self.parts, -1))
        return log_a, log_share + _log_positive(c)

    @property
    def parts(self) -> int:
        """How many parts of the projected input `coefficients` takes."""
        return self.gates_wide

    @property
    def in_log_space(self) -> bool:
        """Whether all states are 0 at least, so that a method may carry their logarithms."""
        return self.form == "log"

    def check_state(self, h: Array, name: str = "h0") -> None:
        """Raises ValueError for a concrete state below 0, an argument of this name, where there can be none."""
        values = checks.concrete(h) if self.form == "log" else None
        if values is not None and values.size and values.min() < 0:
            raise ValueError(
                f"{self.name}: with form='log' states are 0 at least; got {name} with {float(values.min()):.3g} in it;"
                f" use form='linear' for signed states"
            )

    def _logarithms(self, *u: Array) -> tuple[Array, Array, Array]:
        """log a, the logarithm of the candidate's share, and the candidate before it is made positive."""
        raise NotImplementedError


@checks.suggesting
class MinGRU(_Minimal):
    """Minimal gated recurrent unit: linear in the state, so that a linear recurrence over all of time computes it.

    With `u = x w_x + b_x`,

        z  = sigmoid(u_z)
        n  = u_n                                    form="linear": signed
        n  = g(u_n)                                 form="log": the paper's, above 0; g(a) = a + 1/2 for a >= 0,
                                                    sigmoid(a) below
        h' = (1 - z) * h + z * n

    Note that z takes the new state here, as in the paper, where in `GRU` it keeps the old one. The state is h itself
    in both forms, never its logarithm: h0 is in h's own units and can be trained from 0 on.

    Args:
      hidden_size: H, the number of units.
      form: "linear" or "log".
      bias: whether the projection has one (the paper's code has none).
      init: "flax" (lecun_normal), "keras" (glorot_uniform), "torch" (U(-1/sqrt(I), 1/sqrt(I)), as nn.Linear) or
        `Initializers`, whose w_x and b_x are used.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.MinGRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    name = "MinGRU"
    gates_wide = 2

    def _logarithms(self, *u: Array) -> tuple[Array, Array, Array]:
        u_z, u_n = u
        return jax.nn.log_sigmoid(-u_z), jax.nn.log_sigmoid(u_z), u_n


@checks.suggesting
class MinLSTM(_Minimal):
    """Minimal LSTM: linear in the state, with forget and input gates that are made to add up to 1.

    With `u = x w_x + b_x`,

        f, i = sigmoid(u_f), sigmoid(u_i)
        n    = u_n, or g(u_n) with form="log"       see `MinGRU`
        h'   = f / (f + i) * h + i / (f + i) * n

    Args:
      hidden_size: H, the number of units.
      form: "linear" or "log".
      bias: whether the projection has one.
      init: as for `MinGRU`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value; the message names the choices.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.MinLSTM(4, form="log")
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), method="associative")
      >>> bool((y > 0).all())
      True

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    name = "MinLSTM"
    gates_wide = 3

    def _logarithms(self, *u: Array) -> tuple[Array, Array, Array]:
        u_f, u_i, u_n = u
        # f / (f + i) is the sigmoid of log f - log i.
        ahead = jax.nn.log_sigmoid(u_f) - jax.nn.log_sigmoid(u_i)
        return jax.nn.log_sigmoid(ahead), jax.nn.log_sigmoid(-ahead), u_n


def _positive(a: Array) -> Array:
    """The paper's g: a + 1/2 from 0 on, sigmoid(a) below."""
    return jnp.where(a >= 0, a + 0.5, jax.nn.sigmoid(a))


def _log_positive(a: Array) -> Array:
    """log g(a), without the underflow of sigmoid far below 0."""
    return jnp.where(a >= 0, jnp.log(jnp.maximum(a, 0) + 0.5), jax.nn.log_sigmoid(a))
