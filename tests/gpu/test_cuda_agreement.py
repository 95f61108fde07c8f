"""The one list of checks over a real card: graphs with each way across the bus, launches of their own, half weights."""

from __future__ import annotations

import pytest

from penstock_daemon.device.backend import DeviceBackend
from penstock_kernels.half_weights import round_to_half
from penstock_tuning.bench.gpu_lane import Transfer
from support import backend_checks
from support.backend_sides import DeviceSide

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


def test_half_weights_have_the_bits_of_the_rounded_model(cuda: DeviceBackend) -> None:
    backend_checks.check_half_weights(DeviceSide("half", cuda, half=True, room_for=ROOM_FOR), round_to_half)


@pytest.mark.parametrize("units", [1024, 2048, 4096, 8192, 32_768])
def test_large_models_equal_the_cpu_engine_in_shared_memory_and_past_it(cuda: DeviceBackend, units: int) -> None:
    side = DeviceSide("large", cuda)
    backend_checks.check_large(side, units)
    if units <= 4096:
        assert side.scratch_words == 0, "states of up to 4,096 units fit shared memory"


def test_many_states_at_once_equal_the_cpu_engine(cuda: DeviceBackend) -> None:
    backend_checks.check_many_states(DeviceSide("many", cuda, room_for=ROOM_FOR), 1024)
