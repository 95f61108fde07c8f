// What a launch asks for and what it answers: the work's slots come in, results and the done words go out.
//
// Nothing that the host wrote is followed before it is checked against the arguments: a state, model slot, item or offset out of
// bounds is answered by FAULT_STATE, in the item's result and in DONE_FAULT, and touches no other memory. Results are
// visible to the host before DONE_NUMBER is: each block fences, then arrives; the last to arrive writes the done words.

#define WARP_THREADS 32
#define SLOT_WORDS (LAYOUT_SLOT_BYTES / 4)
#define TICK_FIRST_WORD (LAYOUT_TICK_IN_SLOT / 4)

// A slot as it was read, the item's tick in its place wherever it was; usable if its offset is within bounds.
struct Item {
    int words[SLOT_WORDS];
    int usable;
    int flags;  // Of its features.
    long long started_ns;

    __device__ __forceinline__ int word(int offset) const { return words[offset / 4]; }
    __device__ __forceinline__ TickWords tick() const {
        TickWords tick;
        tick.words = words + TICK_FIRST_WORD;
        return tick;
    }
};

__device__ __forceinline__ const unsigned char *slot_of(const Arguments &arguments, long long item) {
    return (const unsigned char *)arguments.work + (1 + item) * LAYOUT_SLOT_BYTES;
}

// Reads an item and its tick, by one warp: a slot is one read of 128 bytes, and a tick staged in it costs no other.
__device__ __forceinline__ void fetch_item(const Arguments &arguments, long long item, Item *fetched, int lane) {
    const unsigned char *slot = slot_of(arguments, item);
    int word = load_fresh((const int *)slot + lane);
    const long long offset = load_fresh((const long long *)(slot + SLOT_TICK_OFFSET));
    const bool usable = offset >= 0 && offset <= (long long)arguments.tick_bytes - RECORDS_TICK_BYTES && offset % 4 == 0;
    const unsigned char *tick = (const unsigned char *)arguments.ticks + offset;
    if (usable && lane >= TICK_FIRST_WORD && tick != slot + LAYOUT_TICK_IN_SLOT)
        word = load_fresh((const int *)tick + lane - TICK_FIRST_WORD);
    fetched->words[lane] = word;
    if (lane == 0) fetched->usable = usable;
}

__device__ __forceinline__ unsigned char *result_of(const Arguments &arguments, long long item) {
    return (unsigned char *)arguments.results + item * LAYOUT_SLOT_BYTES;
}

// The mark is the host's before the number or the answer is, which whoever writes those puts a fence before.
__device__ __forceinline__ void answer_fault(const Arguments &arguments, long long item) {
    *(int *)(result_of(arguments, item) + RESULT_FAULT) = LAYOUT_FAULT_STATE;
    store_plain((long long *)arguments.done + LAYOUT_DONE_FAULT, LAYOUT_FAULT_STATE);
}

// Ends a block: all of its threads come here; the last block of the launch says that the launch is complete. A fence waits
// until what was written across the bus has arrived, so there is one, and one more where blocks wait for each other.
__device__ __forceinline__ void complete_launch(const Arguments &arguments, long long number) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (gridDim.x > 1) {
        fence_system();
        int *arrived = (int *)arguments.arrived;
        if (atomicAdd(arrived, 1) != (int)gridDim.x - 1) return;
        *(volatile int *)arrived = 0;  // The next launch begins when this one has ended.
    }
    long long *done = (long long *)arguments.done;
    store_plain(done + LAYOUT_DONE_CLOCK_NS, device_clock_ns());
    fence_system();
    store_plain(done + LAYOUT_DONE_NUMBER, number);
}
