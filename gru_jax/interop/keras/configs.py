"""What the config of a saved Keras model says of its GRU layers. Configs are read as data; no code in them is run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gru_jax.interop.keras import activations, identifiers, versions
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.types import Activation, Options, Plain

MERGES = {"sum": "sum", "mul": "mul", "ave": "mean", "concat": "concat", None: None}
OPTIONS = ("reset_after", "activation", "recurrent_activation")
"""What arrays do not show, or not always."""

TWO_SLOPES = "hard_sigmoid has one slope in Keras 2 and another in Keras 3, and nothing says which Keras wrote it"


def facts(config: Mapping[str, Plain] | None, version: versions.Version | None = None) -> Options:
    """What a layer's config says of how it computes; nothing for None.

    Args:
      config: `{"class_name": ..., "config": ...}` of a GRU, of a Bidirectional, or of an RNN with a GRUCell.
      version: of the Keras that wrote it; None when unknown.

    Returns:
      reset_after, activation and recurrent_activation, as far as they are said or the version decides them; `units` and
      `use_bias`; `run`, options of `gj.nnx.GRU`; `open`, why an option is not decided; `foreign`, why the config cannot
      be trusted to describe a GRU; `code`, the options that are functions of its maker's own.
    """
    if config is None:
        return {}
    kind, inner = config.get("class_name"), config.get("config")
    if not isinstance(inner, Mapping):
        return {"foreign": f"its config is no dict but {type(inner).__name__}"}
    if kind == "Bidirectional":
        return _of_two(inner, version)
    names, own = [config.get("registered_name")], inner
    if kind == "RNN":
        cell = inner.get("cell")
        cells = cell.get("config") if isinstance(cell, Mapping) and cell.get("class_name") == "GRUCell" else None
        if isinstance(cells, Mapping):
            kind, own, names = "GRU", {**inner, **cells}, [*names, inner["cell"].get("registered_name")]
    known = (None, kind, "RNN", "GRUCell")
    if kind not in ("GRU", "GRUCell", "CuDNNGRU") or any(name not in known for name in names):
        return {"foreign": f"it is of the class {kind!r}, whose code is not known here"}
    hold = "zero" if own.get("zero_output_for_mask") else "hold"
    run = {"reverse": own.get("go_backwards") is True, "stateful": own.get("stateful") is True, "padding": hold}
    found = {key: own[key] for key, of in (("units", int), ("use_bias", bool)) if type(own.get(key)) is of}
    if kind == "CuDNNGRU":  # its options follow from cuDNN
        return found | {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True, "run": run}
    return found | _options(own, version) | {"run": run}


def of_weights(version: versions.Version | None, *, cudnn: bool) -> Options:
    """What is known of a layer whose options are nowhere: the defaults of the Keras that wrote it.

    Args:
      version: of that Keras; None when unknown.
      cudnn: whether they are those of a CuDNNGRU, which had no such options.
    """
    if cudnn:
        return facts({"class_name": "CuDNNGRU", "config": {}}, version)
    found = versions.defaults(version)
    why = f"its options are not in the file, and {versions.why_open(version)}"
    missing = {option: why for option in ("recurrent_activation", "reset_after") if option not in found}
    return {"activation": "tanh"} | found | {"open": missing, "alone": True}


def activation(who: str, option: str, given: Identifier, version: versions.Version | None) -> Activation | None:
    """An activation that a Keras of this version would understand; None for a hard_sigmoid of unknown slope."""
    found = activations.get(who, option, given)
    return versions.hard_sigmoid(version) if found == "hard_sigmoid" and not callable(given) else found


def _options(own: Mapping[str, Plain], version: versions.Version | None) -> Options:
    """The options of a GRU's config, `open` and `code` for those without an answer."""
    found: Options = {}
    open_, code = {}, []
    defaults = {"activation": "tanh"} | versions.defaults(version)
    silent = f"its config does not say it, and {versions.why_open(version)}"
    for option in ("activation", "recurrent_activation"):
        if option not in own and option not in defaults:
            open_[option] = silent
            continue
        try:
            found[option] = activation("keras.load", option, own.get(option, defaults.get(option)), version)
        except (TypeError, ValueError):
            code.append(option)
            continue
        if found[option] is None:
            del found[option]
            open_[option] = TWO_SLOPES
    reset_after = own.get("reset_after", defaults.get("reset_after"))
    if isinstance(reset_after, bool):
        found["reset_after"] = reset_after
        if "reset_after" not in own and version is not None:
            found["by_default"] = f"its config does not say reset_after, which is {reset_after} in Keras {version.text}"
    else:
        open_["reset_after"] = silent
    return found | {"open": open_} | ({"code": code} if code else {})


def _of_two(inner: Mapping[str, Plain], version: versions.Version | None) -> Options:
    layers = [inner.get("layer"), inner.get("backward_layer") or inner.get("layer")]
    if not all(isinstance(layer, Mapping) for layer in layers):
        return {"foreign": "its config does not say which layer it wraps"}
    forward, backward = (facts(layer, version) for layer in layers)
    for one in (forward, backward):
        if "foreign" in one:
            return one
    if any(forward.get(key) != backward.get(key) for key in (*OPTIONS, "code", "open")):
        return {"foreign": "its directions differ in their options; take them one by one"}
    if forward.get("units") != backward.get("units"):
        forward.pop("units", None)
    merge = inner.get("merge_mode", "concat")
    if not isinstance(merge, str | None) or merge not in MERGES:
        return {"foreign": f"its merge_mode is {merge!r}"}
    padding = "zero" if versions.zeros_at_masked_steps(version) else "hold"
    return forward | {"run": forward["run"] | {"merge": MERGES[merge], "padding": padding}}


class Place(NamedTuple):
    """A layer in a model's config.

    Attributes:
      place: of its weights in a file of the newer format, layers/<class>, layers/<class>_1, ... in the config's order.
      names: its name, last, after those of the layers it stands in.
      config: its own.
    """

    place: str
    names: tuple[str, ...]
    config: Mapping[str, Plain]


def places(config: Plain) -> list[Place]:
    """Every layer of a model's config that is neither a model nor a wrapper of one layer."""
    return list(_places(config, "", (), 0))


def _places(config: Plain, place: str, names: tuple[str, ...], depth: int) -> Iterator[Place]:
    inner = config.get("config") if isinstance(config, Mapping) else None
    listed = inner.get("layers") if isinstance(inner, Mapping) else inner if isinstance(inner, list) else None
    if depth > 32:
        return
    if isinstance(listed, list):
        seen: Counter[str] = Counter()
        for one in listed:
            if not isinstance(one, Mapping) or not isinstance(one.get("class_name"), str):
                continue
            base = identifiers.snake(one["class_name"])
            number = f"_{seen[base]}" if seen[base] else ""
            seen[base] += 1
            yield from _places(one, f"{place}layers/{base}{number}/", (*names, _name(one)), depth + 1)
    elif depth and isinstance(inner, Mapping) and config["class_name"] != "Bidirectional" and _is_layer(inner):
        wrapped = inner["layer"]
        yield from _places(wrapped, f"{place}layer/", (*names, _name(wrapped)), depth + 1)
    elif depth:
        yield Place(place.removesuffix("/"), names, config)


def _is_layer(wrapper: Mapping[str, Plain]) -> bool:
    layer = wrapper.get("layer")
    return isinstance(layer, Mapping) and isinstance(layer.get("class_name"), str)


def _name(layer: Mapping[str, Plain]) -> str:
    own = layer.get("config")
    return str(own.get("name", layer.get("name")) if isinstance(own, Mapping) else layer.get("name"))
