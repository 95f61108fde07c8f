// penstock_resident: launched once, it stays. A block hears its bell, walks the states that the call names, answers, listens.
//
// Compiled for one model. A tick finds what it needs at hand, as far as there is room for it (resident.py has the sums):
//
//     in registers       weights of the first units, RESIDENT_ROUNDS for each thread
//     in shared memory   the readout; weights of further units; the state that was walked last
//     in the L2 cache    the rest
//
// The first warp listens and does what is float64, features and forecasts; the other threads own units. Each role has a
// loop of its own, so that weights are not held where float64 wants the registers. Between the stages of a tick both meet:
// the barrier counts warps, whatever line each came by.
//
// A state is in memory as well once the block listens again: written after the answer, so nobody waits for it. So work
// for another state, a stop and the watchdog find nothing that only the block has. Who writes a kept state from elsewhere
// has the block forget it first.

#define NO_STATE (-1)
#define POLL_PAUSE_NS 20      // Each look at a bell is a trip across the bus already.
#define LOOKS_PER_WATCH 256   // Looks at the bell for one at the heartbeat.

struct ResidentMemory {
    BlockMemory block;
    long long call, heartbeat, beaten_ns, reason;
    int nothing, unused;  // 0, which the compiler does not know.
};

static_assert(sizeof(ResidentMemory) <= PENSTOCK_BLOCK_BYTES, "the plan must give a block's own memory room enough");
static_assert(UNIT_THREADS >= READOUT_CHAINS * RESIDENT_HORIZONS, "each lane of each output needs a thread");

// The barrier of both roles: one place in the text, since both come by it from different ones.
__device__ __forceinline__ void meet() { __syncthreads(); }

__device__ __forceinline__ bool compiled_for(const long long *header, const Arguments &arguments) {
    constexpr int shifts[] = RESIDENT_SHIFTS;
    bool same = header[PACKED_UNITS] == RESIDENT_UNITS && header[PACKED_FAN_IN] == RESIDENT_FAN_IN &&
                header[PACKED_INPUTS] == RESIDENT_INPUTS && header[PACKED_HORIZONS] == RESIDENT_HORIZONS &&
                header[PACKED_TOPOLOGY] == RESIDENT_TOPOLOGY && header[PACKED_TIME_BASE] == RESIDENT_TIME_BASE &&
                header[PACKED_PRODUCTS] == RESIDENT_PRODUCTS && header[PACKED_MEMORY_GAINS] == RESIDENT_MEMORY_GAINS &&
                header[PACKED_MEMORY_LAGS] == RESIDENT_MEMORY_LAGS && header[PACKED_GROUP_WORDS] == RESIDENT_GROUP_WORDS &&
                header[PACKED_COLUMNS_PADDED] == RESIDENT_COLUMNS &&
                header[PACKED_UNITS_PADDED] + header[PACKED_MEMORY_COLUMNS] <= (long long)arguments.state_words;
    for (int which = 0; which < RESIDENT_FAN_IN && RESIDENT_ROUNDS > 0; ++which)
        same = same && header[PACKED_SHIFTS + which] == shifts[which];
    return same;
}

// A Shape that the compiler knows, for what runs over its dimensions.
__device__ __forceinline__ Shape known_shape() {
    Shape known;
    known.units = RESIDENT_UNITS;
    known.units_padded = padded_to_lanes(RESIDENT_UNITS);
    known.inputs = RESIDENT_INPUTS;
    known.horizons = RESIDENT_HORIZONS;
    known.products = RESIDENT_PRODUCTS;
    known.gains = RESIDENT_MEMORY_GAINS;
    known.lags = RESIDENT_MEMORY_LAGS;
    known.memory_columns = RESIDENT_INPUTS * (RESIDENT_MEMORY_GAINS + RESIDENT_MEMORY_LAGS);
    known.columns = RESIDENT_COLUMNS;
    return known;
}

// What both roles know of the block; each thread has the same.
struct Resident : Predictor {
    ResidentMemory &own;
    int held;             // The state in shared memory, or NO_STATE,
    int number;           // which lies where it does after so many ticks,
    bool unsaved;         // and is newer than memory.
    const float *readout;  // Where it is kept.
    ReservoirWords near;   // Weights that are kept in shared memory, as far as they go.

