// Units of a resident model whose weights stay in the registers of their thread, and what does not wait for a tick.
//
// Everything is unrolled, and every index known: else the arrays would lie in memory. The sums are reservoir_step's, in
// its order; only the products with x are made earlier.

#define UNIT_THREADS (PENSTOCK_THREADS - WARP_THREADS)
#define HELD_ROUNDS (RESIDENT_ROUNDS > 0 ? RESIDENT_ROUNDS : 1)

// Units whose weights a thread has in registers: thread, thread + UNIT_THREADS ... Of a cyclic reservoir alone.
struct HeldUnits {
    float bias[HELD_ROUNDS], leak[HELD_ROUNDS];
    float inputs[HELD_ROUNDS][RESIDENT_INPUTS], recurrent[HELD_ROUNDS][RESIDENT_HEARD];
    float heard[HELD_ROUNDS][RESIDENT_HEARD];  // Products with x: they wait for no feature.

    // Threads past the last unit do as it does, and write nothing.
    static __device__ __forceinline__ int unit_of(int round, int thread) {
        return min(round * UNIT_THREADS + thread, RESIDENT_UNITS - 1);
    }

    __device__ __forceinline__ void read(const Shape &shape, const ReservoirWords &words, const float *leaks, int thread) {
#pragma unroll
        for (int round = 0; round < RESIDENT_ROUNDS; ++round) {
            const int unit = unit_of(round, thread);
            const UnitWords at(shape, unit);
            bias[round] = words.number(at.first);
            leak[round] = leaks[unit];
#pragma unroll
            for (int input = 0; input < RESIDENT_INPUTS; ++input)
                inputs[round][input] = words.number(at.first + (long long)(1 + input) * at.stride);
#pragma unroll
            for (int which = 0; which < RESIDENT_HEARD; ++which)
                recurrent[round][which] =
                    words.number(at.first + (long long)(1 + RESIDENT_INPUTS + which) * at.stride);
        }
    }

    __device__ __forceinline__ void hear(const float *x, int thread) {
        constexpr int shifts[] = RESIDENT_SHIFTS;
#pragma unroll
        for (int round = 0; round < RESIDENT_ROUNDS; ++round)
#pragma unroll
            for (int which = 0; which < RESIDENT_HEARD; ++which) {
                int unit = unit_of(round, thread) + shifts[which];
                if (unit >= RESIDENT_UNITS) unit -= RESIDENT_UNITS;
                heard[round][which] = recurrent[round][which] * x[unit];
            }
    }

    // The new x, as reservoir_step makes it: bias, inputs first to last, weights first to last.
    __device__ __forceinline__ void step(const float *values, const float *x, float *new_x, int thread) {
        float sum[HELD_ROUNDS];
#pragma unroll
        for (int round = 0; round < RESIDENT_ROUNDS; ++round) sum[round] = bias[round];
#pragma unroll
        for (int input = 0; input < RESIDENT_INPUTS; ++input) {
            const float value = values[input];
#pragma unroll
            for (int round = 0; round < RESIDENT_ROUNDS; ++round) sum[round] = sum[round] + inputs[round][input] * value;
        }
#pragma unroll
        for (int which = 0; which < RESIDENT_HEARD; ++which)
#pragma unroll
            for (int round = 0; round < RESIDENT_ROUNDS; ++round) sum[round] = sum[round] + heard[round][which];
#pragma unroll
        for (int round = 0; round < RESIDENT_ROUNDS; ++round) {
            const int unit = round * UNIT_THREADS + thread;
            const float before = x[unit_of(round, thread)];
            float share = leak[round];
            if (RESIDENT_TIME_BASE == PACKED_SECONDS) share = fading_step(share * values[RESIDENT_INPUTS]);
            const float value = before + share * (tanh_step(sum[round]) - before);
            if (unit < RESIDENT_UNITS)
                new_x[unit] = value;
            else if (unit < RESIDENT_UNITS_PADDED)
                new_x[unit] = 0.0f;
        }
    }
};
