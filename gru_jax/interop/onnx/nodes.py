"""One GRU node of a model: its weights in the neutral layout, its options, and what is linked to it."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from gru_jax.cells import GRUParams
from gru_jax.interop.neutral import gru_params, swapped
from gru_jax.interop.onnx import activations
from gru_jax.interop.onnx.activations import Activation
from gru_jax.interop.onnx.constants import NotConstantError, Reader
from gru_jax.types import Activation as AnyActivation

if TYPE_CHECKING:
    from onnx import NodeProto

ATTRIBUTES = {
    "activations": ("STRINGS", "strings"),
    "activation_alpha": ("FLOATS", "floats"),
    "activation_beta": ("FLOATS", "floats"),
    "clip": ("FLOAT", "f"),
    "direction": ("STRING", "s"),
    "hidden_size": ("INT", "i"),
    "layout": ("INT", "i"),
    "linear_before_reset": ("INT", "i"),
}
"""The attributes of a GRU node: their types, and the fields that hold their values."""

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


Layer: TypeAlias = "tuple[Node, ...]"
"""One layer of a stack: one node, or one for each of its two directions, forward and reverse."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A GRU node.

    Attributes:
      reader: the graph that it is in.
      proto: the node itself.
      place: how many GRU nodes stand before it.
    """

    reader: Reader
    proto: "NodeProto"
    place: int

    @property
    def label(self) -> str:
        """What it is called: its name, or its place among the GRU nodes."""
        return repr(self.proto.name) if self.proto.name else str(self.place)

    @property
    def who(self) -> str:
        """Whose error message it is, for one that goes on "has ..."."""
        return f"{self.reader.file.who}: the GRU node {self.label}"

    def input(self, place: int) -> str:
        """The name of an input; "" when it is missing."""
        return self.proto.input[place] if place < len(self.proto.input) else ""

    @property
    def y(self) -> str:
        """The name of the output Y; "" when it is missing."""
        return self.proto.output[0] if self.proto.output else ""

    def attribute(self, name: str) -> Any:
        """The value of an attribute; None when it is missing."""
        types = self.reader.onnx.AttributeProto
        for one in self.proto.attribute:
            if one.name == name:
                kind, field = ATTRIBUTES[name]
                if one.type != getattr(types, kind):
                    raise ValueError(f"{self.who} has an attribute {name} of the wrong type; it must be {kind}")
                value = getattr(one, field)
                if kind == "STRINGS":
                    return [each.decode(errors="replace") for each in value]
                return value.decode(errors="replace") if kind == "STRING" else value
        return None

    @property
    def direction(self) -> str:
        """ "forward", "reverse" or "bidirectional"."""
        direction = self.attribute("direction") or "forward"
        if direction not in DIRECTIONS:
            raise ValueError(f"{self.who} has direction={direction!r}; ONNX's GRU has {', '.join(DIRECTIONS)}")
        return str(direction)

    @property
    def reset(self) -> str:
        """The form of the reset, "after" or "before"."""
        return "after" if self.attribute("linear_before_reset") else "before"

    @property
    def batch_first(self) -> bool:
        """Whether X is `[B, T, I]` and Y `[B, T, D, H]`; they are `[T, B, I]` and `[T, D, B, H]` otherwise."""
        return self.attribute("layout") == 1

    @property
    def activations(self) -> tuple[AnyActivation, AnyActivation]:
        """(gate_activation, activation)."""
        count = DIRECTIONS[self.direction]
        names = self.attribute("activations") or ["Sigmoid", "Tanh"] * count
        clip = self.attribute("clip")
        if len(names) != 2 * count:
            raise ValueError(f"{self.who} has {len(names)} activations; direction={self.direction!r} needs {2 * count}")
        alpha, beta = self.attribute("activation_alpha") or (), self.attribute("activation_beta") or ()
        try:
            forms = activations.parsed(self.who, names, alpha, beta, clip or None)
        except (TypeError, ValueError) as error:
            message = str(error)
            raise ValueError(message if self.who in message else f"{self.who} has no usable ones; {message}") from error
        if forms[:2] != forms[-2:]:
            raise ValueError(
                f"{self.who} has other activations backward than forward, {_shown(forms[2:])} and {_shown(forms[:2])};"
                f" a layer has one pair for both directions"
            )
        return activations.named(forms[0]), activations.named(forms[1])

    def options(self) -> tuple[object, ...]:
        """What has to be equal for two nodes to be layers of one stack."""
        return self.direction, self.reset, self.activations, self.sizes()[1]

    def sizes(self) -> tuple[int, int]:
        """(I, H)."""
        w, r, _ = self.arrays()
        return w.shape[2], r.shape[2]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """W `[D, 3H, I]`, R `[D, 3H, H]` and B `[D, 6H]` (None when it is missing), of one floating-point type."""
        w, r = self._array("W", 1, 3), self._array("R", 2, 3)
        b = self._array("B", 3, 2) if self.input(3) else None
        count, size = DIRECTIONS[self.direction], r.shape[2]
        stated = self.attribute("hidden_size") or size
        expected = {"W": (count, 3 * size, w.shape[2]), "R": (count, 3 * size, size), "B": (count, 6 * size)}
        for name, value in (("W", w), ("R", r), ("B", b)):
            if value is not None and (value.shape != expected[name] or stated != size or not value.size):
                raise ValueError(
                    f"{self.who} has {name} of shape {list(value.shape)}, which does not fit"
                    f" direction={self.direction!r}, hidden_size={stated} and R of shape {list(r.shape)}"
                )
            if value is not None and value.dtype != w.dtype:
                raise ValueError(f"{self.who} has W of {w.dtype} and {name} of {value.dtype}; they must be of one type")
        return w, r, b

    def params(self) -> tuple[GRUParams, ...]:
        """The parameters of each direction."""
        w, r, b = self.arrays()
        half = 3 * r.shape[2]
        params = []
        for direction in range(len(w)):
            parts = [np.ascontiguousarray(swapped(matrix[direction].T)) for matrix in (w, r)]
            biases = [None, None] if b is None else [swapped(b[direction, :half]), swapped(b[direction, half:])]
            params.append(gru_params(*parts, *biases))
        return tuple(params)

    def described(self) -> str:
        """Its label, sizes and direction, as far as they can be read, for a list of nodes."""
        try:
            size_in, size = self.sizes()
            return f"{self.label} ({size_in} to {size} features, {self.direction})"
        except ValueError:
            return self.label

    def _array(self, name: str, place: int, ndim: int) -> np.ndarray:
        if not self.input(place):
            raise ValueError(f"{self.who} has no {name}")
        try:
            value = self.reader.constant(self.input(place))
        except NotConstantError as error:
            raise ValueError(f"{self.who} has {name} that is no constant of the model: it {error}") from error
        if value.ndim != ndim or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"{self.who} has {name} of shape {list(value.shape)} and type {value.dtype}; it must have {ndim}"
                f" dimensions and floating-point numbers"
            )
        return value


def _shown(forms: list[Activation]) -> str:
    return " and ".join(form.name for form in forms)