    __device__ __forceinline__ Resident(const Arguments &all, ResidentMemory &memory, float *floats)
        : Predictor(all, memory.block, (long long)all.resident_model, floats), own(memory), held(NO_STATE), number(0),
          unsaved(false) {
        thread = (int)threadIdx.x < WARP_THREADS ? (int)threadIdx.x : (int)threadIdx.x - WARP_THREADS;  // Of its role.
        float *kept = floats + RESIDENT_WORK_WORDS;
        readout = RESIDENT_READOUT_WORDS > 0 ? kept : weights + shape.readout_offset;
        near = reservoir;
        near.words = (decltype(near.words))(kept + RESIDENT_READOUT_WORDS) - RESIDENT_NEAR_FIRST_WORD;
    }

    // Fetches what stays: by all threads.
    __device__ __forceinline__ void keep() {
        float *kept = even_x + RESIDENT_WORK_WORDS;
        for (int word = (int)threadIdx.x; word < RESIDENT_READOUT_WORDS; word += PENSTOCK_THREADS)
            kept[word] = weights[shape.readout_offset + word];
#if PENSTOCK_HALF
        unsigned short *words = (unsigned short *)(kept + RESIDENT_READOUT_WORDS);
#else
        float *words = kept + RESIDENT_READOUT_WORDS;
#endif
        for (int word = (int)threadIdx.x; word < RESIDENT_NEAR_WORDS; word += PENSTOCK_THREADS)
            words[word] = reservoir.words[RESIDENT_NEAR_FIRST_WORD + word];
    }

    __device__ __forceinline__ void save() {
        if (unsaved) write_state(held, number);
        unsaved = false;
    }

    __device__ __forceinline__ void refuse(const BlockWork &work) {
        if (threadIdx.x == 0)
            store_plain((long long *)arguments.done + LAYOUT_DONE_FAULT, LAYOUT_FAULT_STATE);
        for (int item = (int)threadIdx.x; item < work.count; item += PENSTOCK_THREADS)
            answer_fault(arguments, work.first + item);
    }

    // Walks some items, at most CHUNK_ITEMS, as predict.cu does.
    template <class Role>
    __device__ __forceinline__ void walk(Role &role, int first, int count, int slot) {
        meet();  // Nobody reads the last chunk, or writes what was begun, any more.
        fetch(first, count, slot);
        meet();
        for (int item = -1; item < count; ++item) {
            const bool usable = item >= 0 && block.items[item].usable;
            const bool wanted = usable && !(block.items[item].word(SLOT_ITEM_FLAGS) & LAYOUT_ITEM_ADVANCE);
            const bool ahead = item + 1 < count && block.items[item + 1].usable;
            const int next = number + (usable ? 1 : 0);
            role.first(*this, item, usable, ahead, next);
            meet();
            role.second(*this, item, usable, ahead, next);
            meet();
            role.third(*this, wanted, ahead, next);
            meet();
            role.last(*this, first, item, usable, wanted, ahead, next);
            unsaved = unsaved || usable;
            number = next;
        }
    }

    template <class Role>
    __device__ __forceinline__ void walk_state(Role &role, const BlockWork &work, int slot) {
        if (work.cold || work.state != held) {
            save();  // Each thread overwrites what it has saved itself.
            begin(work);
            held = (int)work.state;
            number = 0;
            unsaved = work.cold;
        }
        for (int done = 0; done < work.count; done += CHUNK_ITEMS)
            walk(role, work.first + done, min(CHUNK_ITEMS, work.count - done), slot);
        number &= 1;
    }

    // Hears calls and answers them until one says to stop.
    template <class Role>
    __device__ __forceinline__ void serve(Role &role) {
        for (;;) {
            role.listen(*this);
            meet();
            const long long call = own.call;
            if (call == LAYOUT_BELL_STOP) return;
            int slot = (int)call, hops = 0;
            if (slot < 0) held = NO_STATE;
            meet();  // Everybody has read the call.
            for (; slot >= 0 && slot < (int)arguments.items_max && hops < (int)arguments.items_max; ++hops) {
                role.fetch_own(*this, slot);
                meet();
                const BlockWork work(arguments, block.own);
                const int after = block.own.word(SLOT_NEXT);
                if (work.usable && work.model == model)
                    walk_state(role, work, slot);
                else
                    refuse(work);
                meet();
                slot = after;
            }
            role.answer(*this, call, slot >= 0);
            save();
        }
    }
};

