// What the runtime and a compiled kernel text agree on: one block to run, and how it went.
//
// The runtime owns the stacks and the shared memory; the kernel's side runs the block's threads on them and returns.

#ifndef PENSTOCK_SHIM_BLOCK_H
#define PENSTOCK_SHIM_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#define SHIM_ARGUMENTS_MAX 32         // 64-bit words; a kernel that takes fewer leaves the others alone.
#define SHIM_THREADS_MAX 1024         // Of a block, as on a GPU.
#define SHIM_STACK_BYTES (64 * 1024)  // Of a thread, its guard page included.
#define SHIM_PAGE_BYTES 4096
#define SHIM_GUARD_BYTES 4096         // On either side of a block's shared memory.
#define SHIM_GUARD 0xA5
#define SHIM_POISON 0xFF              // Four of them are a float32 NaN, eight a float64 NaN.
#define SHIM_MESSAGE_BYTES 256
#define SHIM_CLOCK_OFFSET_NS 1000000000000000000  // The device's clock is not the host's.

#define SHIM_SUCCESS 0
#define SHIM_INVALID_VALUE 1
#define SHIM_INVALID_CONTEXT 201
#define SHIM_NOT_READY 600
#define SHIM_ILLEGAL_ADDRESS 700
#define SHIM_LAUNCH_FAILED 719

struct ShimBlock {
    void (*kernel)();
    const int64_t* arguments;  // SHIM_ARGUMENTS_MAX of them.
    int32_t blocks;
    int32_t block;
    int32_t threads;
    int32_t order;             // 0 first thread first, 1 last thread first, else the seed of a shuffle.
    uint8_t* shared;           // Guards lie before it and after it.
    int64_t shared_bytes;
    uint8_t* stacks;           // SHIM_THREADS_MAX of them.
    const int32_t* abort;      // Not 0: leave at the next barrier or pause.
    char* message;             // SHIM_MESSAGE_BYTES; written if the block fails.
};

typedef int32_t (*ShimRunBlock)(ShimBlock* block);

#endif
