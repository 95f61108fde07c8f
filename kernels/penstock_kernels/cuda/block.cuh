// What a block works with while it walks the ticks of a state: its memory, what it was asked for, and the stages of a tick.
//
// Which threads do what, and the barriers between the stages, are the kernel's: predict.cu and resident.cu walk with these.
// x, the row and the linear memory lie where the kernel says; x after a tick lies beside x before it, and they change places.

#define CHUNK_ITEMS 8  // Read together; the features' lead ends with a chunk.

struct BlockMemory {
    double running[2][FEATURES_RUNNING_WORDS];
    Moves moves;
    Shape shape;  // Here and not in registers, which are what there is least of.
    long long number;  // Of the launch.
    int blocks;
    Item own;  // The slot that describes the block.
    Item items[CHUNK_ITEMS];
    float inputs[2][MODEL_INPUTS_MAX + 1];
    float lanes[READOUT_CHAINS * RECORDS_HORIZONS_MAX];
};

static_assert(sizeof(BlockMemory) <= PENSTOCK_BLOCK_BYTES, "the plan must give a block's own memory room enough");
static_assert(sizeof(BlockMemory) % 8 == 0, "what follows must be aligned");
static_assert(FEATURES_FEATURES <= WARP_THREADS && FEATURE_LANES == WARP_THREADS, "one warp makes the features");

// What a block was asked for, checked.
struct BlockWork {
    long long state, model;
    int first, count, cold;
    bool usable;

    __device__ __forceinline__ BlockWork(const Arguments &arguments, const Item &own) {
        state = own.word(SLOT_STATE);
        model = own.word(SLOT_MODEL);
        first = own.word(SLOT_FIRST);
        count = own.word(SLOT_COUNT);
        cold = own.word(SLOT_BLOCK_FLAGS) & LAYOUT_BLOCK_COLD;
        const bool known_items =
            first >= 0 && count >= 1 && (long long)first + count <= (long long)arguments.items_max;
        usable = known_items && state >= 0 && state < (long long)arguments.states_count && model >= 0 &&
                 model < (long long)arguments.models_count;
        if (!known_items) count = 0;
    }
};

// Everything of one model and one state that a block walks with.
struct Predictor {
    const Arguments &arguments;
    BlockMemory &block;
    const Shape &shape;
    const float *weights;
    ReservoirWords reservoir;
    long long model;
    float *even_x, *odd_x, *rest, *memory;  // x after an even number of ticks, and after an odd one.
    int thread, threads;  // Of those that do not make features just now.

    __device__ __forceinline__ Predictor(const Arguments &all, BlockMemory &own, long long slot, float *floats)
        : arguments(all), block(own), shape(own.shape), model(slot) {
        weights = (const float *)all.weights + model * (long long)all.weight_words;
#if PENSTOCK_HALF
        reservoir.words = (const unsigned short *)all.halves + model * (long long)all.half_words;
#else
        reservoir.words = weights + shape.reservoir_offset;
#endif
        even_x = floats;
        odd_x = even_x + shape.units_padded;
        rest = odd_x + shape.units_padded;
        memory = odd_x + shape.columns;
    }

    __device__ __forceinline__ float *x_after(int ticks) const { return (ticks & 1) != 0 ? odd_x : even_x; }

    __device__ __forceinline__ double *running_after(int ticks) const { return block.running[ticks & 1]; }

    __device__ __forceinline__ void features_first(Item &item, int number) {
        if (threadIdx.x == 0) item.started_ns = device_clock_ns();
        features_kept(running_after(number), item.tick(), running_after(number + 1), &block.moves, (int)threadIdx.x);
    }

    __device__ __forceinline__ void features_second(Item &item, int number) {
        features_raw(running_after(number), running_after(number + 1), block.moves, (int)threadIdx.x);
        if (threadIdx.x == 0) item.flags = block.moves.flags;
    }

    __device__ __forceinline__ void features_third(int number) {
        const double *constants = (const double *)arguments.constants + model * (long long)arguments.constant_words;
        features_inputs(shape, constants, running_after(number + 1), block.inputs[number & 1], (int)threadIdx.x);
    }

