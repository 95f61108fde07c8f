// Own log, exp, logistic, tanh and fading: elementary.py's, operation by operation, so that a GPU computes its bits.
//
// Only + - * / and sqrt, each rounded once (compiled without fused multiply-add, but where one is written out to make a
// division's bits faster); asinh's end is in features.cuh.
// Change a line here only together with elementary.py, which states the bounds.

// The natural logarithm of a normal value above 0.
__device__ __forceinline__ double log_step(double value) {
    const long long bits = __double_as_longlong(value);
    const long long exponent = (bits - ELEMENTARY_SQRT_HALF_BITS) >> ELEMENTARY_MANTISSA_BITS;
    const unsigned long long whole = (unsigned long long)exponent << ELEMENTARY_MANTISSA_BITS;
    const double mantissa = __longlong_as_double(bits - (long long)whole);
    const double ratio = (mantissa - 1.0) / (mantissa + 1.0);
    const double square = ratio * ratio;
    double series = 1.0 / 21.0;
    series = series * square + 1.0 / 19.0;
    series = series * square + 1.0 / 17.0;
    series = series * square + 1.0 / 15.0;
    series = series * square + 1.0 / 13.0;
    series = series * square + 1.0 / 11.0;
    series = series * square + 1.0 / 9.0;
    series = series * square + 1.0 / 7.0;
    series = series * square + 1.0 / 5.0;
    series = series * square + 1.0 / 3.0;
    const double correction = 2.0 * ratio * square * series + (double)exponent * ELEMENTARY_LN2_LOW;
    return (double)exponent * ELEMENTARY_LN2_HIGH + (2.0 * ratio + correction);
}

// value / divisor to the last bit, for a divisor of 3 to 13 and its rounded inverse: a first quotient, corrected once by
// what it leaves, which fma gives exactly. No quotient of a float64 by so small a number lies near the middle between
// two float64, so the correction always rounds as a division does, in a third of its time. (Where the value is so small
// that the rest is not exact, exp adds it to 1 and it is lost.)
__device__ __forceinline__ double divided(double value, double divisor, double inverse) {
    const double quotient = value * inverse;
    return fma(fma(-quotient, divisor, value), inverse, quotient);
}

// e to the value, limited to -700 .. 700; NaN counts as -700.
__device__ __forceinline__ double exp_step(double value) {
    double limited = -ELEMENTARY_EXP_BOUND;
    if (value > -ELEMENTARY_EXP_BOUND) limited = ELEMENTARY_EXP_BOUND < value ? ELEMENTARY_EXP_BOUND : value;
    const double scaled = limited * ELEMENTARY_LOG2_E;
    const long long power = (long long)(scaled >= 0.0 ? scaled + 0.5 : scaled - 0.5);
    const double rest = (limited - (double)power * ELEMENTARY_LN2_HIGH) - (double)power * ELEMENTARY_LN2_LOW;
    double series = 1.0 + divided(rest, 13.0, 1.0 / 13.0);
    series = 1.0 + divided(series * rest, 12.0, 1.0 / 12.0);
    series = 1.0 + divided(series * rest, 11.0, 1.0 / 11.0);
    series = 1.0 + divided(series * rest, 10.0, 1.0 / 10.0);
    series = 1.0 + divided(series * rest, 9.0, 1.0 / 9.0);
    series = 1.0 + series * rest * 0.125;
    series = 1.0 + divided(series * rest, 7.0, 1.0 / 7.0);
    series = 1.0 + divided(series * rest, 6.0, 1.0 / 6.0);
    series = 1.0 + divided(series * rest, 5.0, 1.0 / 5.0);
    series = 1.0 + series * rest * 0.25;
    series = 1.0 + divided(series * rest, 3.0, 1.0 / 3.0);
    series = 1.0 + series * rest * 0.5;
    series = 1.0 + series * rest;
    return series * __longlong_as_double(ELEMENTARY_ONE_BITS + (long long)((unsigned long long)power << ELEMENTARY_MANTISSA_BITS));
}

// 1 / (1 + exp(-value)), in 0 .. 1.
__device__ __forceinline__ double logistic_step(double value) { return 1.0 / (1.0 + exp_step(-value)); }

// The value limited to -bound .. bound; NaN stays NaN.
__device__ __forceinline__ float clamp_step(float value, float bound) {
    const float below = value > bound ? bound : value;
    return below < -bound ? -bound : below;
}

// tanh: x P(x^2) / Q(x^2) with x limited to -8 .. 8.
__device__ __forceinline__ float tanh_step(float value) {
    const float x = clamp_step(value, ELEMENTARY_TANH_BOUND);
    const float square = x * x;
    float above = ELEMENTARY_TANH_P_3 * square + ELEMENTARY_TANH_P_2;
    above = above * square + ELEMENTARY_TANH_P_1;
    above = above * square + ELEMENTARY_TANH_P_0;
    float below = ELEMENTARY_TANH_Q_4 * square + ELEMENTARY_TANH_Q_3;
    below = below * square + ELEMENTARY_TANH_Q_2;
    below = below * square + ELEMENTARY_TANH_Q_1;
    below = below * square + ELEMENTARY_TANH_Q_0;
    return (x * above) / below;
}

// 1 - exp(-x), x limited to 0 .. 40: how much of a state fades in x time constants.
__device__ __forceinline__ float fading_step(float value) {
    const float x = clamp_step(value, ELEMENTARY_FADED);
    const int power = (int)(-ELEMENTARY_LOG2_E_FLOAT32 * x - 0.5f);
    const float scaled = (float)power;
    const float rest = (-1.0f * x - scaled * ELEMENTARY_LN2_HIGH_FLOAT32) - scaled * ELEMENTARY_LN2_LOW_FLOAT32;
    float series = ELEMENTARY_INVERSES_5 * rest + ELEMENTARY_INVERSES_4;
    series = series * rest + ELEMENTARY_INVERSES_3;
    series = series * rest + ELEMENTARY_INVERSES_2;
    series = series * rest + ELEMENTARY_INVERSES_1;
    series = series * rest + ELEMENTARY_INVERSES_0;
    const float grown = rest + rest * rest * series;
    const float scale = __int_as_float((power + 127) << 23);
    return (1.0f - scale) - scale * grown;
}
