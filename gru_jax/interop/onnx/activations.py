"""The activations of ONNX's GRU: by their names here where there is one, otherwise as `Activation`."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.cells import activations
from gru_jax.types import Array


class Kind(NamedTuple):
    """One of ONNX's activations: the numbers it takes, with their defaults (None: there is none), and its formula."""

    takes: tuple[str, ...]
    defaults: tuple[float | None, ...]
    formula: Callable[..., Array]


KINDS = {
    "Sigmoid": Kind((), (), jax.nn.sigmoid),
    "Tanh": Kind((), (), jnp.tanh),
    "Relu": Kind((), (), jax.nn.relu),
    "Softsign": Kind((), (), jax.nn.soft_sign),
    "Softplus": Kind((), (), jax.nn.softplus),
    "Elu": Kind(("alpha",), (1.0,), jax.nn.elu),
    "LeakyRelu": Kind(("alpha",), (0.01,), jax.nn.leaky_relu),
    "ThresholdedRelu": Kind(("alpha",), (1.0,), lambda x, alpha: jnp.where(x >= alpha, x, jnp.zeros_like(x))),
    "HardSigmoid": Kind(("alpha", "beta"), (0.2, 0.5), lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1)),
    # No defaults for these two: the specification leaves them open, and runtimes differ. (For ThresholdedRelu's alpha
    # onnxruntime takes 0, where the specification's 1 is clear.)
    "Affine": Kind(("alpha", "beta"), (None, None), lambda x, alpha, beta: alpha * x + beta),
    "ScaledTanh": Kind(("alpha", "beta"), (None, None), lambda x, alpha, beta: alpha * jnp.tanh(beta * x)),
}


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation as ONNX's GRU has it: with its numbers alpha and beta, and clipping of what goes in.

    `f(min(max(x, -clip), clip))`, f one of

        Sigmoid, Tanh, Relu, Softsign, Softplus     no numbers
        Elu              x if x > 0 else alpha (exp(x) - 1)
        LeakyRelu        x if x >= 0 else alpha x
        ThresholdedRelu  x if x >= alpha else 0
        HardSigmoid      min(max(alpha x + beta, 0), 1)
        Affine           alpha x + beta
        ScaledTanh       alpha tanh(beta x)

    It is a function of one array, so that it serves as `activation` and `gate_activation` of every layer; `load` makes
    it where a file has what no name here stands for, and `export` writes it.

    Args:
      name: ONNX's name, in the table above.
      alpha: the first number; ONNX's default when None.
      beta: the second number, likewise.
      clip: bound on the absolute value of the input; None for no bound.

    All three are rounded to float32, as ONNX stores them. State them: a ThresholdedRelu without alpha has 1 by ONNX's
    text, as here, and 0 in onnxruntime; Affine and ScaledTanh have no defaults at all.

    Raises:
      TypeError, ValueError: for an unknown name, a number that this activation does not take, or none where it has no
        default.

    Example:
      >>> import jax.numpy as jnp
      >>> Activation("HardSigmoid", alpha=0.25, beta=0.5, clip=1.0)(jnp.array([-9.0, 0.0, 9.0]))
      Array([0.25, 0.5 , 0.75], dtype=float32)

    Source: the operator GRU in ONNX's Operators.md.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        checks.choice("onnx.Activation", "name", self.name, KINDS)
        kind = KINDS[self.name]
        defaults = dict(zip(kind.takes, kind.defaults, strict=True))
        for name in ("alpha", "beta"):
            got = getattr(self, name)
            if got is not None and name not in kind.takes:
                raise ValueError(f"onnx.Activation: {self.name} takes no {name}; got {got!r}; leave it out")
            value = defaults.get(name) if got is None else got
            if value is None and name in kind.takes:
                raise ValueError(f"onnx.Activation: {self.name} has no default for {name}; pass {name}=")
            object.__setattr__(self, name, None if value is None else _rounded(name, value))
        if self.clip is not None:
            object.__setattr__(self, "clip", _rounded("clip", self.clip))
            if self.clip <= 0:
                raise ValueError(f"onnx.Activation: clip must be above 0, or None for none; got {self.clip}")

    def __call__(self, x: Array) -> Array:
        """The activation of every element; `[...]` to `[...]`."""
        if self.clip is not None:
            x = jnp.clip(x, -self.clip, self.clip)
        return KINDS[self.name].formula(x, *self.numbers)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers it takes, alpha before beta."""
        return tuple(getattr(self, name) for name in KINDS[self.name].takes)


def _rounded(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"onnx.Activation: {name} must be a plain number; got {checks.described(value)}")
    rounded = float(np.float32(value))
    if not math.isfinite(rounded):
        raise ValueError(f"onnx.Activation: {name} must be a finite float32; got {value!r}")
    return rounded


BY_NAME = {
    "sigmoid": Activation("Sigmoid"),
    "tanh": Activation("Tanh"),
    "relu": Activation("Relu"),
    "softsign": Activation("Softsign"),
    "softplus": Activation("Softplus"),
    "elu": Activation("Elu"),
    "hard_sigmoid": Activation("HardSigmoid", 1 / 6, 0.5),
    "linear": Activation("Affine", 1.0, 0.0),
}
"""The names that this library and ONNX share."""


def of(who: str, option: str, activation: object) -> Activation:
    """The ONNX form of a layer's option; raises ValueError when there is none."""
    if isinstance(activation, Activation):
        return activation
    for name, form in BY_NAME.items():
        if activation == name or activation is activations.ACTIVATIONS[name]:
            return form
    raise ValueError(
        f"{who}: ONNX's GRU has no {option}={activation!r}; those it has are {', '.join(map(repr, BY_NAME))}, and"
        f" gj.interop.onnx.Activation"
    )


def named(form: Activation) -> str | Activation:
    """The library's name for it where there is one, itself otherwise."""
    return next((name for name, other in BY_NAME.items() if other == form), form)


def attributes(forms: Sequence[Activation]) -> dict[str, list[str] | list[float]]:
    """The attributes of a GRU node with these activations, two for each direction."""
    lists = {
        f"activation_{name}": [getattr(form, name) for form in forms if getattr(form, name) is not None]
        for name in ("alpha", "beta")
    }
    return {"activations": [form.name for form in forms], **{name: values for name, values in lists.items() if values}}


def parsed(
    who: str, names: Sequence[str], alpha: Sequence[float], beta: Sequence[float], clip: float | None
) -> list[Activation]:
    """The activations that a node's attributes say; each takes its numbers from the front of what is left of a list."""
    known = {name.lower(): name for name in KINDS}
    for name in names:
        if name.lower() not in known:
            raise ValueError(f"{who} has the activation {name!r}, which ONNX's GRU does not; it has {', '.join(KINDS)}")
    names = [known[name.lower()] for name in names]
    taken: dict[str, list[float | None]] = {}
    for number, values in (("alpha", alpha), ("beta", beta)):
        count = sum(number in KINDS[name].takes for name in names)
        if len(values) > count:
            raise ValueError(
                f"{who} has {len(values)} values in activation_{number} for {count} activations that take one, so which"
                f" belongs to which is open"
            )
        left = iter(values)
        taken[number] = [next(left, None) if number in KINDS[name].takes else None for name in names]
    return [Activation(*each, clip) for each in zip(names, taken["alpha"], taken["beta"], strict=True)]
