"""Own log, asinh, exp, logistic, tanh and fading, so that every machine computes the same bits.

A maths library differs from machine to machine in the last bit, and a prediction hash shows the last bit. These use
only + - * / and sqrt, which IEEE 754 fixes, and never a fused multiply-add. The bounds are absolute where not said
otherwise, and tested:

    function     type      argument                    error below
    log          float64   normal numbers above 0      1e-15 relative to max(1, |log x|)
    asinh        float64   |x| < 1e150                 1e-15 relative to max(1, |asinh x|)
    exp          float64   -700 .. 700                 4e-15 relative
    logistic     float64   all but NaN                 4e-15
    tanh_lanes   float32   all; NaN stays NaN          6e-7, and |tanh| <= 1
    fading_lanes float32   0 or more                   3e-7 relative, and 0 <= fading <= 1
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from penstock_kernels.compiled import compiled, inlined
from penstock_kernels.lanes import clamp, power_of_two, splat, truncate

_MANTISSA_BITS: Final = 52
_MANTISSA_MASK: Final = (1 << _MANTISSA_BITS) - 1
_EXPONENT_BIAS: Final = 1023
_ONE_BITS: Final = _EXPONENT_BIAS << _MANTISSA_BITS
_SQRT_HALF_BITS: Final = 0x3FE6A09E667F3BCD

# ln 2 in two parts: the high one has 32 zero bits at its end, so that its product with an exponent is exact.
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_LOG2_E: Final = 1.44269504088896338700e00

_EXP_BOUND: Final = 700.0
_ASINH_LARGE: Final = 1e150  # Its square is still finite.

# tanh x ~ x P(x^2) / Q(x^2) on [-8, 8]: weighted least squares, iterated until the largest error was smallest.
_TANH_BOUND: Final = np.float32(8.0)
_TANH_P: Final = tuple(
    np.float32(value)
    for value in (0.999999362058419, 0.12913640240042418, 0.0029388266537516703, 1.131021346164638e-05)
)
_TANH_Q: Final = tuple(
    np.float32(value)
    for value in (1.0, 0.46246738977269414, 0.02376382263931249, 0.0002370283281926349, 2.423838209391549e-07)
)


# 1 - exp(-x) to float32's precision: ln 2 in two parts, the high one with 15 zero bits at its end.
_FADED: Final = np.float32(40.0)  # From here on 1 - exp(-x) is 1.
_LOG2_E_FLOAT32: Final = np.float32(1.44269504088896338700)
_LN2_HIGH_FLOAT32: Final = np.float32(0.693359375)
_LN2_LOW_FLOAT32: Final = np.float32(-2.12194440054690583e-4)
_INVERSES: Final = tuple(np.float32(1.0 / divisor) for divisor in (2, 6, 24, 120, 720, 5040))  # 1 / n!


@intrinsic
def bits_of(typing_context: Any, value: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return the 64 bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def from_bits(typing_context: Any, bits: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return the float64 whose 64 bits are those of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@compiled
def log(value: float) -> float:
    """Return the natural logarithm of a normal *value* above 0.

    With value = 2^e m, m in [sqrt 1/2, sqrt 2), and s = (m - 1) / (m + 1), |s| < 0.1716:

        log value = e ln 2 + 2 s (1 + s^2/3 + s^4/5 + ... + s^20/21)
    """
    bits = bits_of(value)
    exponent = (bits - _SQRT_HALF_BITS) >> _MANTISSA_BITS
    mantissa = from_bits(bits - (exponent << _MANTISSA_BITS))
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = 1.0 / 21.0
    series = series * square + 1.0 / 19.0
    series = series * square + 1.0 / 17.0
    series = series * square + 1.0 / 15.0
    series = series * square + 1.0 / 13.0
    series = series * square + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    correction = 2.0 * ratio * square * series + exponent * _LN2_LOW
    return exponent * _LN2_HIGH + (2.0 * ratio + correction)


@compiled
def asinh(value: float) -> float:
    """Return asinh *value* = sign(value) log(|value| + sqrt(value^2 + 1)); beyond 1e150 it stays what it is there."""
    magnitude = min(abs(value), _ASINH_LARGE)
    result = log(magnitude + sqrt(magnitude * magnitude + 1.0))
    return -result if value < 0.0 else result


@compiled
def exp(value: float) -> float:
    """Return e to the *value*, which is first limited to -700 .. 700; NaN counts as -700.

    With value = n ln 2 + r, |r| <= ln 2 / 2: 2^n times the Taylor polynomial of degree 13 in r.
    """
    limited = -_EXP_BOUND
    if value > -_EXP_BOUND:  # Not so for NaN.
        limited = min(value, _EXP_BOUND)
    scaled = limited * _LOG2_E
    power = np.int64(scaled + 0.5 if scaled >= 0.0 else scaled - 0.5)
    rest = (limited - power * _LN2_HIGH) - power * _LN2_LOW
    series = 1.0 + rest / 13.0  # Written out, as a division by 8, 4 or 2 is then a product of the same bits.
    series = 1.0 + series * rest / 12.0
    series = 1.0 + series * rest / 11.0
    series = 1.0 + series * rest / 10.0
    series = 1.0 + series * rest / 9.0
    series = 1.0 + series * rest / 8.0
    series = 1.0 + series * rest / 7.0
    series = 1.0 + series * rest / 6.0
    series = 1.0 + series * rest / 5.0
    series = 1.0 + series * rest / 4.0
    series = 1.0 + series * rest / 3.0
    series = 1.0 + series * rest / 2.0
    series = 1.0 + series * rest
    return series * from_bits(_ONE_BITS + (power << _MANTISSA_BITS))


@compiled
def logistic(value: float) -> float:
    """Return 1 / (1 + exp(-value)), in 0 .. 1."""
    return 1.0 / (1.0 + exp(-value))


@inlined
def tanh_lanes(lanes: Any) -> Any:
    """Return tanh of sixteen float32 lanes: x P(x^2) / Q(x^2) with x limited to -8 .. 8."""
    x = clamp(lanes, _TANH_BOUND)
    square = x * x
    above = splat(_TANH_P[3]) * square + splat(_TANH_P[2])
    above = above * square + splat(_TANH_P[1])
    above = above * square + splat(_TANH_P[0])
    below = splat(_TANH_Q[4]) * square + splat(_TANH_Q[3])
    below = below * square + splat(_TANH_Q[2])
    below = below * square + splat(_TANH_Q[1])
    below = below * square + splat(_TANH_Q[0])
    return (x * above) / below


@inlined
def fading_lanes(lanes: Any) -> Any:
    """Return 1 - exp(-x) of sixteen float32 lanes, x limited to 0 .. 40: how much of a state fades in x time constants.

    With -x = n ln 2 + r, |r| <= ln 2 / 2, and e^r - 1 by the Taylor polynomial of degree 7 in r:

        1 - exp(-x) = (1 - 2^n) - 2^n (e^r - 1)           nothing is lost where x is small: n is 0 then
    """
    x = clamp(lanes, _FADED)
    power = truncate(splat(-_LOG2_E_FLOAT32) * x - splat(0.5))
    rest = (splat(-1.0) * x - power * splat(_LN2_HIGH_FLOAT32)) - power * splat(_LN2_LOW_FLOAT32)
    series = splat(_INVERSES[5]) * rest + splat(_INVERSES[4])
    series = series * rest + splat(_INVERSES[3])
    series = series * rest + splat(_INVERSES[2])
    series = series * rest + splat(_INVERSES[1])
    series = series * rest + splat(_INVERSES[0])
    grown = rest + rest * rest * series
    scale = power_of_two(power)
    return (splat(1.0) - scale) - scale * grown
