"""Activations of vectors, to about one unit in the last place, and their derivatives.

The polynomials were fitted to float64 values, for the largest relative error to be the smallest.
"""

import math
from collections.abc import Callable

from llvmlite import ir

from gru_jax.scans.engines.llvm.code import I32, Code, Value

Function = Callable[[Code, Value], Value]
"""Writes a function of a vector."""

_EXP = (0.5, 0.16666576266288757, 0.04166637361049652, 0.008363175205886364, 0.0013941113138571382)
"""exp(f) = 1 + f + f^2 (c_0 + c_1 f + ...), |f| <= log(2) / 2, to 7e-9."""
_TANH = (
    -0.333333283662796, 0.13332794606685638, -0.053854092955589294, 0.021010154858231544, -0.0061132763512432575,
)  # fmt: skip
"""tanh(x) = x + x^3 (c_0 + c_1 x^2 + ...), |x| <= SMALL, to 2e-8."""
_ATANH = (0.3333333366834316, 0.19999850733783267, 0.1429628990466478, 0.10851679134281841, 0.11619438749569119)
"""atanh(s) = s + s^3 (c_0 + c_1 s^2 + ...), |s| <= 1/3, to 4e-10."""
_NORMAL = (
    (
        0.398942248003251, 0.034059070772239367, 0.004686236358212502, 0.00017042437088469085, 6.315415356659904e-06,
        2.2283172280901927e-08,
    ),
    (
        1.0, 0.25203947462947685, 0.02875449599037585, 0.0018936731281179954, 7.391079365650432e-05,
        1.181196021646827e-06,
    ),
)  # fmt: skip
"""The normal distribution between 0 and x is x times a quotient of polynomials of x^2, |x| <= FAR, to 1e-8."""
_FAR = 5.6
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
    f, shifted = _reduced(code, x)
    value = code.fma(b.fmul(f, f), _polynomial(code, f, _EXP), b.fadd(f, code.spread(1.0)))
    return b.bitcast(b.add(b.bitcast(value, _integer_vector(code)), _exponent(code, shifted)), code.vector)


def exponential(code: Code, x: Value) -> Value:
    """exp(x), of any size."""
    half = exp(code, code.builder.fmul(x, code.spread(0.5)))
    return code.builder.fmul(half, half)


def expm1(code: Code, x: Value) -> Value:
    """exp(x) - 1 without the error of 1 where that is small, x at most LARGEST."""
    b = code.builder
    f, shifted = _reduced(code, x)
    near = code.fma(b.fmul(f, f), _polynomial(code, f, _EXP), f)
    one = b.bitcast(code.spread(1.0), _integer_vector(code))
    power = b.bitcast(b.add(one, _exponent(code, shifted)), code.vector)
    return code.fma(power, near, b.fsub(power, code.spread(1.0)))


def softplus(code: Code, x: Value) -> Value:
    """log(1 + exp(x)), as the larger of x and 0 and a logarithm of 1 to 2."""
    b = code.builder
    e = exp(code, b.fneg(code.intrinsic("fabs", x)))
    s = b.fdiv(e, b.fadd(e, code.spread(2.0)))
    square = b.fmul(s, s)
    series = code.fma(square, _polynomial(code, square, _ATANH), code.spread(1.0))
    return code.fma(b.fadd(s, s), series, _at_least(code, x, 0.0))


def gelu(code: Code, x: Value) -> Value:
    """x times the normal distribution's part below x."""
    return code.builder.fmul(x, _normal(code, x))


def _gelu_slope(code: Code, x: Value) -> Value:
    density = exp(code, code.builder.fmul(code.builder.fmul(x, x), code.spread(-0.5)))
    density = code.builder.fmul(density, code.spread(1 / math.sqrt(2 * math.pi)))
    return code.fma(x, density, _normal(code, x))


def _normal(code: Code, x: Value) -> Value:
    """The normal distribution's part below x: a half and an odd function, a quotient of polynomials."""
    within = _at_least(code, at_most(code, x, _FAR), -_FAR)
    square = code.builder.fmul(within, within)
    quotient = code.builder.fdiv(_polynomial(code, square, _NORMAL[0]), _polynomial(code, square, _NORMAL[1]))
    return code.fma(within, quotient, code.spread(0.5))


def _silu_slope(code: Code, x: Value) -> Value:
    s = sigmoid(code, x)
    rest = code.builder.fmul(x, code.builder.fsub(code.spread(1.0), s))
    return code.fma(s, rest, s)


def _softsign(code: Code, x: Value) -> Value:
    return code.builder.fdiv(x, code.builder.fadd(code.intrinsic("fabs", x), code.spread(1.0)))


def _softsign_slope(code: Code, x: Value) -> Value:
    root = code.builder.fdiv(code.spread(1.0), code.builder.fadd(code.intrinsic("fabs", x), code.spread(1.0)))
    return code.builder.fmul(root, root)


def _elu(scale: float, alpha: float) -> Function:
    def value(code: Code, x: Value) -> Value:
        below = code.builder.fmul(expm1(code, at_most(code, x, 0.0)), code.spread(scale * alpha))
        return _above(code, x, 0.0, code.builder.fmul(x, code.spread(scale)), below)

    return value