    __device__ __forceinline__ void new_x(int number) {
        reservoir_step(shape, reservoir, weights + shape.leak_offset, block.inputs[number & 1],
                       x_after(number), x_after(number + 1), thread, threads);
    }

    __device__ __forceinline__ void row(int number) {
        row_step(shape, weights + shape.gains_offset, block.inputs[number & 1], x_after(number + 1), memory,
                 rest, thread, threads);
    }

    __device__ __forceinline__ void sums(int number) {
        if (thread < shape.horizons * READOUT_CHAINS)
            block.lanes[thread] = chain_sum(shape, weights + shape.readout_offset,
                                                 x_after(number + 1), rest, thread);
    }

    __device__ __forceinline__ void answer(const Item &item, long long slot, bool wanted) {
        unsigned char *result = result_of(arguments, slot);
        if (!item.usable) {
            if (thread == 0) answer_fault(arguments, slot);
            return;
        }
        if (thread >= RECORDS_HORIZONS_MAX) return;
        float4 forecast = {0.0f, 0.0f, 0.0f, 0.0f};
        if (wanted && thread < shape.horizons) forecast = forecast_of(shape, weights, block.lanes, thread);
        ((float4 *)(result + RESULT_FORECASTS))[thread] = forecast;
        if (thread != 0) return;
        *(int *)(result + RESULT_FLAGS) = item.flags;
        *(int *)(result + RESULT_FAULT) = 0;
        *(long long *)(result + RESULT_STARTED_NS) = item.started_ns;
        *(long long *)(result + RESULT_DONE_NS) = device_clock_ns();
    }

    // Reads the state, or begins one of zeros.
    __device__ __forceinline__ void begin(const BlockWork &work) {
        const float *state = (const float *)arguments.states + work.state * (long long)arguments.state_words;
        const double *running = (const double *)arguments.running + work.state * (long long)arguments.running_words;
        for (int word = (int)threadIdx.x; word < shape.units_padded; word += PENSTOCK_THREADS)
            even_x[word] = work.cold ? 0.0f : state[word];
        for (int word = (int)threadIdx.x; word < shape.memory_columns; word += PENSTOCK_THREADS)
            memory[word] = work.cold ? 0.0f : state[shape.units_padded + word];
        for (int word = (int)threadIdx.x; word < FEATURES_RUNNING_WORDS; word += PENSTOCK_THREADS)
            block.running[0][word] = work.cold ? 0.0 : running[word];
    }

    // Writes the state after so many usable ticks.
    __device__ __forceinline__ void end(const BlockWork &work, int number) { write_state(work.state, number); }

    __device__ __forceinline__ void write_state(long long which, int number) {
        float *state = (float *)arguments.states + which * (long long)arguments.state_words;
        double *running = (double *)arguments.running + which * (long long)arguments.running_words;
        for (int word = (int)threadIdx.x; word < shape.units_padded; word += PENSTOCK_THREADS)
            state[word] = x_after(number)[word];
        for (int word = (int)threadIdx.x; word < shape.memory_columns; word += PENSTOCK_THREADS)
            state[shape.units_padded + word] = memory[word];
        for (int word = (int)threadIdx.x; word < FEATURES_RUNNING_WORDS; word += PENSTOCK_THREADS)
            running[word] = running_after(number)[word];
    }

    // Reads the next items, a warp each; the one that is the block's own slot is here already.
    __device__ __forceinline__ void fetch(int first, int count, int own_slot) {
        const int lane = (int)threadIdx.x % WARP_THREADS;
        for (int item = (int)threadIdx.x / WARP_THREADS; item < count; item += PENSTOCK_THREADS / WARP_THREADS) {
            Item *fetched = &block.items[item];
            if (first + item != own_slot) {
                fetch_item(arguments, first + item, fetched, lane);
                continue;
            }
            fetched->words[lane] = block.own.words[lane];
            if (lane == 0) fetched->usable = block.own.usable;
        }
    }
};
