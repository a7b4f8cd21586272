"""Sequences of different lengths in an ONNX graph by arithmetic, without GRU's own input sequence_lens.

Runtimes ignore that input, some without a word; what is written here needs nothing but Gather and Where.
"""

import functools

import numpy as np

from gru_jax.interop.onnx.graph import Builder


class Ragged:
    """The graph's input `lengths` in the forms that layers need; a length below 0 acts as 0, one above T as T.

    Args:
      g: the graph.
      x: the sequences, `[T, B, I]`.
    """

    def __init__(self, g: Builder, x: str) -> None:
        self.g = g
        self.first, self.one = g.constant("first", 0), g.constant("one", 1)
        sizes = g.node("Shape", x)
        self.steps = g.node("Gather", sizes, self.first, axis=0)
        self.batch = g.node("Gather", sizes, self.one, axis=0)
        given = g.node("Cast", "lengths", to=g.onnx.TensorProto.INT64)
        self.ends = g.node("Min", g.node("Max", given, self.first), self.steps)
        time = g.node("Range", self.first, self.steps, self.one)
        self.time = g.node("Unsqueeze", time, g.constant("second_axis", [1]))
        self.sequences = g.node("Range", self.first, self.batch, self.one)
        self.inside = g.node("Unsqueeze", g.node("Less", self.time, self.ends), g.constant("third_axis", [2]))

    def to_the_end(self, x: str, features: int) -> str:
        """`[T, B, F]` with each sequence moved along time, to end at the last step; a mere copy at full length."""
        return self._taken(x, features, self._ending)

    def to_the_start(self, y: str, features: int) -> str:
        """`to_the_end` undone."""
        return self._taken(y, features, self._starting)

    def final(self, y: str, features: int, start: str, *, backward: bool) -> str:
        """The state after a direction's last step, `[1, B, H]`; `start`, likewise, for a sequence without steps."""
        g = self.g
        state = g.node("Gather", y, self.first, axis=0) if backward else self.at_the_end(y, features)
        empty = g.node("Unsqueeze", g.node("Equal", self.ends, self.first), g.constant("second_axis", [1]))
        return g.node("Where", empty, start, state)

    def at_the_end(self, y: str, features: int) -> str:
        """y at each sequence's last step, `[B, F]`; at its first one for a sequence without steps."""
        return self._taken(y, features, self._last)

    def zeroed(self, y: str) -> str:
        """y with 0 past each sequence's length."""
        return self.g.node("Where", self.inside, y, self.g.constant("zero", 0, np.float32))

    def held(self, x: str, features: int, *, backward: bool) -> str:
        """x with what stands at the last step before that counts past each length, 0 where the run comes from there."""
        if backward:
            return self.zeroed(x)
        last = self.g.node("Max", self.g.node("Sub", self.ends, self.one), self.first)
        there = self._taken(x, features, self._rows(self.g.node("Min", self.time, last)))
        some = self.g.node("Greater", self.ends, self.first)
        some = self.g.node("Unsqueeze", some, self.g.constant("second_axis", [1]))
        return self.g.node("Where", some, there, self.g.constant("zero", 0, np.float32))

    # Computed once for all layers, and only if any layer needs them.

    @functools.cached_property
    def _padding(self) -> str:
        return self.g.node("Sub", self.steps, self.ends)

    @functools.cached_property
    def _ending(self) -> str:
        return self._rows(self.g.node("Max", self.g.node("Sub", self.time, self._padding), self.first))

    @functools.cached_property
    def _starting(self) -> str:
        last = self.g.node("Sub", self.steps, self.one)
        return self._rows(self.g.node("Min", self.g.node("Add", self.time, self._padding), last))

    @functools.cached_property
    def _last(self) -> str:
        return self._rows(self.g.node("Max", self.g.node("Sub", self.ends, self.one), self.first))

    def _rows(self, steps: str) -> str:
        """The place of a step of each sequence, `[..., B]`, among all `[T B]` steps."""
        return self.g.node("Add", self.g.node("Mul", steps, self.batch), self.sequences)

    def _taken(self, tensor: str, features: int, rows: str) -> str:
        # Of rows, where GatherElements would take an index for every number.
        flat = self.g.node("Reshape", tensor, self.g.constant(f"rows_of_{features}", [-1, features]))
        return self.g.node("Gather", flat, rows, axis=0)
