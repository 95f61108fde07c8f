"""The one list of checks over the backends that are everywhere: reference, CPU engine, and the CUDA text on this host."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import pytest

from penstock_kernels import reference
from penstock_kernels.cuda.source import plan_predict
from penstock_kernels.half_weights import round_to_half
from penstock_kernels.packed import COLUMNS_PADDED, MEMORY_COLUMNS, UNITS, pack
from penstock_tuning.bench.gpu_lane import Transfer
from support import backend_checks
from support.backend_sides import Answer, CpuSide, DeviceSide, ReferenceSide, ResidentSide, Side, Stream
from support.host_device import SHARED_BYTES_MAX, SHUFFLED, HostDevice, host_device
from support.tick_stream import tick_stream
from support.tolerance import tolerance_of

NUMPY_SIDES: tuple[Side, ...] = (ReferenceSide(), CpuSide())
WAYS = {
    "in place": {"transfer": Transfer.IN_PLACE},
    "copied": {"transfer": Transfer.COPIED},
    "eager": {"eager": True},
}
ROOM_FOR = tuple(backend_checks.models().values())  # So that one kernel is compiled for all.
PAUSE_NS = 20_000  # Device and host share the processors here.
SHARED = {"room_for": ROOM_FOR, "pause_ns": PAUSE_NS}


@pytest.fixture(scope="module")
def device() -> Iterator[HostDevice]:
    with host_device() as opened:
        yield opened


@pytest.mark.parametrize("side", NUMPY_SIDES, ids=lambda side: side.name)
@pytest.mark.parametrize("check", backend_checks.CHECKS, ids=lambda check: check.__name__[6:])
def test_numpy_and_the_cpu_engine_pass_every_check(check: backend_checks.Check, side: Side) -> None:
    check(side)


@pytest.mark.parametrize("check", backend_checks.CHECKS, ids=lambda check: check.__name__[6:])
def test_the_kernels_on_this_host_pass_every_check(device: HostDevice, check: backend_checks.Check) -> None:
    check(DeviceSide("graph", device, **SHARED))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_device_gives_the_same_bits(device: HostDevice, way: str) -> None:
    side = DeviceSide(way, device, **SHARED, **WAYS[way])
    backend_checks.check_several_models_in_one_launch(side)
    backend_checks.check_does_not_see_its_neighbours(side)
    backend_checks.check_cold_begins_anew(side)


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_resident_kernel_gives_the_same_bits(device: HostDevice, blocks: int) -> None:
    side = ResidentSide(device, pause_ns=PAUSE_NS, blocks_max=blocks)
    backend_checks.check_does_not_see_its_neighbours(side)
    backend_checks.check_cold_begins_anew(side)
    backend_checks.check_advancing_gives_no_forecast_and_the_same_state(side)


def test_half_weights_have_the_bits_of_the_rounded_model(device: HostDevice) -> None:
    backend_checks.check_half_weights(DeviceSide("half", device, half=True, **SHARED), round_to_half)


def test_a_model_gives_the_same_bits_in_the_last_shared_memory_and_past_it() -> None:
    packed = pack(backend_checks.large_model(200))
    sizes = [int(packed.header[word]) for word in (UNITS, COLUMNS_PADDED, MEMORY_COLUMNS)]
    fits = range(SHARED_BYTES_MAX)
    needed = bisect_left(fits, True, key=lambda size: plan_predict(*sizes, size).scratch_words == 0)
    for shared_bytes, spills in ((needed, False), (needed - 1, True)):
        with host_device(shared_bytes_max=shared_bytes, order=SHUFFLED) as small:
            side = DeviceSide("graph", small, pause_ns=PAUSE_NS)
            backend_checks.check_large(side, 200)
            assert (side.scratch_words > 0) == spills


def test_many_states_in_one_launch_keep_their_bits(device: HostDevice) -> None:
    backend_checks.check_many_states(DeviceSide("graph", device, **SHARED), 70)


def test_the_bound_is_no_guess_and_what_is_measured_is_far_below_it() -> None:
    for model in ROOM_FOR:
        stream = Stream(tick_stream(70, 120))
        answer = CpuSide().predict([model], [stream], backend_checks.together([stream]))[0]
        wanted = reference.predictions(model, stream.ticks)
        used = backend_checks.assert_within_tolerance(model, stream, answer, wanted)
        assert 0.0 < used < 0.1
        too_far = np.zeros_like(answer.forecasts)
        too_far[-1, 0, 2] = 1.1 * tolerance_of(model, stream.ticks).probability[0]
        with pytest.raises(AssertionError, match="times the tolerance"):
            backend_checks.assert_within_tolerance(model, stream, Answer(wanted + too_far), wanted)
