// penstock_predict: one launch for a micro-batch, one block for each state that has ticks in it.
//
// A block walks its state's ticks in order. While there is a next tick its first warp makes that one's features, beside the
// other threads: features do not hear the reservoir, so of a burst only the first tick waits for them. Between the stages
// of a tick lies one barrier:
//
//     features of the next tick      kept             raw                   inputs
//     this tick                      new x            rest of the row       sums of the outputs       forecasts
//
// x, the row and the linear memory lie in shared memory, or, compiled with PENSTOCK_SCRATCH, in global memory that is the
// block's own. A state is read once and written once per launch; nothing is shared between blocks but the done words.

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
static_assert(PENSTOCK_THREADS - WARP_THREADS >= READOUT_CHAINS * RECORDS_HORIZONS_MAX, "each lane of each output needs a thread");
static_assert(FEATURES_FEATURES <= WARP_THREADS && FEATURE_LANES == WARP_THREADS, "one warp makes the features");

// What a block was asked for, checked.
struct BlockWork {
    long long state, model;
    int first, count, cold;
    bool wanted, usable;

    __device__ __forceinline__ BlockWork(const Arguments &arguments, const BlockMemory &block) {
        state = block.own.word(SLOT_STATE);
        model = block.own.word(SLOT_MODEL);
        first = block.own.word(SLOT_FIRST);
        count = block.own.word(SLOT_COUNT);
        cold = block.own.word(SLOT_BLOCK_FLAGS) & LAYOUT_BLOCK_COLD;
        wanted = (int)blockIdx.x < block.blocks && (long long)blockIdx.x < (long long)arguments.items_max;
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
    __device__ __forceinline__ void end(const BlockWork &work, int number) {
        float *state = (float *)arguments.states + work.state * (long long)arguments.state_words;
        double *running = (double *)arguments.running + work.state * (long long)arguments.running_words;
        for (int word = (int)threadIdx.x; word < shape.units_padded; word += PENSTOCK_THREADS)
            state[word] = x_after(number)[word];
        for (int word = (int)threadIdx.x; word < shape.memory_columns; word += PENSTOCK_THREADS)
            state[shape.units_padded + word] = memory[word];
        for (int word = (int)threadIdx.x; word < FEATURES_RUNNING_WORDS; word += PENSTOCK_THREADS)
            running[word] = running_after(number)[word];
    }

    // Reads the next items, a warp each; the one that is the block's own slot is here already.
    __device__ __forceinline__ void fetch(int first, int count) {
        const int lane = (int)threadIdx.x % WARP_THREADS;
        for (int item = (int)threadIdx.x / WARP_THREADS; item < count; item += PENSTOCK_THREADS / WARP_THREADS) {
            Item *fetched = &block.items[item];
            if (first + item != (int)blockIdx.x) {
                fetch_item(arguments, first + item, fetched, lane);
                continue;
            }
            fetched->words[lane] = block.own.words[lane];
            if (lane == 0) fetched->usable = block.own.usable;
        }
    }

    // Walks some items, at most CHUNK_ITEMS; returns how many ticks the state has taken in by then.
    __device__ __forceinline__ int walk(int first, int count, int number) {
        __syncthreads();  // Nobody reads the last chunk any more.
        fetch(first, count);
        __syncthreads();
        for (int item = -1; item < count; ++item) {  // At -1 the first item's features are made, and nothing else.
            const bool usable = item >= 0 && block.items[item].usable;
            const bool wanted = usable && !(block.items[item].word(SLOT_ITEM_FLAGS) & LAYOUT_ITEM_ADVANCE);
            const bool ahead = item + 1 < count && block.items[item + 1].usable;
            const bool makes_features = ahead && threadIdx.x < WARP_THREADS;
            const int next = number + (usable ? 1 : 0);
            threads = ahead ? PENSTOCK_THREADS - WARP_THREADS : PENSTOCK_THREADS;
            thread = (int)threadIdx.x - (PENSTOCK_THREADS - threads);
            if (makes_features)
                features_first(block.items[item + 1], next);
            else if (usable)
                new_x(number);
            __syncthreads();
            if (makes_features)
                features_second(block.items[item + 1], next);
            else if (usable)
                row(number);
            __syncthreads();
            if (makes_features)
                features_third(next);
            else if (wanted)
                sums(number);
            __syncthreads();
            if (!makes_features && item >= 0) answer(block.items[item], first + item, wanted);
            number = next;
        }
        return number;
    }
};

__device__ __forceinline__ void predict_block(const Arguments &arguments, BlockMemory &block, const BlockWork &work,
                                              float *floats) {
    const long long *header = (const long long *)arguments.headers + work.model * (long long)arguments.header_words;
    block.shape.read(header, (int)threadIdx.x, PENSTOCK_THREADS);
    __syncthreads();
    Predictor predictor(arguments, block, work.model, floats);
    const bool fits = predictor.shape.work_words() <= PENSTOCK_WORK_WORDS &&
                      predictor.shape.units_padded + predictor.shape.memory_columns <= (long long)arguments.state_words;
    if (!fits) {
        for (int item = (int)threadIdx.x; item < work.count; item += PENSTOCK_THREADS)
            answer_fault(arguments, work.first + item);
        return;
    }
    predictor.begin(work);
    int number = 0;
    for (int done = 0; done < work.count; done += CHUNK_ITEMS)
        number = predictor.walk(work.first + done, min(CHUNK_ITEMS, work.count - done), number);
    if (number > 0 || work.cold) predictor.end(work, number);
}

extern "C" __global__ void __launch_bounds__(PENSTOCK_THREADS, 1) penstock_predict(PENSTOCK_PARAMETERS) {
    const Arguments arguments = PENSTOCK_GATHERED;
    BlockMemory &block = *(BlockMemory *)PENSTOCK_SHARED;
    if (threadIdx.x < WARP_THREADS && (long long)blockIdx.x < (long long)arguments.items_max)
        fetch_item(arguments, (long long)blockIdx.x, &block.own, (int)threadIdx.x);
    if (threadIdx.x == WARP_THREADS) {
        block.number = load_fresh((const long long *)((const unsigned char *)arguments.work + HEAD_NUMBER));
        block.blocks = load_fresh((const int *)((const unsigned char *)arguments.work + HEAD_BLOCKS));
    }
    __syncthreads();
    const BlockWork asked(arguments, block);
    if (asked.wanted && asked.usable) {
#if PENSTOCK_SCRATCH
        float *floats = (float *)arguments.scratch + (long long)blockIdx.x * (long long)arguments.scratch_words;
#else
        float *floats = (float *)(PENSTOCK_SHARED + PENSTOCK_BLOCK_BYTES);
#endif
        predict_block(arguments, block, asked, floats);
    } else if (asked.wanted) {
        if (threadIdx.x == 0)
            store_system((long long *)arguments.done + LAYOUT_DONE_FAULT, (long long)LAYOUT_FAULT_STATE);
        for (int item = (int)threadIdx.x; item < asked.count; item += PENSTOCK_THREADS)
            answer_fault(arguments, asked.first + item);
    }
    complete_launch(arguments, block.number);
}
