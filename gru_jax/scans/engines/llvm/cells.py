"""The gated cells that machine code knows: each step and its derivative, once, for vectors and for arrays.

An equation is written in terms of `Numbers`, which are vectors of a program that is being written (`vectors`), or
arrays (`loops`, for where nothing can be compiled). What the kernels know of a cell is here, and nothing else:

- the projected input u and the recurrent products q stand side by side, one for each gate, the candidate's last;
- `inside`: the candidate does not see the sum of the two, so that its product has a gradient of its own;
- `second`: the candidate's product is not one of the state but of what the other gates make of it, `operand`, and so
  is known only after theirs, in a second phase of the step;
- states after the first, which is the output and what products are of, meet no product;
- `kept`: what the backward pass is given of a step, the values of gates first.

Gradients of a step's gates stand in slots. Without `inside` there is one for each gate. With it the candidate's is the
first, and its product's the last, so that what reaches the input is a row of slots, and what reaches the products too.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from gru_jax.cells import activations
from gru_jax.cells.base import Equations

Value = Any
"""A vector, or an array."""


class Numbers(Protocol):
    """Arithmetic, element by element."""

    def number(self, a: float) -> Value:
        """The same number everywhere."""

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c."""

    def neg(self, a: Value) -> Value:
        """-a."""

    def activation(self, name: str, x: Value) -> Value:
        """An activation by its name."""

    def slope(self, name: str, x: Value) -> Value:
        """Its derivative at x."""

    def slope_at(self, name: str, value: Value) -> Value:
        """The same, of one `BY_VALUE`, from its value."""


BY_VALUE = ("tanh", "sigmoid", "relu", "linear", "exponential")
"""Activations whose slope comes from their value; of others it is kept, too."""
SERVED = tuple(activations.ACTIVATIONS)


@dataclasses.dataclass(frozen=True)
class Gated:
    """A cell's equations.

    Args:
      gate: the gates' activation.
      candidate: the candidate's.
    """

    gate: str
    candidate: str

    gates: ClassVar[int]
    inside: ClassVar[bool] = False
    second: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = ("h",)
    values: ClassVar[str]
    """What is kept of a step beside slopes, a letter each: "g" with the gates' activation, "c" the candidate's."""

    @property
    def kept(self) -> int:
        """How many numbers of a unit are kept of a step."""
        return len(self.values) + sum(self._kept_slope(kind) for kind in self.values)

    @property
    def kept_first(self) -> int:
        """How many of them the first of two phases knows."""
        gates = self.values.index("c")
        return gates * (2 if self._kept_slope("g") else 1)

    @property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """The gates whose products are taken together."""
        every = tuple(range(self.gates))
        return (every[:-1], every[-1:]) if self.second else (every,)

    @property
    def slots(self) -> int:
        """Gradients of a step's gates."""
        return self.gates + self.inside

    def slot_of_u(self, gate: int) -> int:
        """Where the gradient of a gate's projected input stands."""
        return (gate + 1) % self.gates if self.inside else gate

    def slot_of_q(self, gate: int) -> int:
        """Where that of its product stands."""
        return gate + self.inside

    def operand(self, to: Numbers, u: list[Value], q: list[Value], h: Value) -> tuple[Value, list[Value]]:
        """What the second product is of, and what is kept of the first phase; h as the products see it."""
        raise NotImplementedError

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        """The states after a step, and what is kept of it; u and q of the last phase, `first` what an earlier kept."""
        raise NotImplementedError

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        """From the gradients of the states after a step those of its slots, None of those that a product will give,
        and of the states before it, but for what passes through products."""
        raise NotImplementedError

    def backward_operand(
        self, to: Numbers, kept: list[Value], h: Value, p: Value
    ) -> tuple[Value, list[Value], Value]:
        """The operand again; and from its gradient p those of the slots that were None, and that of h."""
        raise NotImplementedError

    def _kept_slope(self, kind: str) -> bool:
        return {"g": self.gate, "c": self.candidate}.get(kind, BY_VALUE[0]) not in BY_VALUE

    def _activated(self, to: Numbers, kind: str, x: Value) -> list[Value]:
        """The value, and the slope where that is to be kept."""
        name = self.gate if kind == "g" else self.candidate
        value = to.activation(name, x)
        return [value, to.slope(name, x)] if self._kept_slope(kind) else [value]

    def _slope(self, to: Numbers, kind: str, kept: Iterator[Value]) -> tuple[Value, Value]:
        """The value and the slope from what `_activated` gave."""
        value = next(kept)
        name = self.gate if kind == "g" else self.candidate
        return value, next(kept) if self._kept_slope(kind) else to.slope_at(name, value)


