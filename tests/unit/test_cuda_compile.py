"""NVRTC compiles without a card, says what is wrong with a source, and what a kernel takes is read off rightly."""

from __future__ import annotations

import pytest

from penstock_kernels.cuda.compile import CompileError, Cubin, Resources, compile_cubin, resources

SOURCE = """
extern "C" __global__ void plain(float* values) { values[threadIdx.x] *= 2.0f; }
extern "C" __global__ void shares(float* values) {
    __shared__ float line[100];
    line[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = line[99 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* values, int stride) {
    float kept[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) kept[i] = values[i * stride + threadIdx.x];
#pragma unroll
    for (int i = 0; i < 64; ++i) values[i * stride + threadIdx.x] = kept[i] * kept[(i * 7 + 3) % 64];
}
"""


def test_what_kernels_take_is_read_off() -> None:
    cubin = compile_cubin(SOURCE, "sm_90")
    taken = resources(cubin)
    assert cubin.code[:4] == b"\x7fELF"
    assert set(taken) == {"plain", "shares", "spills"}
    assert taken["shares"].shared_bytes == 400
    assert taken["plain"] == Resources(taken["plain"].registers, 0, 0, 0)
    assert 0 < taken["plain"].registers < 32
    assert taken["spills"].registers == 32
    assert taken["spills"].spill_bytes >= 2 * taken["spills"].stack_bytes > 0


def test_functions_that_a_kernel_calls_count_with_it() -> None:
    log = """ptxas info    : Compiling entry function 'outer' for 'sm_90'
ptxas info    : Function properties for outer
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for inner
    24 bytes stack frame, 0 bytes spill stores, 3 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 40 bytes cumulative stack size, 12 bytes smem"""
    assert resources(Cubin(b"", log)) == {"outer": Resources(40, 40, 15, 12)}


def test_a_wrong_source_is_refused_with_the_compilers_log() -> None:
    with pytest.raises(CompileError, match=r'(?s)--gpu-architecture=sm_90.*penstock\.cu\(2\).*"absent" is undefined'):
        compile_cubin('extern "C" __global__ void wrong() {\nabsent(); }', "sm_90")


def test_options_reach_the_compiler() -> None:
    source = 'extern "C" __global__ void chosen(float* out) { *out = VALUE; }'
    assert resources(compile_cubin(source, "sm_80", ("-DVALUE=1.0f",)))
    with pytest.raises(CompileError, match='"VALUE" is undefined'):
        compile_cubin(source, "sm_80")


def test_a_log_that_names_no_kernel_is_an_error() -> None:
    with pytest.raises(CompileError, match="named no kernel"):
        resources(compile_cubin("__device__ int unused;", "sm_90"))