def _elu_slope(scale: float, alpha: float) -> Function:
    def slope(code: Code, x: Value) -> Value:
        below = code.builder.fmul(exp(code, at_most(code, x, 0.0)), code.spread(scale * alpha))
        return _above(code, x, 0.0, code.spread(scale), below)

    return slope


def _clipped(low: float, high: float, scale: float = 1.0, shift: float = 0.0) -> Function:
    """`clip(x + shift, low, high) * scale`."""

    def value(code: Code, x: Value) -> Value:
        moved = code.builder.fadd(x, code.spread(shift)) if shift else x
        inside = _at_least(code, at_most(code, moved, high), low)
        return inside if scale == 1.0 else code.builder.fmul(inside, code.spread(scale))

    return value


def _clipped_slope(low: float, high: float, scale: float = 1.0, shift: float = 0.0, ends: bool = False) -> Function:
    """Its derivative; `ends`: at both ends that of what is between them, else 0, as JAX has it."""

    def slope(code: Code, x: Value) -> Value:
        b, inside = code.builder, "=" if ends else ""
        moved = b.fadd(x, code.spread(shift)) if shift else x
        above = b.fcmp_ordered(">" + inside, moved, code.spread(low))
        below = b.fcmp_ordered("<" + inside, moved, code.spread(high))
        return b.select(b.and_(above, below), code.spread(scale), code.spread(0.0))

    return slope


def _at_least(code: Code, x: Value, bound: float) -> Value:
    least = code.spread(bound)
    return code.builder.select(code.builder.fcmp_ordered("<", x, least), least, x)


def _above(code: Code, x: Value, bound: float, yes: Value, no: Value) -> Value:
    return code.builder.select(code.builder.fcmp_ordered(">", x, code.spread(bound)), yes, no)


def _reduced(code: Code, x: Value) -> tuple[Value, Value]:
    """x held within +-LARGEST as f and a whole multiple of log(2), which stands in the lowest bits of the latter."""
    x = _at_least(code, at_most(code, x, LARGEST), -LARGEST)
    # Adding MAGIC rounds to a whole number.
    shifted = code.fma(x, code.spread(1 / math.log(2)), code.spread(_MAGIC))
    whole, f = code.builder.fsub(shifted, code.spread(_MAGIC)), x
    for part in _LN2:
        f = code.fma(whole, code.spread(-part), f)
    return f, shifted


def _exponent(code: Code, shifted: Value) -> Value:
    """What is added to a number's bits to multiply it by 2 to that power."""
    return code.builder.shl(code.builder.bitcast(shifted, _integer_vector(code)), _integers(code, 23))


def at_most(code: Code, x: Value, bound: float) -> Value:
    """The smaller of x and a number; NaN, for which the comparison is false, stays."""
    most = code.spread(bound)
    return code.builder.select(code.builder.fcmp_ordered(">", x, most), most, x)


def _polynomial(code: Code, x: Value, coefficients: tuple[float, ...]) -> Value:
    value = code.spread(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = code.fma(value, x, code.spread(c))
    return value


def _integer_vector(code: Code) -> ir.Type:
    return ir.VectorType(I32, code.lanes)


def _integers(code: Code, number: int) -> ir.Constant:
    return ir.Constant(_integer_vector(code), [number] * code.lanes)


_SELU = 1.0507009873554805, 1.6732632423543772
_HARD = 0.0, 6.0, 1 / 6, 3.0
VALUES: dict[str, Function] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": _clipped(*_HARD),
    "hard_tanh": _clipped(-1.0, 1.0),
    "linear": lambda code, x: x,
    "relu": lambda code, x: _at_least(code, x, 0.0),
    "relu6": _clipped(0.0, 6.0),
    "elu": _elu(1.0, 1.0),
    "selu": _elu(*_SELU),
    "gelu": gelu,
    "silu": lambda code, x: code.builder.fmul(x, sigmoid(code, x)),
    "softplus": softplus,
    "softsign": _softsign,
    "exponential": exponential,
}
"""The activations of `gru_jax.cells.activations`, by their names."""
SLOPES: dict[str, Function] = {
    "hard_sigmoid": _clipped_slope(*_HARD),
    "hard_tanh": _clipped_slope(-1.0, 1.0, ends=True),
    "relu6": _clipped_slope(0.0, 6.0),
    "elu": _elu_slope(1.0, 1.0),
    "selu": _elu_slope(*_SELU),
    "gelu": _gelu_slope,
    "silu": _silu_slope,
    "softplus": sigmoid,
    "softsign": _softsign_slope,
}
"""The derivatives of those that do not follow from the value."""
SLOPES_AT: dict[str, Function] = {
    "tanh": lambda code, value: code.fma(code.builder.fneg(value), value, code.spread(1.0)),
    "sigmoid": lambda code, value: code.builder.fmul(value, code.builder.fsub(code.spread(1.0), value)),
    "relu": lambda code, value: _above(code, value, 0.0, code.spread(1.0), code.spread(0.0)),
    "linear": lambda code, value: code.spread(1.0),
    "exponential": lambda code, value: value,
}
"""The derivatives of the others, from the value."""
