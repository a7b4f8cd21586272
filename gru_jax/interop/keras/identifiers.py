"""What Keras calls identifiers, a name, a config dict, a class or an object, and the objects behind them."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, Self, TypeAlias, dataclass_transform

from gru_jax import checks
from gru_jax.types import Function, Options

Identifier: TypeAlias = str | Mapping[str, object] | type | Function | None
"""A name, a config, a class, an object that is called, a function, or None."""


@dataclass_transform(frozen_default=True)
class Configured:
    """An object made of its constructor's arguments, which `get_config` gives back.

    Every subclass is a frozen dataclass.
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)

    def get_config(self) -> Options:
        """The constructor's arguments, as Keras' `get_config` of the class of this name."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The object that `get_config` came from.

        Args:
          config: what `get_config` returned.
        """
        return cls(**config)


def table(*classes: type, **aliases: type) -> dict[str, type]:
    """Names to classes: `GlorotUniform` and `glorot_uniform`, and the further names given."""
    by_name = {cls.__name__: cls for cls in classes}
    return by_name | {snake(name): cls for name, cls in by_name.items()} | aliases


def snake(name: str) -> str:
    """`GlorotUniform` as `glorot_uniform`, `L1L2` as `l1l2`: the rule of Keras."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def get(who: str, option: str, given: Any, known: Mapping[str, type], kind: str) -> Any:
    """The object behind an identifier.

    Args:
      who: whose error message it is.
      option: the option's name.
      given: None, a name, a config dict, a class, an object of ours or of Keras', or a function.
      known: the classes by name.
      kind: what they are, such as "initializer".

    Raises:
      TypeError, ValueError: for anything else, and for a config that stands for code of its own.
    """
    match given:
        case None:
            return None
        case str():
            return _class(who, option, given, known, kind)()
        case Mapping():
            return _from_dict(who, option, given, known, kind)
        case type() if callable(getattr(given, "__call__", None)):  # noqa: B004  a class whose objects can be called
            return get(who, option, given(), known, kind)
    if type(given).__name__ in known and type(given).__module__.partition(".")[0] == "keras":
        config = given.get_config()  # the same object of Keras itself
        return _from_dict(who, option, {"class_name": type(given).__name__, "config": config}, known, kind)
    if callable(given):
        return given
    raise TypeError(
        f"{who}: {option} must be the name of an {kind}, its config, or a function; got {checks.described(given)}"
        if kind[0] in "aeiou"
        else f"{who}: {option} must be the name of a {kind}, its config, or a function; got {checks.described(given)}"
    )


def serialize(given: object, module: str, known: Mapping[str, type]) -> object:
    """The config dict of an object as Keras writes it; a function of the caller's own stays what it is."""
    if isinstance(given, Configured) and known.get(type(given).__name__) is type(given):
        return registered(module, type(given).__name__, given.get_config())
    return given


def registered(module: str, name: str, config: Options) -> Options:
    """What Keras writes for an object of a class of its own."""
    return {"module": module, "class_name": name, "config": dict(config), "registered_name": None}


def takes_key_first(function: Function) -> bool:
    """Whether an initializer takes `(key, shape, dtype)`, as JAX's do, and not `(shape, dtype)`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(names) >= 3 and names[0] != "shape"


def _class(who: str, option: str, name: str, known: Mapping[str, type], kind: str) -> type:
    if name in known:
        return known[name]
    hint = checks.did_you_mean(name, known, f"known: {', '.join(n for n in known if n.islower())}")
    raise ValueError(f"{who}: {option} names no {kind}; got {name!r}{hint}")


def _from_dict(who: str, option: str, given: Mapping[str, object], known: Mapping[str, type], kind: str) -> Any:
    name, config = given.get("class_name"), given.get("config", {})
    if not isinstance(name, str) or not isinstance(config, Mapping) or name not in known:
        raise ValueError(
            f"{who}: {option} is a config that stands for code of its own (class_name={name!r}), which is not run;"
            f" pass the function itself"
        )
    cls = known[name]
    try:
        return cls(**config)
    except TypeError as error:
        raise ValueError(f"{who}: {option}: the config does not fit {name}: {error}") from error
