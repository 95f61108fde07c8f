"""The one list of checks over a real card: graphs with each way across the bus, launches of their own, half weights."""

from __future__ import annotations

import pytest

from penstock_daemon.device.backend import DeviceBackend
from penstock_kernels.half_weights import round_to_half
from penstock_tuning.bench.gpu_lane import Transfer
from support import backend_checks
from support.backend_sides import DeviceSide, ResidentSide

pytestmark = pytest.mark.gpu

ROOM_FOR = tuple(backend_checks.models().values())  # So that one kernel is compiled for all.
SIDES = {
    "graph, staged": {},
    "graph, in place": {"transfer": Transfer.IN_PLACE},
    "graph, copied": {"transfer": Transfer.COPIED},
    "eager": {"eager": True},
}


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("check", backend_checks.CHECKS, ids=lambda check: check.__name__[6:])
def test_card_passes_every_check(cuda: DeviceBackend, check: backend_checks.Check, name: str) -> None:
    check(DeviceSide(name, cuda, room_for=ROOM_FOR, **SIDES[name]))


@pytest.mark.parametrize("check", backend_checks.OF_ONE_MODEL, ids=lambda check: check.__name__[6:])
def test_resident_kernel_passes_every_check_of_one_model(cuda: DeviceBackend, check: backend_checks.Check) -> None:
    check(ResidentSide(cuda))


def test_resident_blocks_that_have_several_states_each_keep_them_apart(cuda: DeviceBackend) -> None:
    side = ResidentSide(cuda, blocks_max=2)
    backend_checks.check_does_not_see_its_neighbours(side)
    backend_checks.check_cold_begins_anew(side)


@pytest.mark.parametrize("units", [512, 1024, 2048, 4096])
def test_large_models_that_stay_resident_equal_the_cpu_engine(cuda: DeviceBackend, units: int) -> None:
    backend_checks.check_large(ResidentSide(cuda), units)


def test_half_weights_have_the_bits_of_the_rounded_model(cuda: DeviceBackend) -> None:
    backend_checks.check_half_weights(DeviceSide("half", cuda, half=True, room_for=ROOM_FOR), round_to_half)
    backend_checks.check_half_weights(ResidentSide(cuda, half=True), round_to_half)


@pytest.mark.parametrize("units", [1024, 2048, 4096, 8192, 32_768])
def test_large_models_equal_the_cpu_engine_in_shared_memory_and_past_it(cuda: DeviceBackend, units: int) -> None:
    side = DeviceSide("large", cuda)
    backend_checks.check_large(side, units)
    if units <= 4096:
        assert side.scratch_words == 0, "states of up to 4,096 units fit shared memory"


def test_many_states_at_once_equal_the_cpu_engine(cuda: DeviceBackend) -> None:
    backend_checks.check_many_states(DeviceSide("many", cuda, room_for=ROOM_FOR), 1024)