// The first warp: listens, makes the features of the next tick, and the forecasts of this one.
struct FeatureRole {
    __device__ __forceinline__ void listen(Resident &resident) const {
        if (threadIdx.x != 0) return;
        const Arguments &arguments = resident.arguments;
        ResidentMemory &own = resident.own;
        const long long *bells = (const long long *)arguments.bells;
        const long long *bell = bells + (long long)blockIdx.x * LAYOUT_BELL_WORDS + LAYOUT_BELL_CALL;
        for (int looks = 1;; ++looks) {
            const long long call = load_system(bell);
            if (call != own.call) {
                own.call = call;
                own.reason = LAYOUT_REASON_STOPPED;  // If it is that.
                return;
            }
            if (looks % LOOKS_PER_WATCH == 0) {
                const long long heartbeat = load_system(bells + LAYOUT_BELL_HEARTBEAT), now_ns = device_clock_ns();
                if (heartbeat != own.heartbeat) {
                    own.heartbeat = heartbeat;
                    own.beaten_ns = now_ns;
                } else if (now_ns - own.beaten_ns > (long long)arguments.watchdog_ns) {
                    own.call = LAYOUT_BELL_STOP;
                    own.reason = LAYOUT_REASON_WATCHDOG;
                    return;
                }
            }
            pause_ns(POLL_PAUSE_NS);
        }
    }

    __device__ __forceinline__ void fetch_own(Resident &resident, long long slot) const {
        fetch_item(resident.arguments, slot, &resident.block.own, (int)threadIdx.x);
    }

    __device__ __forceinline__ void first(Resident &resident, int item, bool, bool ahead, int next) const {
        if (ahead) resident.features_first(resident.block.items[item + 1], next);
    }

    __device__ __forceinline__ void second(Resident &resident, int item, bool, bool ahead, int next) const {
        if (ahead) resident.features_second(resident.block.items[item + 1], next);
    }

    __device__ __forceinline__ void third(Resident &resident, bool, bool ahead, int next) const {
        if (ahead) resident.features_third(next);
    }

    __device__ __forceinline__ void last(Resident &resident, int first, int item, bool, bool wanted, bool, int) const {
        if (item >= 0) resident.Predictor::answer(resident.block.items[item], first + item, wanted);
    }

    // What was written before the barrier, and the clock, are the host's before the answer is. One fence: it waits until
    // everything has crossed the bus.
    __device__ __forceinline__ void answer(Resident &resident, long long call, bool lost) const {
        if (threadIdx.x != 0) return;
        long long *answer = (long long *)resident.arguments.answers + (long long)blockIdx.x * LAYOUT_ANSWER_WORDS;
        if (lost)
            store_plain((long long *)resident.arguments.done + LAYOUT_DONE_FAULT, LAYOUT_FAULT_STATE);
        store_plain(answer + LAYOUT_ANSWER_CLOCK_NS, device_clock_ns());
        fence_system();
        store_plain(answer + LAYOUT_ANSWER_CALL, call);
    }
};

// The other threads: units, the row and the sums of the outputs.
struct UnitRole {
    HeldUnits units;

    __device__ __forceinline__ explicit UnitRole(Resident &resident) {
        if (RESIDENT_ROUNDS > 0)
            units.read(resident.shape, resident.reservoir, resident.weights + resident.shape.leak_offset, resident.thread);
    }

    __device__ __forceinline__ void listen(Resident &) const {}

    // While the slot is on its way: what the first warp will read of the model comes nearer. Each look at the bell empties
    // the first-level cache.
    __device__ __forceinline__ void fetch_own(Resident &resident, long long) const {
        const Arguments &arguments = resident.arguments;
        const double *constants = (const double *)arguments.constants + resident.model * (long long)arguments.constant_words;
        const int line = resident.thread * LINE_BYTES;
        if (line < (1 + 2 * RESIDENT_INPUTS) * (int)sizeof(double)) expect_line((const unsigned char *)constants + line);
        if (line < RESIDENT_HORIZONS * PACKED_CALIBRATION_WORDS * (int)sizeof(float))
            expect_line((const unsigned char *)(resident.weights + resident.shape.calibration_offset) + line);
    }

    __device__ __forceinline__ void first(Resident &resident, int item, bool usable, bool, int) {
        if (item < 0)
            hear(resident, resident.number);
        else if (usable)
            new_x(resident, resident.number);
    }

