"""What NVML says of a real card, where its library is installed."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from penstock_daemon.device.backend import DeviceBackend

pytestmark = pytest.mark.gpu


def test_the_card_tells_who_it_is_and_how_it_fares(cuda: DeviceBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pynvml") is None:
        pytest.skip("needs pynvml, which is not installed here")
    if importlib.util.find_spec("structlog") is None:  # The log plays no part here.
        monkeypatch.setitem(sys.modules, "structlog", SimpleNamespace(get_logger=lambda _name: None))
    from penstock_daemon.device.nvml import NvmlGauges

    gauges = NvmlGauges(cuda.facts.bus_id)
    try:
        assert gauges.identity.name == cuda.facts.name
        assert gauges.identity.uuid
        assert gauges.identity.driver
        reading = gauges.read()
    finally:
        gauges.close()
    assert reading.memory_used_bytes is not None
    assert reading.memory_total_bytes is not None
    assert 0 < reading.memory_used_bytes <= reading.memory_total_bytes
    assert reading.temperature_celsius is None or 0.0 < reading.temperature_celsius < 120.0
    assert reading.power_watts is None or 0.0 < reading.power_watts < 2000.0
