// CUDA C++ for a host: this header comes before the kernel text, and the two are one translation unit.
//
// Every thread of a block is a fiber of one OS thread, so a block needs no lock and a run repeats to the bit. A barrier
// lets each fiber run until it waits there too; one that some threads miss ends the block with a sentence, never a
// hang. C headers alone, no exceptions, no C++ library: it compiles quickly, wherever a C++ compiler is.

#ifndef PENSTOCK_SHIM_DEVICE_H
#define PENSTOCK_SHIM_DEVICE_H

#define PENSTOCK_HOST_SHIM 1

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "block.h"

#ifdef SHIM_RACES
#include "races.h"
#else
#define SHIM_UNWATCHED
#endif

// --- The switch from one fiber to another: what a callee must keep goes on the old stack, and comes from the new one.

extern "C" void shim_switch(void** leave, void* enter);

#if defined(__x86_64__)
#define SHIM_SAVED_WORDS 6
#define SHIM_RETURN_WORD 6
asm(R"(
.text
.hidden shim_switch
.globl shim_switch
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, .-shim_switch
)");
#elif defined(__aarch64__)
#define SHIM_SAVED_WORDS 20
#define SHIM_RETURN_WORD 11
asm(R"(
.text
.hidden shim_switch
.globl shim_switch
.type shim_switch, %function
shim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size shim_switch, .-shim_switch
)");
#else
#error "the host shim knows x86-64 and Arm alone; add shim_switch for this processor"
#endif

// --- Threads and blocks -------------------------------------------------------------------------------------------------

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;

enum ShimFiberState { SHIM_READY, SHIM_WAITING, SHIM_FINISHED, SHIM_ABORTED };

struct ShimFiber {
    void* stack_pointer;
    int state;
    int line;  // Of the barrier it waits at.
};

struct ShimRunning {
    ShimBlock* block;
    ShimFiber* fibers;
    void* scheduler;
    int current;
};

__thread uint3 shim_thread_index;
__thread uint3 shim_block_index;
__thread uint3 shim_block_size;
__thread uint3 shim_grid_size;
__thread ShimRunning shim_running;

#define threadIdx shim_thread_index
#define blockIdx shim_block_index
#define blockDim shim_block_size
#define gridDim shim_grid_size
#define PENSTOCK_SHARED (shim_running.block->shared)

SHIM_UNWATCHED __attribute__((noinline)) static void shim_leave(int state, int line) {
    ShimFiber* fiber = &shim_running.fibers[shim_running.current];
    fiber->state = state;
    fiber->line = line;
    shim_switch(&fiber->stack_pointer, shim_running.scheduler);
}

SHIM_UNWATCHED __attribute__((noinline)) static void shim_fiber_main() {
    typedef int64_t W;
    typedef void (*Kernel)(W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W);
    const W* a = shim_running.block->arguments;
    ((Kernel)shim_running.block->kernel)(
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
        a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27], a[28], a[29], a[30], a[31]);
    for (;;) shim_leave(SHIM_FINISHED, 0);
}

SHIM_UNWATCHED static void shim_prepare(ShimFiber* fiber, uint8_t* stack, int thread) {
    // Tops of equal stacks would share one set of the cache; a line further for each thread, they don't.
    uint8_t* top = stack + SHIM_STACK_BYTES - (thread % 64) * 64 - 64;
    void** words = (void**)top - SHIM_SAVED_WORDS;
#if defined(__x86_64__)
    words -= 2;  // The return address, and none for fiber_main, which never returns: its frame is aligned by that.
#endif
    memset(words, 0, (size_t)(top - (uint8_t*)words));
    words[SHIM_RETURN_WORD] = (void*)shim_fiber_main;
    fiber->stack_pointer = words;
    fiber->state = SHIM_READY;
    fiber->line = 0;
}

SHIM_UNWATCHED static int shim_fail(ShimBlock* block, int code, const char* what, int line, int count) {
    snprintf(block->message, SHIM_MESSAGE_BYTES, "block %d: %s: line=%d, threads=%d of %d", block->block, what, line,
             count, block->threads);
    return code;
}

