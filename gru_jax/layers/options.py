"""How constructors take the options of `GRUSpec`: by our names, by flax's for the same things, in their signatures."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from jax.nn.initializers import zeros

from gru_jax import checks
from gru_jax.cells import Initializers, activations, initializers, per_gate
from gru_jax.layers.spec import GRUSpec
from gru_jax.types import Array, DType, Key, Options

ALL = tuple(field.name for field in dataclasses.fields(GRUSpec) if field.name != "hidden_features")
OF_A_CELL = ("reset", "activation", "gate_activation", "bias", "heads", "init", "dtype", "param_dtype", "state_dtype")

SAME = {"gate_fn": "gate_activation", "activation_fn": "activation", "features": "hidden_features"}
"""Options of flax's cells that are ours by another name."""

INITIALIZERS = ("kernel_init", "recurrent_kernel_init", "bias_init")


@dataclasses.dataclass(frozen=True)
class OfCandidate:
    """The recurrent bias of `flax.linen.GRUCell`, which only the candidate has: 0 for r and z where they have one."""

    base: Callable[..., Array]
    units: int

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        made = zeros(key, shape, dtype)
        return made.at[-self.units :].set(self.base(key, (self.units,), dtype))


def translated(who: str, options: Options, known: Iterable[str], *, linen: bool) -> Options:
    """Options by our names, those that flax's `GRUCell` has under other names among them.

    Args:
      who: whose error message it is.
      options: as they were passed; `hidden_features` is needed for `bias_init` of Linen.
      known: our names.
      linen: flax.linen draws each gate by itself and has a recurrent bias, flax.nnx the three together, and none.

    Raises:
      TypeError: for an unknown option, or two names of the same one.
    """
    init = "param_init" if linen else "init"
    given = {name: options[name] for name in INITIALIZERS if name in options}
    found = {name: value for name, value in options.items() if name not in given}
    for theirs, ours in SAME.items():
        if theirs in found and ours in found:
            raise TypeError(f"{who}: {theirs} and {ours} are two names of one option; got both; pass one")
        if theirs in found and (ours in known):
            value = found.pop(theirs)
            # flax has functions where there are names here, by which machine code is found.
            found[ours] = value if theirs == "features" else activations.named(value)
    if given and init in found:
        raise TypeError(f"{who}: {init} and {', '.join(given)} both say how parameters start; pass one of them")
    if given:
        start, each = initializers.get("flax", 1), per_gate if linen else (lambda base: base)
        # A bias that flax's cell does not have starts from 0, so that the function is flax's.
        w_x, w_h, b_x, b_h = start
        if "kernel_init" in given:
            w_x = each(given["kernel_init"])
        if "recurrent_kernel_init" in given:
            w_h = each(given["recurrent_kernel_init"])
        if "bias_init" in given:
            b_x = each(given["bias_init"])
            b_h = OfCandidate(given["bias_init"], found.get("hidden_features", 0)) if linen else b_h
        found[init] = Initializers(w_x, w_h, b_x, b_h)
    if "carry_init" in found and "carry_init" not in known:
        raise TypeError(f"{who}: there is no option 'carry_init'; the state before the first step is the call's h0")
    checks.known(who, "option", found, known)
    return found


def warn_of_idle(who: str, dropout: float, num_layers: int, frames: int) -> None:
    """Warns, as torch does, of dropout between layers where there is but one."""
    if dropout and num_layers == 1:
        warnings.warn(
            f"{who}: dropout acts between layers, so dropout={dropout} does nothing with num_layers=1; use"
            f" input_dropout or recurrent_dropout, or more layers",
            stacklevel=frames,
        )


class Signature:
    """`inspect.signature` of a class whose `__init__` takes options of `GRUSpec` as `**options`: they are told apart.

    On the class, because flax's metaclass hides what `__init__` takes.
    """

    def __init__(self, names: Iterable[str] = ALL) -> None:
        self.names = tuple(names)

    def __set_name__(self, owner: type, name: str) -> None:
        self.init = owner.__init__  # type: ignore[misc]

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        whole = inspect.signature(owner.__init__)  # type: ignore[misc]
        own = [p for p in whole.parameters.values() if p.name != "self"]
        if owner.__init__ is self.init:  # type: ignore[misc]
            own = [p for p in own if p.kind is not p.VAR_KEYWORD]
            names = set(self.names).difference(p.name for p in own)
            option = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
            own += [
                option(field.name, default=field.default, annotation=field.type)
                for field in dataclasses.fields(GRUSpec)
                if field.name in names
            ]
        return whole.replace(parameters=own)


def taking_flax_names(who: str, init: Callable[..., None]) -> Callable[..., None]:
    """The `__init__` of a Linen module, with flax's names and with errors that name the nearest option."""
    known = tuple(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def taking(self: object, *args: Any, **options: Any) -> None:
        named = dict(zip(known, args, strict=False))
        found = translated(who, named | options, known, linen=True)
        # Not where flax makes the same module once more, which then has a parent.
        if "dropout" in known and "parent" not in options:
            warn_of_idle(who, found.get("dropout", 0.0), found.get("num_layers", 1), 3)
        init(self, *args, **{name: value for name, value in found.items() if name not in named})

    return taking
