"""exp, sigmoid and tanh of vectors, to about one unit in the last place.

The polynomials were fitted to float64 values, for the largest relative error to be the smallest.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gru_jax.scans.engines.llvm.code import I32, Code, Value

_EXP = (0.5, 0.16666576266288757, 0.04166637361049652, 0.008363175205886364, 0.0013941113138571382)
"""exp(f) = 1 + f + f^2 (c_0 + c_1 f + ...), |f| <= log(2) / 2, to 7e-9."""
_TANH = (
    -0.333333283662796, 0.13332794606685638, -0.053854092955589294, 0.021010154858231544, -0.0061132763512432575,
)  # fmt: skip
"""tanh(x) = x + x^3 (c_0 + c_1 x^2 + ...), |x| <= SMALL, to 2e-8."""
_SMALL = 0.625
LARGEST = 88.0
"""exp of it is a finite float32."""
_MAGIC = 1.5 * 2.0**23
_LN2 = (0.693359375, -2.12194440e-4)
"""log(2) in two parts, the first with zeros at its end, so that whole multiples of it are exact."""


def sigmoid(code: Code, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    one = code.spread(1.0)
    return code.builder.fdiv(one, code.builder.fadd(one, exp(code, code.builder.fneg(x))))


def both_sigmoids(code: Code, x: Value) -> tuple[Value, Value]:
    """sigmoid(x) and sigmoid(-x), the one that is small without the error of 1 minus the other."""
    b = code.builder
    e = exp(code, b.fneg(code.intrinsic("fabs", x)))
    large = b.fdiv(code.spread(1.0), b.fadd(code.spread(1.0), e))
    small = b.fmul(e, large)
    positive = b.fcmp_ordered(">=", x, code.spread(0.0))
    return b.select(positive, large, small), b.select(positive, small, large)


def tanh(code: Code, x: Value) -> Value:
    """tanh(x): by a polynomial where it is small, else 1 - 2 / (exp(2 |x|) + 1) with the sign of x."""
    b = code.builder
    square = b.fmul(x, x)
    near = code.fma(b.fmul(square, x), _polynomial(code, square, _TANH), x)
    size = code.intrinsic("fabs", x)
    quotient = b.fdiv(code.spread(2.0), b.fadd(exp(code, b.fadd(size, size)), code.spread(1.0)))
    far = code.intrinsic("copysign", b.fsub(code.spread(1.0), quotient), x)
    # The comparison is false for NaN, which then comes from `near`.
    return b.select(b.fcmp_ordered(">", size, code.spread(_SMALL)), far, near)


def exp(code: Code, x: Value) -> Value:
    """exp(x), x held within +-LARGEST; NaN for NaN."""
    b = code.builder
    least = code.spread(-LARGEST)
    x = at_most(code, x, LARGEST)
    x = b.select(b.fcmp_ordered("<", x, least), least, x)
    # Adding MAGIC rounds to a whole number, which then stands in the lowest bits.
    shifted = code.fma(x, code.spread(1 / math.log(2)), code.spread(_MAGIC))
    whole = b.fsub(shifted, code.spread(_MAGIC))
    f = x
    for part in _LN2:
        f = code.fma(whole, code.spread(-part), f)
    value = code.fma(b.fmul(f, f), _polynomial(code, f, _EXP), b.fadd(f, code.spread(1.0)))
    # Times 2^whole: added to the exponent.
    integers = ir.VectorType(I32, code.lanes)
    exponent = b.shl(b.bitcast(shifted, integers), _integers(code, 23))
    return b.bitcast(b.add(b.bitcast(value, integers), exponent), code.vector)


def at_most(code: Code, x: Value, bound: float) -> Value:
    """The smaller of x and a number; NaN, for which the comparison is false, stays."""
    most = code.spread(bound)
    return code.builder.select(code.builder.fcmp_ordered(">", x, most), most, x)


VALUES: dict[str, Callable[[Code, Value], Value]] = {"tanh": tanh, "sigmoid": sigmoid}
"""Activations by their names."""
SLOPES: dict[str, Callable[[Code, Value], Value]] = {}
"""The derivatives of those that are not known from the value."""


def _polynomial(code: Code, x: Value, coefficients: tuple[float, ...]) -> Value:
    value = code.spread(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = code.fma(value, x, code.spread(c))
    return value


def _integers(code: Code, number: int) -> Any:
    return ir.Constant(ir.VectorType(I32, code.lanes), [number] * code.lanes)