// One round: each fiber runs until it waits, ends or is called off. Returns -1 while there is another round.
SHIM_UNWATCHED static int shim_round(ShimBlock* block, int* order, unsigned long long* seed) {
    int waiting = 0, finished = 0, line = 0, lines = 1;
    for (int i = block->threads - 1; block->order > 1 && i > 0; --i) {
        *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
        int j = (int)((*seed >> 33) % (unsigned long long)(i + 1));
        int kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
#ifdef SHIM_RACES
    shim_watch_round(block);
#endif
    for (int i = 0; i < block->threads; ++i) {
        shim_running.current = order[i];
        shim_thread_index = uint3{(unsigned)order[i], 0, 0};
#ifdef SHIM_RACES
        shim_watch.thread = order[i];
#endif
        ShimFiber* fiber = &shim_running.fibers[order[i]];
        if (fiber->state != SHIM_FINISHED) shim_switch(&shim_running.scheduler, fiber->stack_pointer);
        if (fiber->state == SHIM_ABORTED) return shim_fail(block, SHIM_LAUNCH_FAILED, "called off", 0, 1);
        if (fiber->state == SHIM_FINISHED) {
            ++finished;
        } else {
            lines += waiting > 0 && fiber->line != line;
            line = fiber->line;
            ++waiting;
        }
    }
    if (block->message[0]) return SHIM_LAUNCH_FAILED;  // Who watches for races has said what it saw.
    if (waiting > 0 && finished > 0)
        return shim_fail(block, SHIM_LAUNCH_FAILED, "a barrier that not all threads reach", line, waiting);
    if (lines > 1)
        return shim_fail(block, SHIM_LAUNCH_FAILED, "threads wait at different barriers, one of them here", line, waiting);
    return waiting > 0 ? -1 : SHIM_SUCCESS;
}

extern "C" SHIM_UNWATCHED __attribute__((visibility("default"))) int32_t shim_run_block(ShimBlock* block) {
    ShimFiber fibers[SHIM_THREADS_MAX];
    int order[SHIM_THREADS_MAX];
    unsigned long long seed = (unsigned long long)block->order * 977 + (unsigned long long)block->block;
    memset(block->shared - SHIM_GUARD_BYTES, SHIM_GUARD, SHIM_GUARD_BYTES);
    memset(block->shared, SHIM_POISON, (size_t)block->shared_bytes);
    memset(block->shared + block->shared_bytes, SHIM_GUARD, SHIM_GUARD_BYTES);
    for (int thread = 0; thread < block->threads; ++thread) {
        shim_prepare(&fibers[thread], block->stacks + (size_t)thread * SHIM_STACK_BYTES, thread);
        order[thread] = block->order == 1 ? block->threads - 1 - thread : thread;
    }
    shim_running = ShimRunning{block, fibers, 0, 0};
    shim_block_index = uint3{(unsigned)block->block, 0, 0};
    shim_block_size = uint3{(unsigned)block->threads, 1, 1};
    shim_grid_size = uint3{(unsigned)block->blocks, 1, 1};
    int code;
    do {
        code = shim_round(block, order, &seed);
    } while (code < 0);
#ifdef SHIM_RACES
    shim_watch_end();
#endif
    for (int64_t i = 0; code == SHIM_SUCCESS && i < SHIM_GUARD_BYTES; ++i) {
        if (block->shared[block->shared_bytes + i] == SHIM_GUARD && block->shared[-1 - i] == SHIM_GUARD) continue;
        snprintf(block->message, SHIM_MESSAGE_BYTES, "block %d: wrote outside its shared memory: bytes=%lld, off by %lld",
                 block->block, (long long)block->shared_bytes, (long long)i + 1);
        code = SHIM_ILLEGAL_ADDRESS;
    }
    return code;
}

// --- The words of CUDA C++ ------------------------------------------------------------------------------------------------

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

static inline void __syncthreads(int line = __builtin_LINE()) {
    shim_leave(__atomic_load_n(shim_running.block->abort, __ATOMIC_RELAXED) ? SHIM_ABORTED : SHIM_WAITING, line);
}

static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class T>
static inline T __ldg(const T* address) {
    return *address;
}

template <class T>
static inline T atomicAdd(T* address, T value) {
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

template <class T>
static inline T atomicOr(T* address, T value) {
    return __atomic_fetch_or(address, value, __ATOMIC_SEQ_CST);
}

template <class T>
static inline T atomicExch(T* address, T value) {
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);
}

template <class T>
static inline T atomicCAS(T* address, T expected, T value) {
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}

template <class To, class From>
static inline To shim_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "one size");
    To bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline int __float_as_int(float value) { return shim_bits<int>(value); }
static inline unsigned __float_as_uint(float value) { return shim_bits<unsigned>(value); }
static inline float __int_as_float(int value) { return shim_bits<float>(value); }
static inline float __uint_as_float(unsigned value) { return shim_bits<float>(value); }
static inline long long __double_as_longlong(double value) { return shim_bits<long long>(value); }
static inline double __longlong_as_double(long long value) { return shim_bits<double>(value); }

struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(16) longlong2 {
    long long x, y;
};

template <class T>
static inline T min(T a, T b) {
    return b < a ? b : a;
}

template <class T>
static inline T max(T a, T b) {
    return a < b ? b : a;
}

// --- What the prelude of the kernel text gives on a GPU, for a host ------------------------------------------------------

static inline long long device_clock_ns() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec + SHIM_CLOCK_OFFSET_NS;
}

template <class T>
static inline T load_system(const T* address) {
    return __atomic_load_n((const T*)address, __ATOMIC_ACQUIRE);
}

template <class T, class V>
static inline void store_system(T* address, V value) {
    __atomic_store_n(address, (T)value, __ATOMIC_RELEASE);
}

static inline void fence_system() { __threadfence_system(); }

static inline void pause_ns(unsigned ns) {
    if (__atomic_load_n(shim_running.block->abort, __ATOMIC_RELAXED)) shim_leave(SHIM_ABORTED, 0);
    if (ns < 20000) {
        sched_yield();
        return;
    }
    struct timespec span = {0, (long)ns};
    nanosleep(&span, 0);
}

// Widens IEEE half bits exactly.
static inline float to_float(unsigned short bits) {
    unsigned sign = (unsigned)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 0x3FF;
    if (exponent == 31) return __uint_as_float(sign | 0x7F800000u | (fraction << 13));
    if (exponent != 0) return __uint_as_float(sign | ((exponent + 112) << 23) | (fraction << 13));
    float value = (float)fraction * 5.9604644775390625e-08f;  // A multiple of 2^-24.
    return sign ? -value : value;
}

#endif
