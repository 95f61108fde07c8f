// The reservoir's step, a thread to a unit: reservoir.py's sums, in its order.
//
//     new x_i = x_i + leak_i (tanh(b_i + W_in u + W x) - x_i)
//
// A unit's sum runs over bias, inputs first to last, weights first to last; dense, in parts of 32. Neighbouring threads read
// neighbouring words, as the packed weights lie. Products may be made in any order; sums keep theirs. x is held once: a
// cyclic shift wraps its index, and units past the last are 0.

#define RESERVOIR_TOGETHER 8  // Products whose weights are on their way from memory at the same time.
#define LINE_BYTES 128
#define EXPECTED_BYTES_MAX (128 * 1024)

// The words from RESERVOIR_OFFSET on: float32, or half that is widened exactly.
struct ReservoirWords {
#if PENSTOCK_HALF
    const unsigned short *words;
    __device__ __forceinline__ float number(long long word) const { return to_float(words[word]); }
    __device__ __forceinline__ int index(long long word) const { return words[word]; }
#else
    const float *words;
    __device__ __forceinline__ float number(long long word) const { return words[word]; }
    __device__ __forceinline__ int index(long long word) const { return __float_as_int(words[word]); }
#endif
};

// Hints that the reservoir's words, and then its leaks, are read next; not of so many that they would push each other out.
__device__ __forceinline__ void expect_reservoir(const Shape &shape, const ReservoirWords &weights, const float *leaks,
                                                 int thread, int threads) {
    const unsigned char *first = (const unsigned char *)weights.words, *of_leaks = (const unsigned char *)leaks;
    const long long size_bytes = (shape.leak_offset - shape.reservoir_offset) * (long long)sizeof(*weights.words);
    if (size_bytes > EXPECTED_BYTES_MAX) return;
    for (long long line = (long long)thread * LINE_BYTES; line < size_bytes; line += (long long)threads * LINE_BYTES)
        expect_line(first + line);
    for (int line = thread * LINE_BYTES; line < shape.units_padded * 4; line += threads * LINE_BYTES)
        expect_line(of_leaks + line);
}

// Where the weights of a unit lie: row r at first + r * stride.
struct UnitWords {
    long long first;
    int stride;

    __device__ __forceinline__ UnitWords(const Shape &shape, int unit) {
        const bool whole = unit < shape.units_padded / PACKED_BLOCK * PACKED_BLOCK;
        stride = whole ? PACKED_BLOCK : LANES_LANES;
        first = (long long)(unit / stride * stride / LANES_LANES) * shape.group_words + unit % stride;
    }
};

__device__ __forceinline__ float input_sum(const Shape &shape, const ReservoirWords &weights, const UnitWords &at,
                                           const float *inputs) {
    float sum = weights.number(at.first);
    for (int first = 0; first < shape.inputs; first += RESERVOIR_TOGETHER) {
        float products[RESERVOIR_TOGETHER];
#pragma unroll
        for (int i = 0; i < RESERVOIR_TOGETHER; ++i)
            if (first + i < shape.inputs)
                products[i] = weights.number(at.first + (long long)(1 + first + i) * at.stride) * inputs[first + i];
#pragma unroll
        for (int i = 0; i < RESERVOIR_TOGETHER; ++i)
            if (first + i < shape.inputs) sum = sum + products[i];
    }
    return sum;
}

// One product of the cyclic or the sparse part.
__device__ __forceinline__ float heard_product(const Shape &shape, const ReservoirWords &weights, const UnitWords &at,
                                               int unit, int which, const float *x) {
    const long long row = 1 + shape.inputs;
    if (shape.topology == PACKED_SPARSE) {
        const long long word = at.first + (row + 2 * which) * at.stride;
        return weights.number(word + at.stride) * x[weights.index(word)];
    }
    int heard = unit + shape.shifts[which];
    if (heard >= shape.units) heard -= shape.units;
    return weights.number(at.first + (row + which) * at.stride) * x[heard];
}

__device__ __forceinline__ float dense_sum(const Shape &shape, const ReservoirWords &weights, const UnitWords &at,
                                           const float *x, float sum) {
    long long word = at.first + (long long)(1 + shape.inputs) * at.stride;
    for (int first = 0; first < shape.units; first += RESERVOIR_DENSE_PART) {
        const int last = min(first + RESERVOIR_DENSE_PART, shape.units);
        float part = 0.0f;
#pragma unroll 8
        for (int heard = first; heard < last; ++heard) {
            part = part + weights.number(word) * x[heard];
            word += at.stride;
        }
        sum = sum + part;
    }
    return sum;
}

__device__ __forceinline__ float activation_of(const Shape &shape, const ReservoirWords &weights, int unit,
                                               const float *inputs, const float *x) {
    const UnitWords at(shape, unit);
    float sum = input_sum(shape, weights, at, inputs);
    if (shape.topology == PACKED_DENSE) return dense_sum(shape, weights, at, x, sum);
    for (int first = 0; first < shape.fan_in; first += RESERVOIR_TOGETHER) {
        float products[RESERVOIR_TOGETHER];
#pragma unroll
        for (int i = 0; i < RESERVOIR_TOGETHER; ++i)
            if (first + i < shape.fan_in) products[i] = heard_product(shape, weights, at, unit, first + i, x);
#pragma unroll
        for (int i = 0; i < RESERVOIR_TOGETHER; ++i)
            if (first + i < shape.fan_in) sum = sum + products[i];
    }
    return sum;
}

// The new x of every unit that this thread owns: unit, unit + threads ... `inputs` ends with the seconds, if by seconds.
__device__ __forceinline__ void reservoir_step(const Shape &shape, const ReservoirWords &weights, const float *leaks,
                                               const float *inputs, const float *x, float *new_x, int thread,
                                               int threads) {
    for (int unit = thread; unit < shape.units_padded; unit += threads) {
        float value = 0.0f;
        if (unit < shape.units) {
            float leak = leaks[unit];
            if (shape.seconds) leak = fading_step(leak * inputs[shape.inputs]);
            const float before = x[unit];
            value = before + leak * (tanh_step(activation_of(shape, weights, unit, inputs, x)) - before);
        }
        new_x[unit] = value;
    }
}
