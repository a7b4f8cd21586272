"""torch's names of a GRU's parameters, and everything that can be wrong with a state dict, said in one message."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gru_jax import checks
from gru_jax.interop import arrays

_KEY = re.compile(r"(?:weight|bias)_(?:ih|hh|hr)_l(\d{1,9})(_reverse)?")
_MATRIX = "weight_hh"
_ROWS = {4: "an LSTM's", 1: "a plain RNN's"}
"""Whose recurrent matrix has how many rows for each column, besides the GRU's 3."""


_PACKED = re.compile(r"(^|\.)_(all_weight_values|packed_weight|packed_params)")
_NORMED = re.compile(rf"parametrizations\.{_MATRIX}_l0\.|{_MATRIX}_l0_[gv]$")
DEQUANTISE = "take the state_dict of the module as it was before it was quantised"


class Layout(NamedTuple):
    """What decides the names and shapes of a GRU's parameters.

    Attributes:
      input_size: I.
      hidden_size: H.
      num_layers: L.
      bidirectional: whether there are two directions.
      bias: whether there are biases.
      cell: the names of torch.nn.GRUCell, without a layer.
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    cell: bool = False

    def suffixes(self) -> list[list[str]]:
        """For each layer the endings of its directions' names."""
        if self.cell:
            return [[""]]
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [[f"_l{layer}{end}" for end in ends] for layer in range(self.num_layers)]

    def kinds(self) -> tuple[str, ...]:
        """The parameters of one layer and direction, in torch's order."""
        return ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape, in torch's order."""
        rows = 3 * self.hidden_size
        found: dict[str, tuple[int, ...]] = {}
        for layer, ends in enumerate(self.suffixes()):
            features = self.hidden_size * len(ends) if layer else self.input_size
            shape = {"weight_ih": (rows, features), "weight_hh": (rows, self.hidden_size)}
            found |= {f"{kind}{end}": shape.get(kind, (rows,)) for end in ends for kind in self.kinds()}
        return found

    def described(self) -> str:
        """The options, as one would write them."""
        options = {"num_layers": (self.num_layers, 1), "bias": (self.bias, True)}
        options["bidirectional"] = (self.bidirectional, False)
        written = [f"{name}={value}" for name, (value, default) in options.items() if value != default]
        kind = "GRUCell" if self.cell else "GRU"
        return f"{kind}({', '.join([str(self.input_size), str(self.hidden_size), *written])})"


class Found(NamedTuple):
    """What a comparison of a state dict with a layout gave.

    Attributes:
      arrays: those that fit, by name.
      missing: names that are not there.
      unexpected: names that should not be there.
      wrong: what is wrong with the others, in words.
    """

    arrays: dict[str, np.ndarray]
    missing: list[str]
    unexpected: list[str]
    wrong: list[str]


def mapping(who: str, given: object, prefix: object) -> Mapping[str, object]:
    """A state dict; raises TypeError for anything else, such as a path, and for a prefix that is no text."""
    if not isinstance(prefix, str):
        raise TypeError(f"{who}: prefix must be text such as 'encoder.rnn.'; got {checks.described(prefix)}")
    if isinstance(given, Mapping):
        return given
    path = isinstance(given, str) or hasattr(given, "__fspath__")
    fix = "read the file first: gj.interop.torch.read(path)" if path else "pass module.state_dict()"
    raise TypeError(f"{who}: state_dict must be a mapping of names to arrays; got {checks.described(given)}; {fix}")


def under(given: Mapping[str, object], prefix: str) -> dict[str, object]:
    """The entries whose names begin with the prefix, without it."""
    return {str(name)[len(prefix) :]: value for name, value in given.items() if str(name).startswith(prefix)}


