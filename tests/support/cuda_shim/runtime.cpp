// A stream, its launches and its failures, as the CUDA driver shows them: launch returns at once, work is done in order.
//
//     shim_launch(exec, stream)    as cuGraphLaunch
//     shim_query(stream)           as cuStreamQuery: 0, SHIM_NOT_READY, or the error that the stream stays with
//
// An error is for ever: the launch that met it never completes, and neither does a later one.

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "block.h"

#define SHIM_EXPORT extern "C" __attribute__((visibility("default")))

#define QUEUE_MAX 1024
#define COPIES_MAX 8
#define SPIN_NS 50000  // Before the stream's thread sleeps.
#define SHARED_BYTES_MAX (1 << 20)

enum { INJECT_NONE, INJECT_FAIL_LAUNCH, INJECT_HANG, INJECT_DIE };

struct Copy {
    int64_t destination;
    int64_t source;
    int64_t size_bytes;
};

struct Exec {
    ShimRunBlock run_block;
    void (*kernel)();
    int32_t blocks, threads, concurrent;
    int64_t shared_bytes;
    int64_t arguments[SHIM_ARGUMENTS_MAX];
    int32_t copies_in_count, copies_out_count;
    Copy copies_in[COPIES_MAX], copies_out[COPIES_MAX];
};

struct Stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    const Exec* queue[QUEUE_MAX];
    int64_t submitted, completed, launches;
    int32_t asleep, abort, error, order;
    int32_t inject_kind, inject_code;
    int64_t inject_after, delay_ns;
    char message[SHIM_MESSAGE_BYTES];
};

struct BlockThread {
    pthread_t thread;
    ShimBlock block;
    ShimRunBlock run_block;
    int32_t code;
    char message[SHIM_MESSAGE_BYTES];
};

static __thread int32_t entered;

