// The readout's row and sums, as predictor.py, linear_memory.py and readout.py make them.
//
// Of an output, lane l adds the products of columns l, l + 16, l + 32 ... in order: one thread is one lane of one output.
// The sixteen lanes are then added by halves, and one thread calibrates a horizon in float64.

#define READOUT_CHAINS (LANES_LANES * MODEL_OUTPUTS_PER_HORIZON)  // Lanes of all outputs of a horizon.

// What follows x in the row: products of units, linear memory (which advances), inputs, 1, zeros.
__device__ __forceinline__ void row_step(const Shape &shape, const float *gains, const float *inputs, const float *x,
                                         float *memory, float *rest, int thread, int threads) {
    for (int unit = thread; unit < shape.products; unit += threads) rest[unit] = x[unit] * x[unit + shape.products];
    float *seen = rest + shape.products;
    const int averages = shape.gains * shape.inputs;
    for (int word = thread; word < averages; word += threads) {
        float average = memory[word];
        average = average + gains[word / shape.inputs] * (inputs[word % shape.inputs] - average);
        if (fabsf(average) < LINEAR_MEMORY_NOTHING) average = 0.0f;
        memory[word] = average;
        seen[word] = average;
    }
    for (int input = thread; input < shape.inputs; input += threads) {  // One thread moves all lags of an input.
        float newest = inputs[input];
        for (int lag = 0; lag < shape.lags; ++lag) {
            const int word = averages + lag * shape.inputs + input;
            const float older = memory[word];
            seen[word] = older;
            memory[word] = newest;
            newest = older;
        }
        seen[shape.memory_columns + input] = inputs[input];
    }
    float *one = seen + shape.memory_columns + shape.inputs;
    const int left = shape.columns - shape.units_padded - shape.products - shape.memory_columns - shape.inputs;
    for (int word = thread; word < left; word += threads) one[word] = word == 0 ? 1.0f : 0.0f;
}

// One lane's sum of one output: chain = (horizon * 3 + output) * 16 + lane, and words of a horizon lie as read.
__device__ __forceinline__ float chain_sum(const Shape &shape, const float *readout, const float *x, const float *rest,
                                           int chain) {
    const int horizon = chain / READOUT_CHAINS, place = chain % READOUT_CHAINS, lane = chain % LANES_LANES;
    const float *word = readout + (long long)horizon * MODEL_OUTPUTS_PER_HORIZON * shape.columns + place;
    float sum = 0.0f;
#pragma unroll 8
    for (int column = lane; column < shape.units_padded; column += LANES_LANES) {
        sum = sum + *word * x[column];
        word += READOUT_CHAINS;
    }
#pragma unroll 8
    for (int column = lane; column < shape.columns - shape.units_padded; column += LANES_LANES) {
        sum = sum + *word * rest[column];
        word += READOUT_CHAINS;
    }
    return sum;
}

// Copies the readout's words to shared memory, four at a time where they lie so.
__device__ __forceinline__ void keep_words(const float *words, int count, float *kept, int thread, int threads) {
    if (((unsigned long long)words & 15) == 0) {  // Whole lanes, so nothing is left over.
#pragma unroll 4
        for (int four = thread; four < count / 4; four += threads) ((float4 *)kept)[four] = ((const float4 *)words)[four];
    } else {
        for (int word = thread; word < count; word += threads) kept[word] = words[word];
    }
}

// The sum of sixteen lanes by halves, as lanes.total adds them.
__device__ __forceinline__ float lanes_total(const float *lanes) {
    float eight[LANES_LANES / 2];
#pragma unroll
    for (int lane = 0; lane < LANES_LANES / 2; ++lane) eight[lane] = lanes[lane] + lanes[lane + LANES_LANES / 2];
    const float even = (eight[0] + eight[4]) + (eight[2] + eight[6]);
    const float odd = (eight[1] + eight[5]) + (eight[3] + eight[7]);
    return even + odd;
}

// The forecast of one horizon, from the lanes of its three outputs: float32 up to the logistic, which is float64.
__device__ __forceinline__ float4 forecast_of(const Shape &shape, const float *weights, const float *lanes, int horizon) {
    const float *own = lanes + horizon * READOUT_CHAINS;
    const float returns = lanes_total(own);
    const float direction = lanes_total(own + LANES_LANES);
    const float moved = lanes_total(own + 2 * LANES_LANES);
    const float *calibration = weights + shape.calibration_offset + horizon * PACKED_CALIBRATION_WORDS;
    const double up_share = logistic_step(calibration[2] * direction + calibration[3]);
    double moved_share = 1.0;
    if (shape.always_moves[horizon] == 0)
        moved_share = logistic_step(calibration[4] * moved + calibration[5]);
    float4 forecast;
    forecast.x = calibration[0] * returns;
    forecast.y = calibration[1];
    forecast.z = (float)(moved_share * up_share);
    forecast.w = (float)(moved_share - moved_share * up_share);
    return forecast;
}
