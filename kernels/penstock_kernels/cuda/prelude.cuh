// What the kernels ask of the machine beyond C++, in one place: shared memory, clock, and words seen by the whole system.
//
// On a GPU these few are PTX. A host that compiles the same text (the tests) defines them before it: everything below this
// file is plain C++ with __syncthreads and atomicAdd, so it means the same on both. No file above it, no host header.
//
//     load_system     acquire: what the host wrote before the word is seen after it
//     store_system    release: whoever sees the word sees what was written before it

#ifdef __CUDACC__

extern __shared__ double2 penstock_shared_words[];
#define PENSTOCK_SHARED ((unsigned char *)penstock_shared_words)

__device__ __forceinline__ long long device_clock_ns() {
    long long now_ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now_ns) : : "memory");
    return now_ns;
}

__device__ __forceinline__ long long load_system(const long long *word) {
    long long value;
    asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

__device__ __forceinline__ void store_system(long long *word, long long value) {
    asm volatile("st.release.sys.u64 [%0], %1;" : : "l"(word), "l"(value) : "memory");
}

// What was read and written before it, by the threads that a barrier has joined to this one too, is so for the whole
// system before anything after it. __threadfence_system() would also order stores before later loads, and takes longer.
__device__ __forceinline__ void fence_system() { asm volatile("fence.acq_rel.sys;" : : : "memory"); }

__device__ __forceinline__ void pause_ns(unsigned int duration_ns) { __nanosleep(duration_ns); }

__device__ __forceinline__ float to_float(unsigned short half_bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half_bits));
    return value;
}

// A hint that a line of 128 bytes will be read.
__device__ __forceinline__ void expect_line(const void *line) { asm volatile("prefetch.global.L1 [%0];" : : "l"(line)); }

#else

static inline void expect_line(const void *) {}

#endif  // __CUDACC__

// Words that the host writes between launches, or while a kernel runs: never from a cache of this multiprocessor.
__device__ __forceinline__ int load_fresh(const int *word) { return *(const volatile int *)word; }

__device__ __forceinline__ long long load_fresh(const long long *word) { return *(const volatile long long *)word; }

// A word that the host reads once it has seen a later one: the fence that makes it wait comes before that.
__device__ __forceinline__ void store_plain(long long *word, long long value) { *(volatile long long *)word = value; }
