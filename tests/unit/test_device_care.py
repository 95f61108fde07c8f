"""A device while it serves: what the log says of it, what the metrics show, and what becomes of it when it fails."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from penstock_daemon.config_fields import EngineConfig
from penstock_daemon.device import memory
from penstock_daemon.device.care import DeviceCare
from penstock_daemon.device.device import Device, DeviceSettings
from penstock_daemon.device.memory import DeviceFault
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.device.nvml import DeviceIdentity, DeviceReading
from penstock_daemon.device.select import Choice
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.metrics import MetricsSnapshot, make_registry
from support.engines import SIZES
from support.host_device import host_device

CHOICE = Choice("cuda", "host shim (cuda:0)", "engine.device is auto, and a trial gave the CPU's bits")
READING = DeviceReading(
    memory_used_bytes=3 << 30,
    temperature_celsius=41.0,
    sm_clock_hertz=1.98e9,
    power_watts=118.25,
    energy_joules=5_000.0,
    slow_reasons=("power_cap",),
)


class OneReading:
    identity = DeviceIdentity("NVIDIA H200", "GPU-0a1b", "0000:3B:00.0", "580.95.05")

    def read(self):
        return READING

    def close(self):
        pass


@pytest.fixture
def engine():
    with host_device() as backend:
        engine = Engine(SIZES, EngineSettings(), Device(backend, DeviceSettings(batch_max=1)))
        yield engine
        engine.close()


def care_for(engine, **config):
    return DeviceCare(engine, CHOICE, EngineConfig(**config), lambda: 0, OneReading)


def test_device_that_fails_is_said_once_and_shown_as_degraded(engine):
    care = care_for(engine, device_watch_s=0)
    with capture_logs() as logs:
        care.look()
        assert logs == []
        assert not care.snapshot().degraded
        engine.device.buffers.words[memory.FAULT] = DeviceFault.QUERY
        engine.device.buffers.words[memory.FAULT_DETAIL] = 700
        care.look()
        care.look()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("device_lost", "warning")
    assert line["detail"] == "a launch failed with driver error 700"
    assert "start the daemon again" in line["mend"]
    assert care.snapshot().degraded
    care.close()


def test_log_says_which_device_predicts_and_why(engine):
    care = care_for(engine, device_watch_s=0, device_weights="float16")
    said = care.described()
    assert (said["engine"], said["device"], said["device_why"]) == ("cuda", CHOICE.device, CHOICE.why)
    assert said["device_weights"] == "float16"
    assert {"device_mode", "device_transfer", "device_compile_s", "device_capture_s"} < set(said)


def test_card_s_readings_reach_the_snapshot(engine):
    care = care_for(engine)
    deadline_s = time.monotonic() + 60
    while care.snapshot().reading is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    care.close()
    snapshot = care.snapshot()
    assert (snapshot.reading, snapshot.identity, snapshot.watched) == (READING, OneReading.identity, True)


def test_cpu_needs_no_care():
    engine = Engine(SIZES, EngineSettings())
    care = DeviceCare(engine, Choice("cpu", "cpu", "no GPU can be used"), EngineConfig(), lambda: 0)
    care.look()
    assert care.snapshot() is None
    assert care.described() == {"engine": "cpu", "device": "cpu", "device_why": "no GPU can be used"}
    care.close()
    engine.close()


def families(snapshot: DeviceSnapshot) -> dict[str, dict[tuple[str, ...], float]]:
    shown = generate_latest(make_registry(lambda: MetricsSnapshot(device=snapshot), "0.1.0")).decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            if sample.name.startswith("penstock_device"):
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_metrics_show_all_of_it_and_the_page_names_every_one(repository_root):
    full = DeviceSnapshot(
        device=CHOICE.device,
        launches=5,
        items=9,
        eager_launches=1,
        allocations=2,
        watched=True,
        watch_failures=3,
        predictions_per_joule=150.0,
        identity=OneReading.identity,
        reading=replace(READING, memory_total_bytes=141 << 30, memory_clock_hertz=3.2e9),
    )
    found = families(full)
    assert found["penstock_device_launches_total"] == {(): 5}
    assert found["penstock_device_ticks_total"] == {(): 9}
    assert found["penstock_device_eager_launches_total"] == {(): 1}
    assert found["penstock_device_allocations_total"] == {(): 2}
    assert found["penstock_device_energy_joules_total"] == {(): 5_000}
    assert found["penstock_device_predictions_per_joule"] == {(): 150}
    assert found["penstock_device_power_watts"] == {(): 118.25}
    assert found["penstock_device_slowed"][("power_cap",)] == 1
    assert sum(found["penstock_device_slowed"].values()) == 1
    assert found["penstock_device_degraded"] == {(): 0}
    page = (repository_root / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in found if f"`{name}`" not in page] == []


def test_metrics_show_nothing_that_is_not_known():
    found = families(DeviceSnapshot("NVIDIA H200 (cuda:0)", degraded=True))
    assert found["penstock_device_faults_total"] == {(): 1}
    assert not {"penstock_device_power_watts", "penstock_device_energy_joules_total"} & set(found)
    assert "penstock_device_predictions_per_joule" not in found


def test_mode_is_graph_where_the_model_could_not_stay_resident(engine):
    care = care_for(engine, device_mode="resident", device_watch_s=0)
    assert (care.described()["device_mode"], care.snapshot().mode) == ("resident", "resident")
    engine.device.not_resident = "a model of 64 units can't stay resident: ..."
    assert (care.described()["device_mode"], care.snapshot().mode) == ("graph", "graph")
    assert care.described()["not_resident"] == engine.device.not_resident