def compare(who: str, given: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> Found:
    """A state dict beside the shapes it should have."""
    fitting, wrong = {}, []
    for name, shape in shapes.items():
        if name not in given:
            continue
        if isinstance(given[name], jax.core.Tracer):
            wrong.append(f"{name} is a traced array, and a state dict must be loaded outside of jit")
            continue
        try:
            array = arrays.to_numpy(who, name, given[name])
        except TypeError as error:
            wrong.append(str(error).removeprefix(f"{who}: "))
            continue
        if array.shape == shape:
            fitting[name] = array
        else:
            turned = "; it is transposed, pass its .T" if array.shape[::-1] == shape else ""
            wrong.append(f"{name} must have shape {list(shape)}, got {list(array.shape)}{turned}")
    missing = [name for name in shapes if name not in given]
    return Found(fitting, missing, [name for name in given if name not in shapes], wrong)


def problems(who: str, found: Found, given: Mapping[str, object], layout: Layout, prefix: str, what: str) -> str:
    """One message with everything that is wrong; empty when nothing is.

    Args:
      who: whose error message it is.
      found: the comparison.
      given: the state dict, with prefixes.
      layout: what it should have been.
      prefix: the one that was asked for.
      what: the module that takes the weights, in words.
    """
    parts = []
    if found.missing:
        parts.append(f"missing {checks.listed(found.missing)}")
    if found.unexpected:
        parts.append("unexpected " + checks.listed(_hint(name, found.missing) for name in found.unexpected))
    parts += found.wrong
    if not parts:
        return ""
    advice = prefix_advice(given, prefix)
    if not advice:
        other = guess(under(given, prefix), cell=layout.cell)
        if other and other != layout:
            advice = f"the weights are those of {other.described()}"
        else:
            advice = "pass a state dict of the same options"
    return f"{who}: the state dict does not fit {what}: {'; '.join(parts)}; {advice}"


def prefix_advice(given: Mapping[str, object], prefix: str) -> str:
    """What to do when the GRU's names stand behind another prefix; empty when they do not."""
    ends = re.compile(rf"(.*?)(?<!_){_MATRIX}(?:_l0)?")
    rows = {match[1]: _rows(value) for name, value in given.items() if (match := ends.fullmatch(str(name)))}
    if rows.get(prefix) == 3:
        return ""
    grus = sorted(one for one, count in rows.items() if count == 3)
    if grus:
        listed = " or ".join(f"prefix={one!r}" for one in grus[:4]) + (", ..." if len(grus) > 4 else "")
        return f"GRU weights stand under another prefix: pass {listed}"
    others = sorted(one for one, count in rows.items() if count in _ROWS and one != prefix)
    if not others or prefix in rows:
        return ""
    named = [f"those under prefix={one!r} are {_ROWS[rows[one]]}" for one in others[:4]]  # type: ignore[index]
    return " and ".join(named) + (", ..." if len(others) > 4 else "")


def guess(given: Mapping[str, object], *, cell: bool) -> Layout | None:
    """The options that a state dict was made with, as far as its names and shapes tell; None when they do not."""
    layers = [int(match[1]) for name in given if (match := _KEY.fullmatch(name))]
    end = "" if cell else "_l0"
    shapes = [getattr(given.get(f"{kind}{end}"), "shape", None) for kind in ("weight_ih", _MATRIX)]
    if not all(shape is not None and len(shape) == 2 for shape in shapes) or not (layers or cell):
        return None
    (rows, features), (rows_h, hidden) = shapes  # type: ignore[misc]
    if not rows == rows_h == 3 * hidden or not features:
        return None
    return Layout(
        int(features),
        int(hidden),
        # A layer has names of its own: a file that speaks of layer 99999999 costs no memory.
        1 if cell else min(max(layers) + 1, len(layers)),
        any(name.endswith("_reverse") and _KEY.fullmatch(name) for name in given),
        any(name.startswith("bias_") for name in given),
        cell,
    )


def infer(who: str, given: Mapping[str, object], prefix: str) -> Layout:
    """The options that a state dict was made with; raises ValueError, saying what it is instead of a GRU's."""
    inside = under(given, prefix)
    cell = _MATRIX in inside
    found = guess(inside, cell=cell)
    if found is not None:
        return found
    advice = prefix_advice(given, prefix)
    if advice:
        raise ValueError(f"{who}: there are no GRU weights under prefix={prefix!r}; {advice}")
    packed = [str(name) for name in given if _PACKED.search(str(name))]
    if packed and not any(name.startswith("weight_") for name in inside):
        raise ValueError(
            f"{who}: there are no GRU weights under prefix={prefix!r}, but packed ones of a quantised module;"
            f" got {checks.listed(packed)}; {DEQUANTISE}"
        )
    name = f"{_MATRIX}{'' if cell else '_l0'}"
    shape = getattr(inside.get(name), "shape", None)
    if shape is None:
        beneath = f" under prefix={prefix!r}" if prefix else ""
        names = checks.listed(given) or "nothing"
        if any(_NORMED.search(one) for one in inside):
            raise ValueError(
                f"{who}: {_MATRIX}_l0{beneath} is stored in the parts of a parametrization; got {names}; take the"
                f" weight norm off, such as by torch.nn.utils.parametrize.remove_parametrizations, and save anew"
            )
        raise ValueError(f"{who}: there is no {_MATRIX}_l0{beneath}, so these are no weights of a GRU; got {names}")
    is_kind = _ROWS.get(_rows(inside[name]) or 0)
    reason = f"the weights are {is_kind}" if is_kind else "or weight_ih is missing or has another number of rows"
    raise ValueError(f"{who}: {prefix}{name} of a GRU must have shape [3H, H]; got {list(shape)}; {reason}")


def _rows(matrix: object) -> int | None:
    """How many rows a matrix has for each of its columns; None unless that is a whole number."""
    shape: tuple[int, ...] = getattr(matrix, "shape", ())
    if len(shape) != 2 or not shape[1] or shape[0] % shape[1]:
        return None
    return int(shape[0] // shape[1])


def _hint(name: str, missing: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(missing), n=1, cutoff=0.8)
    return f"{name} (did you mean {near[0]}?)" if near else name
