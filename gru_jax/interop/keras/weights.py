"""Weights between Keras and `gj.nnx.GRU`."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.interop import arrays, neutral
from gru_jax.interop.keras import activations, configs, files, limits, versions
from gru_jax.interop.keras.cell import to_neutral
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.layers.nnx import GRU as NeutralLayer
from gru_jax.types import Options, Params, Tree

RENAMED = {
    "gate_activation": "recurrent_activation",
    "reset": "reset_after",
    "merge_mode": "merge",
    "go_backwards": "reverse",
}
"""What an option is called in `load`: what weights mean as in Keras, how the layer runs as in `gj.nnx.GRU`."""


def load(
    theirs: object,
    *,
    layer: str | None = None,
    reset_after: bool | None = None,
    activation: Identifier = None,
    recurrent_activation: Identifier = None,
    keras_version: str | None = None,
    **options: Any,
) -> NeutralLayer:
    """Keras' weights as a `gj.nnx.GRU`.

    Args:
      theirs: the path of a `.keras`, `.weights.h5` or `.h5` file; a layer of Keras or of this package; the list that
        `get_weights()` of a GRU (or of a Bidirectional) returns; or a list of layers, each of them such a thing or a
        pair of them (forward, backward).
      layer: the name of the layer in a file that holds several.
      reset_after: as in Keras; needed only for weights without biases, which do not show it.
      activation: of the candidate state.
      recurrent_activation: of the gates. "hard_sigmoid" is that of the Keras which wrote the weights: from Keras 3 on
        clip(x / 6 + 1/2, 0, 1), before it clip(x / 5 + 1/2, 0, 1), which is "keras2_hard_sigmoid" here.
      keras_version: of the Keras that wrote the weights, such as "2.2.4", where they do not say it.
      **options: of `gj.nnx.GRU` that say how it runs: method, padding, dropout, rngs, ...

    What a layer, or a file with a config, says of the first three is taken from it. Weights alone have the defaults of
    the Keras that wrote them, for a list of arrays today's: reset_after=True, "tanh" and "sigmoid". What their version
    does not decide has to be passed.

    Returns:
      A `gj.nnx.GRU`. Where the layer says so, it reads backwards (outputs in original time order all the same), merges
      its directions and keeps its state; rates of dropout are not taken over.

    Raises:
      FileNotFoundError: when there is no such file.
      TypeError, ValueError: for anything that is no GRU; the message says what it is.

    Example:
      >>> import numpy as np
      >>> from gru_jax.interop import keras
      >>> kernel, recurrent_kernel, bias = np.ones((3, 12)), np.ones((4, 12)), np.zeros((2, 12))
      >>> gru = keras.load([w.astype("float32") for w in (kernel, recurrent_kernel, bias)])
      >>> gru.spec.hidden_features, gru.spec.reset
      (4, 'after')
    """
    for name, right in RENAMED.items():
        if name in options:
            raise TypeError(f"keras.load: {name} is called {right} here; pass {right}=")
    if isinstance(theirs, str | os.PathLike):
        theirs = files.one("keras.load", theirs, layer, keras_version)
    elif layer is not None:
        raise TypeError("keras.load: layer is the name of a layer in a file; leave it out for weights that are given")
    said = {"reset_after": reset_after, "activation": activation, "recurrent_activation": recurrent_activation}
    whole = _expanded(theirs, versions.given("keras.load", keras_version, None))
    records = _records(whole)
    for key, given in said.items():
        found = {record.option("keras.load", key, given) for record in records} - {None}
        if len(found) > 1:
            raise ValueError(f"keras.load: the layers differ in {key}; load them one by one")
        said[key] = found.pop() if found else None
    facts = [record.facts for record in records if record.facts]
    run: Options = facts[0].get("run", {}) if facts else {}
    for key in run:
        if any(fact.get("run", run)[key] != run[key] for fact in facts):
            raise ValueError(f"keras.load: the layers differ in {key}; load them one by one")
    return _module(whole, said, run | options)


def export(
    layer: neutral.Layer,
    *,
    reset_after: bool = True,
    activation: Identifier = "tanh",
    recurrent_activation: Identifier = "sigmoid",
    merge_mode: str | None = "concat",
    go_backwards: bool = False,
) -> Tree:
    """A layer's weights as Keras' `get_weights` lists.

    Args:
      layer: a `gj.nnx.GRU`, what else `gru_jax.interop.neutral.read` takes, or a layer of this package.
      reset_after: what the Keras layer has, looked at only without biases, whose shape says it otherwise.
      activation: of the candidate state in the Keras layer; the lists do not hold it.
      recurrent_activation: of the gates, likewise.
      merge_mode: of the Keras Bidirectional, likewise.
      go_backwards: of the Keras layer, likewise; its outputs then come in reversed order.

    Returns:
      `[kernel, recurrent_kernel, bias]` (without biases two arrays), for `keras_layer.set_weights`; with two directions
      the pair of such lists, so `bidirectional.set_weights([*forward, *backward])`; for several layers a list.

    Raises:
      TypeError, ValueError: for what is no such layer, or has heads, a norm or a residual sum, which would be lost; for
        options other than those that the Keras layer is said to have.

    Example:
      >>> from flax import nnx
      >>> import gru_jax as gj
      >>> from gru_jax.interop import keras
      >>> [w.shape for w in keras.export(gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)))]
      [(3, 12), (4, 12), (2, 12)]
    """
    weights = neutral.read("keras.export", layer)
    neutral.require("keras.export", weights, "keras.layers.GRU", any_activation=True, any_merge=True)
    _same_options(weights, reset_after, activation, recurrent_activation, merge_mode)
    checks.flag("keras.export", "go_backwards", go_backwards)
    if isinstance(layer, NeutralLayer | tuple) and neutral.reads_backwards(layer) != go_backwards:
        raise ValueError(
            f"keras.export: this layer has reverse={not go_backwards}, which arrays do not hold and which would be"
            f" lost; pass go_backwards={not go_backwards} here, and to the Keras layer"
        )
    nested: list[Tree] = []
    for directions in weights.directions():
        lists = [_arrays(weights.cell, params) for params in directions]
        nested.append(tuple(lists) if weights.bidirectional else lists[0])
    return nested[0] if len(nested) == 1 else nested


def _same_options(
    weights: neutral.Weights, reset_after: bool, candidate: Identifier, gate: Identifier, merge_mode: str | None
) -> None:
    """Raises ValueError where the Keras layer would compute something else with these weights."""
    who, cell = "keras.export", weights.cell
    said = {
        name: activations.for_cell(activations.get(who, name, function))
        for name, function in (("activation", candidate), ("recurrent_activation", gate))
    }
    checks.choice(who, "merge_mode", merge_mode, ("concat", "sum", "mul", "ave", None))
    checks.flag(who, "reset_after", reset_after)
    merge = {"mean": "ave"}.get(str(weights.merge), weights.merge)
    pairs: list[tuple[str, object, object]] = [
        ("activation", cell.activation, said["activation"]),
        ("recurrent_activation", cell.gate_activation, said["recurrent_activation"]),
    ]
    if cell.bias == "none":
        pairs.append(("reset_after", cell.reset == "after", reset_after))
    if weights.bidirectional:
        pairs.append(("merge_mode", merge, merge_mode))
    for name, has, given in pairs:
        if has != given:
            raise ValueError(
                f"{who}: this layer has {name}={has!r}, which arrays do not hold and which would be lost; pass"
                f" {name}={has!r} here, and to the Keras layer"
            )


def _arrays(cell: GRU, params: GRUParams) -> list[np.ndarray]:
    bias: list[np.ndarray] = []
    if cell.bias != "none":
        if cell.reset == "after":
            bias = [np.stack([neutral.swapped(b) for b in neutral.full_biases(params, cell.hidden_size)])]
        else:
            bias = [neutral.swapped(neutral.single_bias(params, cell.hidden_size))]
    return [neutral.swapped(params.w_x), neutral.swapped(params.w_h), *bias]


def _is_arrays(given: Any, *counts: int) -> bool:
    good = isinstance(given, list | tuple) and len(given) in counts
    return good and all(hasattr(w, "shape") and getattr(w, "ndim", 1) in (1, 2) for w in given)


def _expanded(given: Any, version: versions.Version | None) -> Any:
    """Layers and flat lists of arrays as records of one or two directions; a list of layers as a list."""
    if isinstance(given, files.Record):
        return given
    if _is_arrays(given, 2, 3) or _is_arrays(given, 4, 6):
        half = len(given) // 2
        parts = [given] if len(given) < 4 else [given[:half], given[half:]]
        facts = {} if version is None else configs.of_weights(version, cudnn=limits.of_cudnn(parts[0]))
        return files.Record("of these arrays", [_checked(part) for part in parts], facts, version or versions.KERAS_3)
    if hasattr(given, "get_config") and hasattr(given, "get_weights"):
        return _of_layer(given)
    if isinstance(given, tuple) and len(given) == 2:
        pair = [_expanded(one, version) for one in given]
        if all(isinstance(one, files.Record) and len(one.directions) == 1 for one in pair):
            # What the backward layer says of its direction is its place in the pair.
            said = [{key: value for key, value in one.facts.items() if key != "run"} for one in pair]
            if said[0] and said[1] and said[0] != said[1]:
                raise ValueError("keras.load: the two directions differ in their options; load them one by one")
            both = [*pair[0].directions, *pair[1].directions]
            return pair[0]._replace(directions=both, facts=said[0] or said[1])
    if isinstance(given, list) and given:
        layers = [_expanded(one, version) for one in given]
        if all(isinstance(one, files.Record) for one in layers):
            return layers
    raise TypeError(
        f"keras.load: needs a path, a GRU or Bidirectional layer, the list of its get_weights(), or a list of layers;"
        f" got {checks.described(given)}"
    )


def _of_layer(given: Any) -> files.Record:
    kind, config = type(given).__name__, given.get_config()
    if not given.built:
        raise ValueError(f"keras.load: the layer {given.name!r} is not built yet; call it once first")
    for part, of in ((config, given), (config.get("layer"), getattr(given, "forward_layer", None))):
        own = part.get("config", part) if isinstance(part, dict) else {}
        for option in ("activation", "recurrent_activation"):
            if option in own and hasattr(of, option):  # the function itself, where a config could only describe it
                own[option] = getattr(of, option)
    back = config.get("backward_layer")
    if isinstance(back, dict) and hasattr(given, "backward_layer"):
        for option in ("activation", "recurrent_activation"):
            back["config"][option] = getattr(given.backward_layer, option, None)
    version = versions.of_module(type(given).__module__) or versions.KERAS_3  # the layers of this package are Keras 3's
    return files.record(given.name, {"class_name": kind, "config": config}, given.get_weights(), version)


def _checked(given: Sequence[object]) -> list[np.ndarray]:
    named = zip(("kernel", "recurrent_kernel", "bias"), given, strict=False)
    weights = [arrays.to_numpy("keras.load", name, w) for name, w in named]
    problem = limits.not_a_gru(weights)
    if problem:
        raise ValueError(f"keras.load: these are no weights of a GRU: {problem}; pass what its get_weights() returned")
    return limits.from_cudnn(weights)


def _records(whole: files.Record | list[files.Record]) -> list[files.Record]:
    return whole if isinstance(whole, list) else [whole]


def _module(whole: files.Record | list[files.Record], said: Options, options: Options) -> NeutralLayer:
    records = _records(whole)
    lists = [weights for record in records for weights in record.directions]
    for one in lists:
        has_bias, first_has = len(one) == 3, len(lists[0]) == 3
        if one[1].shape != lists[0][1].shape or has_bias != first_has:
            raise ValueError("keras.load: the layers differ in units or biases; load them one by one")
    shown = {one[2].ndim == 2 for one in lists if len(one) == 3}
    if len(shown) > 1:
        raise ValueError("keras.load: the layers differ in reset_after; load them one by one")
    after = shown.pop() if shown else said["reset_after"] is not False
    if said["reset_after"] is not None and said["reset_after"] != after:
        raise ValueError(
            f"keras.load: reset_after={said['reset_after']}, but the bias has shape {list(lists[0][2].shape)}, which is"
            f" that of reset_after={after}; leave reset_after out"
        )
    candidate = activations.get("keras.load", "activation", said["activation"] or "tanh")
    gate = activations.get("keras.load", "recurrent_activation", said["recurrent_activation"] or "sigmoid")
    for name, activation in (("activation", candidate), ("recurrent_activation", gate)):
        if not activations.is_elementwise(activation):
            raise ValueError(
                f"keras.load: {name}={activation!r} works across units, which gj.nnx.GRU has not; use"
                f" gru_jax.interop.keras.GRU and set_weights"
            )
    cell = GRU(
        lists[0][1].shape[0],
        reset="after" if after else "before",
        activation=activations.for_cell(candidate),
        gate_activation=activations.for_cell(gate),
        bias="full" if len(lists[0]) == 3 else "none",
    )
    layers: list[Params] = []
    for record in records:
        params = tuple(to_neutral(*one, reset_after=after) for one in record.directions)
        layers.append(params if len(params) == 2 else params[0])
    if len({len(record.directions) for record in records}) > 1:
        raise ValueError("keras.load: all layers must have one direction, or all two; load them one by one")
    return neutral.module("keras.load", neutral.Weights(cell, tuple(layers)), options)


__all__ = ["export", "load"]