@dataclasses.dataclass(frozen=True)
class ResetAfter(Gated):
    """`r, z = s(u_r + q_r), s(u_z + q_z)`, `n = g(u_n + r q_n)`, `h' = n + z (h - n)`."""

    gates = 3
    inside = True
    values = "ggcq"

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        r, z = (self._activated(to, "g", to.add(u[k], q[k])) for k in (0, 1))
        n = self._activated(to, "c", to.fma(r[0], q[2], u[2]))
        return [_between(to, z[0], old[0], n[0])], [*r, *z, *n, q[2]]

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        rest = iter(kept)
        (r, slope_r), (z, slope_z), (n, slope_n) = (self._slope(to, kind, rest) for kind in "ggc")
        (l,), (h,), q = adjoint, old, next(rest)
        d_n = to.mul(to.mul(l, to.sub(to.number(1.0), z)), slope_n)
        d_q = to.mul(d_n, r)
        if self.gate == "sigmoid":  # whose slope, r (1 - r), begins with what d_q has already
            d_r = to.mul(to.mul(d_q, q), to.sub(to.number(1.0), r))
        else:
            d_r = to.mul(to.mul(d_n, q), slope_r)
        d_z = to.mul(to.mul(l, to.sub(h, n)), slope_z)
        return [d_n, d_r, d_z, d_q], [to.mul(z, l)]


