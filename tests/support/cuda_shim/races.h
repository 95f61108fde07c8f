// Which threads of a block touch the same memory between two barriers: what compute-sanitizer's racecheck asks on a card.
//
// The compiler calls these functions at each access (-fsanitize=thread; its library is not linked). A round of the shim is
// what lies between two barriers, so two threads that touch the same two bytes in one round race if one of them writes,
// whatever the order in which they ran here. Volatile words and atomics are meant to be shared. Global memory counts too.

#ifndef PENSTOCK_SHIM_RACES_H
#define PENSTOCK_SHIM_RACES_H

#include <stdlib.h>

#define SHIM_UNWATCHED __attribute__((no_sanitize("thread")))
#define SHIM_NOTES_BITS 18
#define SHIM_NOTES (1u << SHIM_NOTES_BITS)

// Who touched two bytes in a round; notes of other rounds are empty places.
struct ShimNote {
    uint64_t place, round;
    int writer, reader, other_reader;  // Threads; -1 for none.
};

struct ShimWatch {
    ShimBlock* block;  // 0: nothing is watched.
    ShimNote* notes;
    uint64_t round, noted;
    int thread;
};

__thread ShimWatch shim_watch;

SHIM_UNWATCHED static void shim_watch_round(ShimBlock* block) {
    if (!shim_watch.notes) shim_watch.notes = (ShimNote*)calloc(SHIM_NOTES, sizeof(ShimNote));
    shim_watch.block = block;
    shim_watch.round += 1;
    shim_watch.noted = 0;
}

SHIM_UNWATCHED static void shim_watch_end() { shim_watch.block = 0; }

SHIM_UNWATCHED static ShimNote* shim_note_of(uint64_t place) {
    uint64_t at = (place * 0x9E3779B97F4A7C15ULL) >> (64 - SHIM_NOTES_BITS);
    for (;; at = (at + 1) % SHIM_NOTES) {
        ShimNote* note = &shim_watch.notes[at];
        if (note->round == shim_watch.round && note->place == place) return note;
        if (note->round == shim_watch.round) continue;
        if (++shim_watch.noted > SHIM_NOTES / 2) return 0;
        *note = ShimNote{place, shim_watch.round, -1, -1, -1};
        return note;
    }
}

SHIM_UNWATCHED static void shim_touch(const void* address, uint64_t size_bytes, bool writes) {
    ShimBlock* block = shim_watch.block;
    if (!block || block->message[0]) return;
    const uint64_t first = (uint64_t)address;
    if (first - (uint64_t)block->stacks < (uint64_t)SHIM_THREADS_MAX * SHIM_STACK_BYTES) return;  // A thread's own.
    const int thread = shim_watch.thread;
    for (uint64_t place = first >> 1; place <= (first + size_bytes - 1) >> 1; ++place) {
        ShimNote* note = shim_note_of(place);
        if (!note) {
            snprintf(block->message, SHIM_MESSAGE_BYTES, "block %d: too much memory between two barriers to watch", block->block);
            return;
        }
        int other = note->writer != thread ? note->writer : -1;
        if (writes && other < 0 && note->reader != thread) other = note->reader;
        if (writes && other < 0) other = note->other_reader;
        if (other >= 0) {
            const long long offset = (long long)((place << 1) - (uint64_t)block->shared);
            snprintf(block->message, SHIM_MESSAGE_BYTES, "block %d: threads %d and %d race for %s memory: offset=%lld",
                     block->block, other, thread, offset >= 0 && offset < block->shared_bytes ? "shared" : "global", offset);
            return;
        }
        if (writes) {
            note->writer = thread;
        } else if (note->reader < 0) {
            note->reader = thread;
        } else if (note->reader != thread) {
            note->other_reader = thread;
        }
    }
}

extern "C" {
#define SHIM_WATCHED(bytes)                                                                                    \
    SHIM_UNWATCHED void __tsan_read##bytes(void* address) { shim_touch(address, bytes, false); }               \
    SHIM_UNWATCHED void __tsan_write##bytes(void* address) { shim_touch(address, bytes, true); }               \
    SHIM_UNWATCHED void __tsan_unaligned_read##bytes(void* address) { shim_touch(address, bytes, false); }     \
    SHIM_UNWATCHED void __tsan_unaligned_write##bytes(void* address) { shim_touch(address, bytes, true); }     \
    SHIM_UNWATCHED void __tsan_volatile_read##bytes(void*) {}                                                  \
    SHIM_UNWATCHED void __tsan_volatile_write##bytes(void*) {}                                                 \
    SHIM_UNWATCHED void __tsan_unaligned_volatile_read##bytes(void*) {}                                        \
    SHIM_UNWATCHED void __tsan_unaligned_volatile_write##bytes(void*) {}
SHIM_WATCHED(1)
SHIM_WATCHED(2)
SHIM_WATCHED(4)
SHIM_WATCHED(8)
SHIM_WATCHED(16)
SHIM_UNWATCHED void __tsan_read_range(void* address, unsigned long bytes) { shim_touch(address, bytes, false); }
SHIM_UNWATCHED void __tsan_write_range(void* address, unsigned long bytes) { shim_touch(address, bytes, true); }
SHIM_UNWATCHED void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) { return memcpy(to, from, bytes); }
SHIM_UNWATCHED void* __tsan_memset(void* to, int value, unsigned long bytes) { return memset(to, value, bytes); }
SHIM_UNWATCHED void __tsan_init() {}
SHIM_UNWATCHED void __tsan_func_entry(void*) {}
SHIM_UNWATCHED void __tsan_func_exit() {}
SHIM_UNWATCHED void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
SHIM_UNWATCHED int __tsan_atomic32_load(const volatile int* word, int) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
SHIM_UNWATCHED long __tsan_atomic64_load(const volatile long* word, int) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
SHIM_UNWATCHED void __tsan_atomic64_store(volatile long* word, long value, int) {
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
SHIM_UNWATCHED int __tsan_atomic32_fetch_add(volatile int* word, int value, int) {
    return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
}
}

#endif
