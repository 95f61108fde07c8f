"""The CUDA text's own log, exp, logistic, tanh and fading have the bits of the CPU's, value by value."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_daemon.device.backend import LaunchShape
from penstock_kernels import elementary
from penstock_kernels.compiled import compiled
from penstock_kernels.cuda import source
from penstock_kernels.elementary import fading_lanes, tanh_lanes
from penstock_kernels.lanes import LANES, load, store
from support.host_device import host_device

KERNEL = """
extern "C" __global__ void of_doubles(const double *values, double *logs, double *exps, double *shares, long long count) {
    for (long long i = threadIdx.x; i < count; i += blockDim.x) {
        logs[i] = log_step(fabs(values[i]) + 1e-300);
        exps[i] = exp_step(values[i]);
        shares[i] = logistic_step(values[i]);
    }
}
extern "C" __global__ void of_floats(const float *values, float *tanhs, float *fadings, long long count) {
    for (long long i = threadIdx.x; i < count; i += blockDim.x) {
        tanhs[i] = tanh_step(values[i]);
        fadings[i] = fading_step(fabsf(values[i]));
    }
}
"""
COUNT = 80_000


@compiled
def doubles_on_cpu(values, logs, exps, shares):
    for i in range(len(values)):
        logs[i] = elementary.log(abs(values[i]) + 1e-300)
        exps[i] = elementary.exp(values[i])
        shares[i] = elementary.logistic(values[i])


@compiled
def floats_on_cpu(values, tanhs, fadings):
    for i in range(0, len(values), LANES):
        store(tanhs, i, tanh_lanes(load(values, i)))
    for i in range(len(values)):
        values[i] = abs(values[i])
    for i in range(0, len(values), LANES):
        store(fadings, i, fading_lanes(load(values, i)))


@pytest.fixture(scope="module")
def device():
    with host_device() as opened:
        yield opened


def spread_values(dtype):
    noise = np.random.default_rng(7)
    sizes = 2.0 ** noise.uniform(-60, 11, COUNT)
    values = np.where(noise.random(COUNT) < 0.5, noise.uniform(-1.5, 1.5, COUNT), sizes * noise.choice([-1, 1], COUNT))
    values[:6] = [0.0, -0.0, 1e30, -1e30, 1e-40, np.nan]
    return values.astype(dtype)


def on_device(device, name, values, outputs):
    text = source.text_of({}, ("prelude.cuh", "elementary.cuh")) + KERNEL
    kernel = device.build(text, source.OPTIONS, name, 0)
    addresses = [device.take(values.nbytes) for _ in range(1 + outputs)]
    device.upload(addresses[0], values)
    device.launch(kernel, LaunchShape(1, 32, 0), [*addresses, len(values)])
    results = [np.empty_like(values) for _ in range(outputs)]
    for address, result in zip(addresses[1:], results, strict=True):
        device.download(address, result)
    return results


def test_float64_functions_have_the_bits_of_the_cpu(device):
    values = spread_values(np.float64)
    expected = [np.empty_like(values) for _ in range(3)]
    doubles_on_cpu(values, *expected)
    usable = np.isfinite(values)  # The logarithm is for numbers.
    for result, wanted in zip(on_device(device, "of_doubles", values, 3), expected, strict=True):
        np.testing.assert_array_equal(result[usable].view(np.int64), wanted[usable].view(np.int64))


def test_float32_functions_have_the_bits_of_the_cpu(device):
    values = spread_values(np.float32)
    values[5] = 7.0  # Whose NaN it is, IEEE 754 leaves open.
    expected = [np.empty_like(values) for _ in range(2)]
    floats_on_cpu(values.copy(), *expected)
    for result, wanted in zip(on_device(device, "of_floats", values, 2), expected, strict=True):
        np.testing.assert_array_equal(result.view(np.int32), wanted.view(np.int32))
