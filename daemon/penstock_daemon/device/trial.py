"""Does this device work? One small micro-batch of the very kernel that will serve, held to the CPU's bits.

    compile for the card -> two cold states, eight ticks each, one launch -> every forecast and flag equal, bit for bit

What is compiled here is what the engine compiles again for its graphs, so a backend that keeps what it compiled does so
once. The memory taken for it is small and stays with the backend.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX, TICK_BYTES
from penstock_daemon.device.backend import DeviceBackend, DeviceError, LaunchShape
from penstock_daemon.device.memory import DeviceMemory, DeviceSizes, take_memory
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.cuda import layout
from penstock_kernels.cuda.source import device_state_words, half_precision, plan_predict
from penstock_kernels.drawing import draw
from penstock_kernels.drive import run_predictions
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.half_weights import check_ticks, nearest_half
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Calibration, Horizon, HorizonKind, Model
from penstock_kernels.packed import PackedModel, pack
from penstock_kernels.philox import Stream

_BLOCKS: Final = 2
_TICKS: Final = 8  # Of each block.
_ITEMS: Final = _BLOCKS * _TICKS
_UNITS: Final = 80  # A block of 64 and a group of 16, if the configuration has room for them.
_WAIT_S: Final = 10.0
_SEED, _STREAM = 7, 111


def prove(backend: DeviceBackend, sizes: EngineSizes, *, half: bool) -> None:
    """Run a micro-batch on *backend* and compare it with the CPU.

    Args:
        backend: that is to serve; the calling thread has entered it.
        sizes: of the engine that it is to serve.
        half: whether reservoir weights are kept in half precision.

    Raises:
        DeviceError: it does not compile, complete or agree.
    """
    model = _model(min(_UNITS, sizes.units_max))
    packed = pack(nearest_half(model) if half else model)
    plan = plan_predict(sizes.units_max, sizes.columns, sizes.memory_words, backend.facts.shared_bytes_max, half=half)
    kernel = backend.build(plan.source, plan.options, plan.name, plan.shared_bytes)
    held = take_memory(
        backend,
        DeviceSizes(
            replace(sizes, sources=1, states=_BLOCKS, model_slots=1, online_states=0),
            items_max=_ITEMS,
            state_words=device_state_words(sizes.units_max, sizes.memory_words),
            half=half,
            scratch_words=plan.scratch_words,
        ),
    )
    ticks = check_ticks()[:_ITEMS]
    _fill(backend, held, packed, ticks, half=half)
    backend.launch(kernel, LaunchShape(_BLOCKS, plan.threads, plan.shared_bytes), held.arguments())
    deadline_s = time.monotonic() + _WAIT_S
    while held.buffers.done[layout.DONE_NUMBER] != 1:
        if time.monotonic() > deadline_s:
            raise DeviceError(f"{backend.facts.name} did not complete a first micro-batch within {_WAIT_S:g} s")
        time.sleep(0.0001)
    backend.synchronize()
    _compare(backend, held, packed, ticks)


def _fill(
    backend: DeviceBackend, held: DeviceMemory, packed: PackedModel, ticks: NDArray[np.void], *, half: bool
) -> None:
    """Put the model on the device, and the ticks and two blocks into the work."""
    backend.upload(held.device["headers"], packed.header)
    backend.upload(held.device["weights"], packed.weights)
    backend.upload(held.device["constants"], packed.constants)
    if half:
        backend.upload(held.device["halves"], half_precision(packed.header, packed.weights))
    work = held.buffers.work_words
    head = work[0].view(layout.WORK_HEAD_DTYPE)
    head["number"], head["blocks"] = 1, _BLOCKS
    slots = work[1:].reshape(-1).view(layout.WORK_SLOT_DTYPE)
    for block in range(_BLOCKS):
        slots[block]["state"], slots[block]["model"] = block, 0
        slots[block]["first"], slots[block]["count"] = block * _TICKS, _TICKS
        slots[block]["block_flags"] = layout.BLOCK_COLD
    slots["tick_offset"] = layout.SLOT_BYTES * (1 + np.arange(_ITEMS)) + layout.TICK_IN_SLOT
    bytes_of = work[1:].view(np.uint8).reshape(_ITEMS, layout.SLOT_BYTES)
    bytes_of[:, layout.TICK_IN_SLOT : layout.TICK_IN_SLOT + TICK_BYTES] = ticks.view(np.uint8).reshape(_ITEMS, -1)


def _compare(backend: DeviceBackend, held: DeviceMemory, packed: PackedModel, ticks: NDArray[np.void]) -> None:
    results = held.buffers.result_words.reshape(-1).view(layout.RESULT_DTYPE)
    for block in range(_BLOCKS):
        mine = slice(block * _TICKS, (block + 1) * _TICKS)
        flags = np.zeros(_TICKS, np.int64)
        wanted = run_predictions(packed, ticks[mine], flags=flags)
        if results["fault"][mine].any():
            raise DeviceError(f"{backend.facts.name} refused a first micro-batch; report this")
        forecasts = np.ascontiguousarray(results["forecasts"][mine])
        if not (
            np.array_equal(forecasts.view(np.uint32), np.ascontiguousarray(wanted).view(np.uint32))
            and np.array_equal(results["flags"][mine], flags)
        ):
            off = float(np.nanmax(np.abs(forecasts - wanted)))
            raise DeviceError(
                f"{backend.facts.name} predicts other bits than the CPU, by up to {off:.3g}; report this with the driver's "
                f"version, {backend.facts.driver}"
            )


def _model(units: int) -> Model:
    """Return a drawn model that uses every part of the kernel and fits every configuration that holds *units*."""
    fan_in, products, gains, lags = min(4, units), units // 2 // 16 * 16, (0.2,), 1
    inputs = len(FEATURE_NAMES)
    reservoir = draw("cyclic", _SEED, units=units, inputs=inputs, fan_in=fan_in, time_base="events")
    horizons = tuple(Horizon(f"{2**power}ev", HorizonKind.EVENTS, events=2**power) for power in range(HORIZONS_MAX))
    columns = units + products + inputs * (len(gains) + lags) + inputs + 1
    readout = Stream(_SEED, _STREAM).uniform(OUTPUTS_PER_HORIZON * HORIZONS_MAX * columns, -1.0, 1.0)
    return Model(
        name="trial",
        version="1",
        topology="cyclic",
        seed=_SEED,
        recurrent=reservoir.recurrent,
        connections=reservoir.connections,
        input_weights=reservoir.input_weights,
        bias=reservoir.bias,
        leak=reservoir.leak,
        features=FEATURE_NAMES,
        feature_mean=np.zeros(inputs),
        feature_scale=np.ones(inputs),
        clip=6.0,
        horizons=horizons,
        readout=(readout / np.sqrt(columns)).reshape(-1, columns).astype(np.float32),
        calibration=(Calibration(return_scale=1e-4, deviation=1e-4, moved_slope=1.0),) * HORIZONS_MAX,
        rebuild_ticks=64,
        demonstration=True,
        memory_gains=np.array(gains, np.float32),
        memory_lags=lags,
        products=products,
        notice="Of drawn numbers: never trade on it.",
    )