template <class T>
static T get(const T* word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

template <class T>
static void put(T* word, T value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static int64_t now_ns() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sleep_ns(int64_t span_ns) {
    struct timespec span = {(time_t)(span_ns / 1000000000), (long)(span_ns % 1000000000)};
    nanosleep(&span, 0);
}

static uint8_t* take_pages(size_t size_bytes) {
    void* pages = mmap(0, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) abort();
    return (uint8_t*)pages;
}

static const size_t STACKS_BYTES = (size_t)SHIM_THREADS_MAX * SHIM_STACK_BYTES;
static const size_t SHARED_BYTES = (size_t)SHARED_BYTES_MAX + 2 * SHIM_GUARD_BYTES;

static void take_room(ShimBlock* block, int threads) {
    block->stacks = take_pages(STACKS_BYTES);
    for (int i = 0; i < threads; ++i) mprotect(block->stacks + (size_t)i * SHIM_STACK_BYTES, SHIM_PAGE_BYTES, PROT_NONE);
    block->shared = take_pages(SHARED_BYTES) + SHIM_GUARD_BYTES;
}

static void give_room(ShimBlock* block) {
    munmap(block->stacks, STACKS_BYTES);
    munmap(block->shared - SHIM_GUARD_BYTES, SHARED_BYTES);
}

static void describe(Stream* stream, const Exec* exec, ShimBlock* block, int number) {
    block->kernel = exec->kernel;
    block->arguments = exec->arguments;
    block->blocks = exec->blocks;
    block->block = number;
    block->threads = exec->threads;
    block->order = stream->order;
    block->shared_bytes = exec->shared_bytes;
    block->abort = &stream->abort;
}

static void fail(Stream* stream, int32_t code, const char* message) {
    pthread_mutex_lock(&stream->lock);
    if (stream->error == 0) {
        snprintf(stream->message, SHIM_MESSAGE_BYTES, "%s", message);
        put(&stream->error, code);
    }
    pthread_mutex_unlock(&stream->lock);
    put(&stream->abort, 1);
}

static void* run_block_thread(void* argument) {
    BlockThread* own = (BlockThread*)argument;
    take_room(&own->block, own->block.threads);
    own->code = own->run_block(&own->block);
    give_room(&own->block);
    return 0;
}

// Blocks that wait for the host, or for one another, need to be resident together: one OS thread each.
static int32_t run_together(Stream* stream, const Exec* exec, char* message) {
    BlockThread* threads = (BlockThread*)calloc((size_t)exec->blocks, sizeof(BlockThread));
    int32_t code = 0;
    for (int i = 0; i < exec->blocks; ++i) {
        describe(stream, exec, &threads[i].block, i);
        threads[i].block.message = threads[i].message;
        threads[i].run_block = exec->run_block;
        if (pthread_create(&threads[i].thread, 0, run_block_thread, &threads[i]) != 0) abort();
    }
    for (int i = 0; i < exec->blocks; ++i) {
        pthread_join(threads[i].thread, 0);
        if (threads[i].code == 0 || code != 0) continue;
        code = threads[i].code;
        memcpy(message, threads[i].message, SHIM_MESSAGE_BYTES);
    }
    free(threads);
    return code;
}

static void copy_all(const Copy* copies, int count) {
    for (int i = 0; i < count; ++i) {
        memcpy((void*)copies[i].destination, (const void*)copies[i].source, (size_t)copies[i].size_bytes);
    }
}

static void run_exec(Stream* stream, const Exec* exec, ShimBlock* room) {
    char* message = room->message;
    int32_t code = 0;
    copy_all(exec->copies_in, exec->copies_in_count);
    if (exec->concurrent) {
        code = run_together(stream, exec, message);
    } else {
        for (int i = 0; i < exec->blocks && code == 0; ++i) {
            describe(stream, exec, room, stream->order == 1 ? exec->blocks - 1 - i : i);
            code = exec->run_block(room);
        }
    }
    if (code != 0) fail(stream, code, message);
    if (code == 0) copy_all(exec->copies_out, exec->copies_out_count);
}

// Waits for the next launch; returns 0 when the stream is closing.
static int wait_for_work(Stream* stream) {
    int64_t asleep_after = now_ns() + SPIN_NS;
    while (get(&stream->submitted) == stream->completed) {
        if (get(&stream->abort)) return 0;
        if (now_ns() < asleep_after) {
            sched_yield();
            continue;
        }
        pthread_mutex_lock(&stream->lock);
        stream->asleep = 1;
        while (stream->submitted == stream->completed && !get(&stream->abort)) pthread_cond_wait(&stream->wake, &stream->lock);
        stream->asleep = 0;
        pthread_mutex_unlock(&stream->lock);
    }
    return 1;
}

static int due(Stream* stream, int32_t kind) {
    if (get(&stream->inject_kind) != kind || --stream->inject_after >= 0) return 0;
    put(&stream->inject_kind, (int32_t)INJECT_NONE);
    return 1;
}

static void* run_stream(void* argument) {
    Stream* stream = (Stream*)argument;
    ShimBlock room;
    char message[SHIM_MESSAGE_BYTES] = "";
    memset(&room, 0, sizeof room);
    room.message = message;
    take_room(&room, SHIM_THREADS_MAX);
    while (wait_for_work(stream)) {
        if (get(&stream->delay_ns) > 0) sleep_ns(get(&stream->delay_ns));
        if (due(stream, INJECT_HANG)) {
            while (!get(&stream->abort)) sleep_ns(1000000);
            break;
        }
        if (due(stream, INJECT_DIE)) fail(stream, stream->inject_code, "injected: the kernel died");
        if (get(&stream->abort)) break;
        run_exec(stream, stream->queue[stream->completed % QUEUE_MAX], &room);
        if (get(&stream->error) != 0) break;
        put(&stream->completed, stream->completed + 1);
    }
    give_room(&room);
    return 0;
}

// --- What HostDevice calls --------------------------------------------------------------------------------------------------

SHIM_EXPORT void shim_enter_thread() { entered = 1; }

SHIM_EXPORT void* shim_open(int32_t order) {
    Stream* stream = (Stream*)calloc(1, sizeof(Stream));
    pthread_mutex_init(&stream->lock, 0);
    pthread_cond_init(&stream->wake, 0);
    stream->order = order;
    if (pthread_create(&stream->thread, 0, run_stream, stream) != 0) abort();
    return stream;
}

// Ends what runs at its next barrier or pause; SHIM_NOT_READY if it comes to none within *timeout_ns*, and runs on. The
// stream answers queries with its error afterwards, for ever.
SHIM_EXPORT int shim_close(void* opaque, int64_t timeout_ns) {
    Stream* stream = (Stream*)opaque;
    fail(stream, SHIM_INVALID_CONTEXT, "the device is closed");
    pthread_mutex_lock(&stream->lock);
    pthread_cond_broadcast(&stream->wake);
    pthread_mutex_unlock(&stream->lock);
    struct timespec give_up;
    clock_gettime(CLOCK_REALTIME, &give_up);
    give_up.tv_sec += (time_t)(timeout_ns / 1000000000);
    return pthread_timedjoin_np(stream->thread, 0, &give_up) == 0 ? SHIM_SUCCESS : SHIM_NOT_READY;
}

SHIM_EXPORT void* shim_exec_new(void* run_block, void* kernel, int32_t blocks, int32_t threads, int64_t shared_bytes,
                                int32_t concurrent, const int64_t* arguments, int32_t arguments_count,
                                const int64_t* copies_in, int32_t in_count, const int64_t* copies_out, int32_t out_count) {
    if (blocks < 1 || threads < 1 || threads > SHIM_THREADS_MAX || shared_bytes < 0 || shared_bytes > SHARED_BYTES_MAX ||
        arguments_count > SHIM_ARGUMENTS_MAX || in_count > COPIES_MAX || out_count > COPIES_MAX)
        return 0;
    Exec* exec = (Exec*)calloc(1, sizeof(Exec));
    exec->run_block = (ShimRunBlock)run_block;
    exec->kernel = (void (*)())kernel;
    exec->blocks = blocks;
    exec->threads = threads;
    exec->shared_bytes = shared_bytes;
    exec->concurrent = concurrent;
    memcpy(exec->arguments, arguments, (size_t)arguments_count * sizeof(int64_t));
    exec->copies_in_count = in_count;
    exec->copies_out_count = out_count;
    memcpy(exec->copies_in, copies_in, (size_t)in_count * sizeof(Copy));
    memcpy(exec->copies_out, copies_out, (size_t)out_count * sizeof(Copy));
    return exec;
}

SHIM_EXPORT void shim_exec_free(void* exec) { free(exec); }

SHIM_EXPORT int shim_launch(void* exec, void* opaque) {
    Stream* stream = (Stream*)opaque;
    if (!entered) return SHIM_INVALID_CONTEXT;
    if (get(&stream->error) != 0) return get(&stream->error);
    if (due(stream, INJECT_FAIL_LAUNCH)) return stream->inject_code;
    while (stream->submitted - get(&stream->completed) >= QUEUE_MAX && get(&stream->error) == 0) sched_yield();
    pthread_mutex_lock(&stream->lock);
    stream->queue[stream->submitted % QUEUE_MAX] = (const Exec*)exec;
    put(&stream->submitted, stream->submitted + 1);
    if (stream->asleep) pthread_cond_signal(&stream->wake);
    pthread_mutex_unlock(&stream->lock);
    return SHIM_SUCCESS;
}

SHIM_EXPORT int shim_query(void* opaque) {
    Stream* stream = (Stream*)opaque;
    int64_t submitted = get(&stream->submitted);
    if (!entered) return SHIM_INVALID_CONTEXT;
    if (get(&stream->error) != 0) return get(&stream->error);
    return get(&stream->completed) >= submitted ? SHIM_SUCCESS : SHIM_NOT_READY;
}

// Returns SHIM_NOT_READY when *timeout_ns* has passed.
SHIM_EXPORT int shim_synchronize(void* opaque, int64_t timeout_ns) {
    int64_t give_up = now_ns() + timeout_ns;
    int code;
    while ((code = shim_query(opaque)) == SHIM_NOT_READY && now_ns() < give_up) sched_yield();
    return code;
}

SHIM_EXPORT int64_t shim_launches(void* stream) { return get(&((Stream*)stream)->submitted); }

SHIM_EXPORT const char* shim_message(void* stream) { return ((Stream*)stream)->message; }

SHIM_EXPORT int64_t shim_clock_ns() { return now_ns() + SHIM_CLOCK_OFFSET_NS; }

SHIM_EXPORT void shim_set_order(void* stream, int32_t order) { put(&((Stream*)stream)->order, order); }

SHIM_EXPORT void shim_delay(void* stream, int64_t span_ns) { put(&((Stream*)stream)->delay_ns, span_ns); }

// One failure to come: *after* launches go well first. Nothing else may be set while one is due.
SHIM_EXPORT void shim_inject(void* opaque, int32_t kind, int32_t code, int64_t after) {
    Stream* stream = (Stream*)opaque;
    stream->inject_code = code;
    stream->inject_after = after;
    put(&stream->inject_kind, kind);
}

// The device is lost now, whatever runs.
SHIM_EXPORT void shim_lose(void* opaque, int32_t code) {
    Stream* stream = (Stream*)opaque;
    fail(stream, code, "injected: the device is lost");
    pthread_mutex_lock(&stream->lock);
    pthread_cond_broadcast(&stream->wake);
    pthread_mutex_unlock(&stream->lock);
}
