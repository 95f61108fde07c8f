// The dimensions of a block's model, and where its parts lie, read once from the packed header into shared memory:
// registers are what a block has least of.

__device__ __forceinline__ int padded_to_lanes(int count) { return (count + LANES_LANES - 1) / LANES_LANES * LANES_LANES; }

struct Shape {
    int units, fan_in, inputs, horizons, topology, seconds, products, gains, lags, memory_columns, units_padded, columns;
    long long group_words;
    int means_offset, scales_offset;                                                            // Into constants.
    long long reservoir_offset, leak_offset, gains_offset, readout_offset, calibration_offset;  // Into weights.
    int shifts[PACKED_FAN_IN_MAX], codes[PACKED_INPUTS_MAX], always_moves[RECORDS_HORIZONS_MAX];

    // Reads the header, each of a block's threads a part.
    __device__ __forceinline__ void read(const long long *header, int thread, int threads) {
        for (int which = thread; which < PACKED_FAN_IN_MAX; which += threads)
            shifts[which] = (int)header[PACKED_SHIFTS + which];
        for (int input = thread; input < PACKED_INPUTS_MAX; input += threads)
            codes[input] = (int)header[PACKED_CODES + input];
        for (int horizon = thread; horizon < RECORDS_HORIZONS_MAX; horizon += threads)
            always_moves[horizon] = (int)header[PACKED_ALWAYS_MOVES + horizon];
        if (thread != 0) return;
        units = (int)header[PACKED_UNITS];
        fan_in = (int)header[PACKED_FAN_IN];
        inputs = (int)header[PACKED_INPUTS];
        horizons = (int)header[PACKED_HORIZONS];
        topology = (int)header[PACKED_TOPOLOGY];
        seconds = header[PACKED_TIME_BASE] == PACKED_SECONDS;
        products = (int)header[PACKED_PRODUCTS];
        gains = (int)header[PACKED_MEMORY_GAINS];
        lags = (int)header[PACKED_MEMORY_LAGS];
        memory_columns = inputs * (gains + lags);
        units_padded = padded_to_lanes(units);
        columns = units_padded + products + padded_to_lanes(memory_columns + inputs + 1);
        group_words = header[PACKED_GROUP_WORDS];
        means_offset = (int)header[PACKED_MEANS_OFFSET];
        scales_offset = (int)header[PACKED_SCALES_OFFSET];
        reservoir_offset = header[PACKED_RESERVOIR_OFFSET];
        leak_offset = header[PACKED_LEAK_OFFSET];
        gains_offset = header[PACKED_GAINS_OFFSET];
        readout_offset = header[PACKED_READOUT_OFFSET];
        calibration_offset = header[PACKED_CALIBRATION_OFFSET];
    }

    // Float32 words that a block works in: x twice (old and new), the rest of the readout's row, the linear memory.
    __device__ __forceinline__ int work_words() const { return units_padded + columns + memory_columns; }
};
