// The dimensions of a block's model, and where its parts lie, read once from the packed header.
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
    const long long *header;
    int units, units_padded, fan_in, inputs, horizons, topology, seconds, products, gains, lags, memory_columns, columns;
    long long group_words;

    __device__ __forceinline__ explicit Shape(const long long *packed_header)
        : header(packed_header), units(SHAPE_UNITS(packed_header)), units_padded(padded_to_lanes(units)),
          fan_in(SHAPE_FAN_IN(packed_header)), inputs(SHAPE_INPUTS(packed_header)),
          horizons(SHAPE_HORIZONS(packed_header)), topology(SHAPE_TOPOLOGY(packed_header)),
          seconds(SHAPE_TIME_BASE(packed_header) == PACKED_SECONDS), products(SHAPE_PRODUCTS(packed_header)),
          gains(SHAPE_MEMORY_GAINS(packed_header)), lags(SHAPE_MEMORY_LAGS(packed_header)),
          memory_columns(inputs * (gains + lags)),
          columns(units_padded + products + padded_to_lanes(memory_columns + inputs + 1)),
          group_words(packed_header[PACKED_GROUP_WORDS]) {}

    // Float32 words that a block works in: x twice (old and new), the rest of the readout's row, the linear memory.
    __device__ __forceinline__ int work_words() const { return units_padded + columns + memory_columns; }
};
