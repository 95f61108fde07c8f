// The dimensions of a block's model, and where its parts lie, read once from the packed header into shared memory:
// registers are what a block has least of.
//
// Each dimension has a macro of its own: a text that begins with `#define SHAPE_INPUTS(header) 16` is compiled for models
// of sixteen inputs, and the compiler then unrolls what runs over them. Without it the header is asked.

#ifndef SHAPE_UNITS
#define SHAPE_UNITS(header) (int)(header)[PACKED_UNITS]
#endif
#ifndef SHAPE_FAN_IN
#define SHAPE_FAN_IN(header) (int)(header)[PACKED_FAN_IN]
#endif
#ifndef SHAPE_INPUTS
#define SHAPE_INPUTS(header) (int)(header)[PACKED_INPUTS]
#endif
#ifndef SHAPE_HORIZONS
#define SHAPE_HORIZONS(header) (int)(header)[PACKED_HORIZONS]
#endif
#ifndef SHAPE_TOPOLOGY
#define SHAPE_TOPOLOGY(header) (int)(header)[PACKED_TOPOLOGY]
#endif
#ifndef SHAPE_TIME_BASE
#define SHAPE_TIME_BASE(header) (int)(header)[PACKED_TIME_BASE]
#endif
#ifndef SHAPE_PRODUCTS
#define SHAPE_PRODUCTS(header) (int)(header)[PACKED_PRODUCTS]
#endif
#ifndef SHAPE_MEMORY_GAINS
#define SHAPE_MEMORY_GAINS(header) (int)(header)[PACKED_MEMORY_GAINS]
#endif
#ifndef SHAPE_MEMORY_LAGS
#define SHAPE_MEMORY_LAGS(header) (int)(header)[PACKED_MEMORY_LAGS]
#endif

__device__ __forceinline__ int padded_to_lanes(int count) { return (count + LANES_LANES - 1) / LANES_LANES * LANES_LANES; }

struct Shape {
    int units, units_padded, fan_in, inputs, horizons, topology, seconds, products, gains, lags, memory_columns, columns;
    int means_offset, scales_offset;                                       // Into constants.
    long long reservoir_offset, leak_offset, gains_offset, readout_offset, calibration_offset;  // Into weights.
    long long group_words;
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
        units = SHAPE_UNITS(header);
        units_padded = padded_to_lanes(units);
        fan_in = SHAPE_FAN_IN(header);
        inputs = SHAPE_INPUTS(header);
        horizons = SHAPE_HORIZONS(header);
        topology = SHAPE_TOPOLOGY(header);
        seconds = SHAPE_TIME_BASE(header) == PACKED_SECONDS;
        products = SHAPE_PRODUCTS(header);
        gains = SHAPE_MEMORY_GAINS(header);
        lags = SHAPE_MEMORY_LAGS(header);
        memory_columns = inputs * (gains + lags);
        columns = units_padded + products + padded_to_lanes(memory_columns + inputs + 1);
        means_offset = (int)header[PACKED_MEANS_OFFSET];
        scales_offset = (int)header[PACKED_SCALES_OFFSET];
        reservoir_offset = header[PACKED_RESERVOIR_OFFSET];
        leak_offset = header[PACKED_LEAK_OFFSET];
        gains_offset = header[PACKED_GAINS_OFFSET];
        readout_offset = header[PACKED_READOUT_OFFSET];
        calibration_offset = header[PACKED_CALIBRATION_OFFSET];
        group_words = header[PACKED_GROUP_WORDS];
    }

    // Float32 words that a block works in: x twice (old and new), the rest of the readout's row, the linear memory.
    __device__ __forceinline__ int work_words() const { return units_padded + columns + memory_columns; }
};