    __device__ __forceinline__ void second(Resident &resident, int, bool usable, bool, int) const {
        if (!usable) return;
        const int number = resident.number;
        row_step(known_shape(), resident.weights + resident.shape.gains_offset, resident.block.inputs[number & 1],
                 resident.x_after(number + 1), resident.memory, resident.rest, thread_of(resident), UNIT_THREADS);
    }

    __device__ __forceinline__ void third(Resident &resident, bool wanted, bool, int) const {
        const int thread = thread_of(resident);
        if (wanted && thread < READOUT_CHAINS * RESIDENT_HORIZONS)
            resident.block.lanes[thread] =
                chain_sum(known_shape(), resident.readout, resident.x_after(resident.number + 1), resident.rest, thread);
    }

    __device__ __forceinline__ void last(Resident &resident, int, int, bool usable, bool, bool ahead, int next) {
        if (usable && ahead) hear(resident, next);
    }

    // Addresses are worked out anew each time: kept from tick to tick, they would take the registers that weights are in.
    static __device__ __forceinline__ int thread_of(const Resident &resident) {
        return resident.thread + load_fresh(&resident.own.nothing);
    }

    __device__ __forceinline__ void hear(Resident &resident, int number) {
        units.hear(resident.x_after(number), thread_of(resident));
    }

    __device__ __forceinline__ void answer(Resident &, long long, bool) const {}

    __device__ __forceinline__ void new_x(Resident &resident, int number) {
        const float *x = resident.x_after(number), *inputs = resident.block.inputs[number & 1];
        float *after = resident.x_after(number + 1);
        const int thread = thread_of(resident);
        units.step(inputs, x, after, thread);
        const Shape &shape = resident.shape;
        const float *leaks = resident.weights + shape.leak_offset;
#pragma unroll 1
        for (int unit = RESIDENT_ROUNDS * UNIT_THREADS + thread; unit < RESIDENT_UNITS_PADDED;
             unit += UNIT_THREADS) {
            float value = 0.0f;
            if (unit < RESIDENT_UNITS) {
                float leak = leaks[unit];
                if (RESIDENT_TIME_BASE == PACKED_SECONDS) leak = fading_step(leak * inputs[RESIDENT_INPUTS]);
                const float before = x[unit];
                ReservoirWords words;
                words.words = unit < RESIDENT_NEAR_END ? resident.near.words : resident.reservoir.words;
                value = before + leak * (tanh_step(activation_of(shape, words, unit, inputs, x)) - before);
            }
            after[unit] = value;
        }
    }
};

extern "C" __global__ void __launch_bounds__(PENSTOCK_THREADS, 1) penstock_resident(PENSTOCK_PARAMETERS) {
    const Arguments arguments = PENSTOCK_GATHERED;
    ResidentMemory &own = *(ResidentMemory *)PENSTOCK_SHARED;
    const long long *header =
        (const long long *)arguments.headers + (long long)arguments.resident_model * (long long)arguments.header_words;
    own.block.shape.read(header, (int)threadIdx.x, PENSTOCK_THREADS);
    if (threadIdx.x == 0) {
        own.call = own.nothing = own.unused = 0;
        own.heartbeat = load_system((const long long *)arguments.bells + LAYOUT_BELL_HEARTBEAT);
        own.beaten_ns = device_clock_ns();
        own.reason = compiled_for(header, arguments) ? 0 : LAYOUT_REASON_MODEL;
    }
    meet();
    if (own.reason == 0) {
        Resident resident(arguments, own, (float *)(PENSTOCK_SHARED + PENSTOCK_BLOCK_BYTES));
        resident.keep();
        meet();
        if (threadIdx.x < WARP_THREADS) {
            FeatureRole role;
            resident.serve(role);
        } else {
            UnitRole role(resident);
            resident.serve(role);
        }
    }
    if (threadIdx.x != 0) return;
    long long *answer = (long long *)arguments.answers + (long long)blockIdx.x * LAYOUT_ANSWER_WORDS;
    store_plain(answer + LAYOUT_ANSWER_REASON, own.reason);
    store_plain(answer + LAYOUT_ANSWER_CLOCK_NS, device_clock_ns());
    fence_system();
    store_plain(answer + LAYOUT_ANSWER_CALL, LAYOUT_ANSWER_ENDED);
}
