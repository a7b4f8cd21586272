"""Arithmetic of vectors, as the equations of cells are written in it."""

from gru_jax.scans.engines.llvm import activations
from gru_jax.scans.engines.llvm.code import Code, Value


class Vectors:
    """`cells.Numbers` that are vectors of a function that is being written."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def number(self, a: float) -> Value:
        """The same number everywhere."""
        return self.code.spread(a)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.code.builder.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.code.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self.code.builder.fmul(a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self.code.fma(a, b, c)

    def neg(self, a: Value) -> Value:
        """-a."""
        return self.code.builder.fneg(a)

    def activation(self, name: str, x: Value) -> Value:
        """An activation by its name."""
        return activations.VALUES[name](self.code, x)

    def slope(self, name: str, x: Value) -> Value:
        """Its derivative at x."""
        return activations.SLOPES[name](self.code, x)

    def slope_at(self, name: str, value: Value) -> Value:
        """The same, of one that has it by its value."""
        return activations.SLOPES_AT[name](self.code, value)
