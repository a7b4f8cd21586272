"""What the config of a saved Keras model says of its GRU layers. Configs are read as data; no code in them is run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gru_jax.interop.keras import activations, identifiers

MERGES = {"sum": "sum", "mul": "mul", "ave": "mean", "concat": "concat", None: None}


def facts(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a layer's config says of how it computes; nothing for None.

    Args:
      config: `{"class_name": ..., "config": ...}` of a GRU, of a Bidirectional, or of an RNN with a GRUCell.

    Returns:
      reset_after, activation and recurrent_activation; `run`, options of `gj.nnx.GRU`; `foreign`, why the config cannot
      be trusted to describe a GRU; `code`, the options that are functions of its maker's own.
    """
    if config is None:
        return {}
    kind, inner = config.get("class_name"), config.get("config")
    if not isinstance(inner, Mapping):
        return {"foreign": f"its config is no dict but {type(inner).__name__}"}
    if kind == "Bidirectional":
        return _of_two(inner)
    own = inner
    if kind == "RNN":
        cell = inner.get("cell")
        kind = "GRU" if isinstance(cell, Mapping) and cell.get("class_name") == "GRUCell" else kind
        own = inner | cell["config"] if kind == "GRU" else inner  # type: ignore[index]
    if kind not in ("GRU", "GRUCell") or config.get("registered_name") not in (None, kind, "RNN"):
        return {"foreign": f"it is of the class {kind!r}, whose code is not known here"}
    found: dict[str, Any] = {}
    code = []
    for option in ("activation", "recurrent_activation"):
        default = "tanh" if option == "activation" else "sigmoid"
        try:
            found[option] = activations.get("keras.load", option, own.get(option, default))
        except (TypeError, ValueError):
            code.append(option)
    if "reset_after" in own:
        found["reset_after"] = own["reset_after"] is not False
    hold = "zero" if own.get("zero_output_for_mask") else "hold"
    run = {"reverse": own.get("go_backwards") is True, "stateful": own.get("stateful") is True, "padding": hold}
    return found | {"run": run} | ({"code": code} if code else {})


def _of_two(inner: Mapping[str, Any]) -> dict[str, Any]:
    forward = facts(inner.get("layer"))
    backward = facts(inner.get("backward_layer")) or forward
    for one in (forward, backward):
        if "foreign" in one:
            return one
    keys = ("reset_after", "activation", "recurrent_activation")
    if any(forward.get(key) != backward.get(key) for key in keys):
        return {"foreign": "its directions differ in their options; take them one by one"}
    merge = inner.get("merge_mode", "concat")
    if merge not in MERGES:
        return {"foreign": f"its merge_mode is {merge!r}"}
    return forward | {"run": forward["run"] | {"merge": MERGES[merge], "padding": "zero"}}


def places(config: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every recurrent layer of a model's config: (its place in the weights file, its name, its config).

    A model's layers stand in the file as layers/<class>, layers/<class>_1, ... in the config's order.
    """
    inner = config.get("config") if isinstance(config, Mapping) else None
    listed = inner.get("layers") if isinstance(inner, Mapping) else inner if isinstance(inner, list) else None
    if not isinstance(listed, list) or depth > 32:
        return
    seen: Counter[str] = Counter()
    for one in listed:
        if not isinstance(one, Mapping) or not isinstance(one.get("class_name"), str):
            continue
        base = identifiers.snake(one["class_name"])
        place = f"{prefix}layers/{base}" + (f"_{seen[base]}" if seen[base] else "")
        seen[base] += 1
        own = one.get("config")
        name = own.get("name", one.get("name")) if isinstance(own, Mapping) else one.get("name")
        if isinstance(own, Mapping) and isinstance(own.get("layers"), list):
            yield from places(one, f"{place}/", depth + 1)
        else:
            yield place, str(name), one