@dataclasses.dataclass(frozen=True)
class ResetBefore(Gated):
    """`r, z = s(u_r + q_r), s(u_z + q_z)`, `n = g(u_n + q_n)`, q_n a product of `r h`, `h' = n + z (h - n)`."""

    gates = 3
    second = True
    values = "ggc"

    def operand(self, to: Numbers, u: list[Value], q: list[Value], h: Value) -> tuple[Value, list[Value]]:
        r, z = (self._activated(to, "g", to.add(u[k], q[k])) for k in (0, 1))
        return to.mul(r[0], h), [*r, *z]

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        n = self._activated(to, "c", to.add(u[0], q[0]))
        z = first[len(first) // 2]
        return [_between(to, z, old[0], n[0])], n

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        rest = iter(kept)
        _, (z, slope_z), (n, slope_n) = (self._slope(to, kind, rest) for kind in "ggc")
        (l,), (h,) = adjoint, old
        d_n = to.mul(to.mul(l, to.sub(to.number(1.0), z)), slope_n)
        d_z = to.mul(to.mul(l, to.sub(h, n)), slope_z)
        return [None, d_z, d_n], [to.mul(z, l)]

    def backward_operand(
        self, to: Numbers, kept: list[Value], h: Value, p: Value
    ) -> tuple[Value, list[Value], Value]:
        r, slope = self._slope(to, "g", iter(kept))
        return to.mul(r, h), [to.mul(to.mul(p, h), slope), None, None], to.mul(r, p)


@dataclasses.dataclass(frozen=True)
class MinimalReset(Gated):
    """`f = s(u_f + q_f)`, `n = g(u_n + f q_n)`, `h' = n + f (h - n)`."""

    gates = 2
    inside = True
    values = "gcq"

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        f = self._activated(to, "g", to.add(u[0], q[0]))
        n = self._activated(to, "c", to.fma(f[0], q[1], u[1]))
        return [_between(to, f[0], old[0], n[0])], [*f, *n, q[1]]

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        rest = iter(kept)
        (f, slope_f), (n, slope_n) = (self._slope(to, kind, rest) for kind in "gc")
        (l,), (h,), q = adjoint, old, next(rest)
        d_n = to.mul(to.mul(l, to.sub(to.number(1.0), f)), slope_n)
        d_f = to.mul(to.fma(l, to.sub(h, n), to.mul(d_n, q)), slope_f)
        return [d_n, d_f, to.mul(d_n, f)], [to.mul(f, l)]


@dataclasses.dataclass(frozen=True)
class Minimal(Gated):
    """`f = s(u_f + q_f)`, `n = g(u_n + q_n)`, `h' = n + f (h - n)`."""

    gates = 2
    values = "gc"

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        f, n = (self._activated(to, kind, to.add(u[k], q[k])) for k, kind in enumerate("gc"))
        return [_between(to, f[0], old[0], n[0])], [*f, *n]

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        rest = iter(kept)
        (f, slope_f), (n, slope_n) = (self._slope(to, kind, rest) for kind in "gc")
        (l,), (h,) = adjoint, old
        d_n = to.mul(to.mul(l, to.sub(to.number(1.0), f)), slope_n)
        return [to.mul(to.mul(l, to.sub(h, n)), slope_f), d_n], [to.mul(f, l)]


@dataclasses.dataclass(frozen=True)
class Elman(Gated):
    """`h' = g(u + q)`."""

    gates = 1
    values = "c"

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        n = self._activated(to, "c", to.add(u[0], q[0]))
        return [n[0]], n

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        _, slope = self._slope(to, "c", iter(kept))
        return [to.mul(adjoint[0], slope)], [to.number(0.0)]


@dataclasses.dataclass(frozen=True)
class LSTM(Gated):
    """`i, f, o = s(u + q)`, `m = g(u_m + q_m)`, `c' = f c + i m`, `h' = o g(c')`."""

    gates = 4
    states = ("h", "c")
    values = "gggc"

    def forward(
        self, to: Numbers, u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        i, f, o, m = (self._activated(to, kind, to.add(u[k], q[k])) for k, kind in enumerate("gggc"))
        c = to.fma(f[0], old[1], to.mul(i[0], m[0]))
        return [to.mul(o[0], to.activation(self.candidate, c)), c], [*i, *f, *o, *m]

    def backward(
        self, to: Numbers, kept: list[Value], old: list[Value], adjoint: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        rest = iter(kept)
        (i, slope_i), (f, slope_f), (o, slope_o), (m, slope_m) = (self._slope(to, kind, rest) for kind in "gggc")
        (l_h, l_c), c = adjoint, old[1]
        after = to.fma(f, c, to.mul(i, m))
        seen, slope = self._slope(to, "c", iter(self._activated(to, "c", after)))
        d_c = to.fma(to.mul(l_h, o), slope, l_c)
        d_o = to.mul(to.mul(l_h, seen), slope_o)
        d_i, d_f = to.mul(to.mul(d_c, m), slope_i), to.mul(to.mul(d_c, c), slope_f)
        d_m = to.mul(to.mul(d_c, i), slope_m)
        return [d_i, d_f, d_o, d_m], [to.number(0.0), to.mul(d_c, f)]


def _between(to: Numbers, z: Value, h: Value, n: Value) -> Value:
    """`(1 - z) n + z h`."""
    return to.fma(z, to.sub(h, n), n)


_BY_NAME: dict[str, type[Gated]] = {
    "gru": ResetAfter,
    "gru, reset before": ResetBefore,
    "mgu": MinimalReset,
    "mgu without its reset": Minimal,
    "tanh rnn": Elman,
    "lstm": LSTM,
}


def refusal(equations: Equations) -> str | None:
    """What of some equations machine code does not know, as the end of a sentence; None where it knows all."""
    if equations.name not in _BY_NAME:
        return equations.name
    named = (equations.gate, equations.candidate)
    unknown = next((name for name in named if not isinstance(name, str) or name not in SERVED), None)
    return None if unknown is None else f"the activation {unknown!r} (only {', '.join(map(repr, SERVED))})"


def described(equations: Equations) -> Gated:
    """The cell of equations that `refusal` has let pass."""
    return _BY_NAME[equations.name](str(equations.gate), str(equations.candidate))
