// penstock_predict: one launch for a micro-batch, one block for each state that has ticks in it.
//
// A block walks its state's ticks in order. While there is a next tick its first warp makes that one's features, beside the
// other threads: features do not hear the reservoir, so of a burst only the first tick waits for them. Between the stages
// of a tick lies one barrier:
//
//     features of the next tick      kept             raw                   inputs
//     this tick                      new x            rest of the row       sums of the outputs       forecasts
//
// Beside the first tick's features the other threads fetch what comes after them: the readout's weights to shared memory,
// where it has room for them. x, the row and the linear memory lie in shared memory, or, compiled with PENSTOCK_SCRATCH, in
// global memory that is the block's own. A state is read once and written once per launch; nothing is shared between
// blocks but the done words.

static_assert(PENSTOCK_THREADS - WARP_THREADS >= READOUT_CHAINS * RECORDS_HORIZONS_MAX, "an output's lane needs a thread");

struct Walk : Predictor {
    using Predictor::Predictor;

    __device__ __forceinline__ int readout_words() const {
        return shape.horizons * MODEL_OUTPUTS_PER_HORIZON * shape.columns;
    }

    // Beside the floats of the work, in shared memory.
    __device__ __forceinline__ float *kept_readout() const { return even_x + PENSTOCK_WORK_WORDS; }

    // While the first item's features are made: what the steps behind them will read comes nearer.
    __device__ __forceinline__ void prepare() {
        if (readout_words() <= PENSTOCK_READOUT_WORDS)
            keep_words(weights + shape.readout_offset, readout_words(), kept_readout(), thread, threads);
        expect_reservoir(shape, reservoir, weights + shape.leak_offset, thread, threads);
    }

    __device__ __forceinline__ void sums(int number) {
        if (thread >= shape.horizons * READOUT_CHAINS) return;
        const float *x = x_after(number + 1);
        if (readout_words() <= PENSTOCK_READOUT_WORDS)
            block.lanes[thread] = chain_sum(shape, kept_readout(), x, rest, thread);
        else
            block.lanes[thread] = chain_sum(shape, weights + shape.readout_offset, x, rest, thread);
    }

    // Walks some items, at most CHUNK_ITEMS; returns how many ticks the state has taken in by then.
    __device__ __forceinline__ int walk(int first, int count, int number, bool begins) {
        __syncthreads();  // Nobody reads the last chunk any more.
        fetch(first, count, (int)blockIdx.x);
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
            else if (item < 0 && begins)
                prepare();
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
    Walk predictor(arguments, block, work.model, floats);
    const bool fits = predictor.shape.work_words() <= PENSTOCK_WORK_WORDS &&
                      predictor.shape.units_padded + predictor.shape.memory_columns <= (long long)arguments.state_words;
    if (!fits) {
#pragma unroll 1
        for (int item = (int)threadIdx.x; item < work.count; item += PENSTOCK_THREADS)
            answer_fault(arguments, work.first + item);
        return;
    }
    predictor.begin(work);
    int number = 0;
    for (int done = 0; done < work.count; done += CHUNK_ITEMS)
        number = predictor.walk(work.first + done, min(CHUNK_ITEMS, work.count - done), number, done == 0);
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
    const BlockWork asked(arguments, block.own);
    const bool wanted = (int)blockIdx.x < block.blocks && (long long)blockIdx.x < (long long)arguments.items_max;
    if (wanted && asked.usable) {
#if PENSTOCK_SCRATCH
        float *floats = (float *)arguments.scratch + (long long)blockIdx.x * (long long)arguments.scratch_words;
#else
        float *floats = (float *)(PENSTOCK_SHARED + PENSTOCK_BLOCK_BYTES);
#endif
        predict_block(arguments, block, asked, floats);
    } else if (wanted) {
        if (threadIdx.x == 0)
            store_plain((long long *)arguments.done + LAYOUT_DONE_FAULT, LAYOUT_FAULT_STATE);
#pragma unroll 1
        for (int item = (int)threadIdx.x; item < asked.count; item += PENSTOCK_THREADS)
            answer_fault(arguments, asked.first + item);
    }
    complete_launch(arguments, block.number);
}
