"""What the GPU says of itself: as recorded answers of NVML, by the real library without a driver, and while it fails."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from penstock_daemon.device.nvml import (
    SLOW_REASONS,
    DeviceIdentity,
    DeviceReading,
    DeviceWatch,
    GaugeError,
    NvmlGauges,
    reason_names,
)

BUS_ID = "0000:3B:00.0"
CARD = DeviceIdentity("NVIDIA H200", "GPU-0a1b", BUS_ID, "580.95.05")


class RecordedError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class RecordedNvml:
    """The part of pynvml that is used, with answers in NVML's units as a card would give them; None: not supported."""

    NVMLError = RecordedError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def __init__(self, **answers):
        self.asked: list[str] = []
        self.open = 0
        self.lost = False
        self.answers = {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30, total=141 << 30),
            "nvmlDeviceGetCurrentClocksEventReasons": 0x24,
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetPowerUsage": 118_250,
            "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
        } | answers

        functions = {
            "nvmlInit": lambda: self._opened(1),
            "nvmlShutdown": lambda: self._opened(-1),
            "nvmlDeviceGetHandleByPciBusId": self._handle,
            "nvmlDeviceGetName": lambda _card: b"NVIDIA H200",  # Older versions of the library give bytes.
            "nvmlDeviceGetUUID": lambda _card: "GPU-0a1b",
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
        }
        for name, function in functions.items():
            setattr(self, name, function)

    def _opened(self, by):
        self.open += by

    def _handle(self, bus_id):
        if bus_id != BUS_ID.encode():
            raise RecordedError(6)
        return bus_id

    def __getattr__(self, name):
        if name not in self.answers:
            raise AttributeError(name)

        def answer(_card, *_arguments):
            self.asked.append(name)
            if self.lost:
                raise RecordedError(15)
            if self.answers[name] is None:
                raise RecordedError(self.NVML_ERROR_NOT_SUPPORTED)
            if isinstance(self.answers[name], RecordedError):
                raise self.answers[name]
            return self.answers[name]

        return answer


def test_reading_has_the_units_of_its_names():
    gauges = NvmlGauges(BUS_ID, RecordedNvml())
    assert gauges.identity == CARD
    assert gauges.read() == DeviceReading(
        memory_used_bytes=3 << 30,
        memory_total_bytes=141 << 30,
        temperature_celsius=41.0,
        sm_clock_hertz=1.98e9,
        memory_clock_hertz=1.98e9,
        power_watts=118.25,
        energy_joules=5_000.0,
        slow_reasons=("power_cap", "thermal_slowdown"),
    )


def test_what_a_card_does_not_tell_is_none_and_asked_once():
    nvml = RecordedNvml(nvmlDeviceGetTotalEnergyConsumption=None)
    gauges = NvmlGauges(BUS_ID, nvml)
    assert [gauges.read().energy_joules, gauges.read().energy_joules] == [None, None]
    assert nvml.asked.count("nvmlDeviceGetTotalEnergyConsumption") == 1


def test_older_driver_is_asked_for_the_reasons_by_their_older_name():
    nvml = RecordedNvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x1)
    del nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"]
    assert NvmlGauges(BUS_ID, nvml).read().slow_reasons == ("gpu_idle",)


def test_lost_card_is_an_error_that_names_the_question():
    nvml = RecordedNvml()
    gauges = NvmlGauges(BUS_ID, nvml)
    nvml.lost = True
    with pytest.raises(GaugeError, match=r"nvmlDeviceGetMemoryInfo failed \(error 15\)"):
        gauges.read()


def test_unknown_card_is_refused_and_the_library_closed():
    nvml = RecordedNvml()
    with pytest.raises(GaugeError, match=r"NVML does not know the GPU at '0000:00:00\.0'"):
        NvmlGauges("0000:00:00.0", nvml)
    assert nvml.open == 0


def test_reasons_that_have_no_name_are_other():
    assert reason_names(0) == ()
    assert reason_names(0x1 | 0x1000) == ("gpu_idle", "other")


def test_names_and_constants_are_those_of_the_library():
    pynvml = pytest.importorskip("pynvml")
    for bit, name in (
        (pynvml.nvmlClocksThrottleReasonSwPowerCap, "power_cap"),
        (pynvml.nvmlClocksThrottleReasonHwSlowdown, "hardware_slowdown"),
        (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, "thermal_slowdown"),
        (pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, "hardware_thermal_slowdown"),
        (pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown, "hardware_power_brake"),
        (pynvml.nvmlClocksThrottleReasonDisplayClockSetting, "display_clocks"),
    ):
        assert SLOW_REASONS[bit] == name
    errors = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_NO_PERMISSION", "NVML_ERROR_FUNCTION_NOT_FOUND")
    for name in (*errors, "NVML_CLOCK_SM", "NVML_CLOCK_MEM"):
        assert getattr(pynvml, name) == getattr(RecordedNvml, name)
    for name in RecordedNvml().answers:
        assert callable(getattr(pynvml, name))


def test_what_nobody_may_ask_is_left_out_and_the_rest_is_read():
    nvml = RecordedNvml(nvmlDeviceGetMemoryInfo=RecordedError(RecordedNvml.NVML_ERROR_NO_PERMISSION))
    gauges = NvmlGauges(BUS_ID, nvml)
    readings = [gauges.read() for _ in range(2)]
    assert [reading.memory_used_bytes for reading in readings] == [None, None]
    assert readings[0].temperature_celsius == 41.0
    assert nvml.asked.count("nvmlDeviceGetMemoryInfo") == 1


def test_real_library_without_a_driver_is_told_with_the_mend():
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        pass
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this host has NVML")
    with pytest.raises(
        GaugeError, match=r"NVML can't be used .*; install the NVIDIA driver, or set engine\.device_watch"
    ):
        NvmlGauges(BUS_ID)


def test_missing_library_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(GaugeError, match="nvidia-ml-py is not installed; install it with: pip install 'penstock"):
        NvmlGauges(BUS_ID)


class ScriptedGauges:
    """Gives one reading after the other, or raises it, then the last one for ever."""

    identity = CARD

    def __init__(self, *script):
        self.script = list(script)
        self.threads: set[str] = set()
        self.closed = False
        self.reads = 0

    def read(self):
        self.threads.add(threading.current_thread().name)
        self.reads += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step

    def close(self):
        self.closed = True


def until(condition):
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_predictions_per_joule_are_those_between_two_readings():
    counts = iter([100, 400])
    first, second = DeviceReading(energy_joules=10.0), DeviceReading(energy_joules=12.0)
    gauges = ScriptedGauges(first, second, replace(second, energy_joules=None))
    watch = DeviceWatch(lambda: gauges, lambda: next(counts), 0.001)
    until(lambda: watch.predictions_per_joule is not None)
    watch.close()
    assert watch.predictions_per_joule == 150.0
    assert gauges.threads == {"penstock-nvml"}
    assert gauges.closed


def test_joules_that_stand_still_or_begin_anew_tell_nothing():
    gauges = ScriptedGauges(*(DeviceReading(energy_joules=joules) for joules in (10.0, 10.0, 4.0)))
    watch = DeviceWatch(lambda: gauges, lambda: 7 * gauges.reads, 0.001)
    until(lambda: gauges.reads > 5)
    watch.close()
    assert watch.predictions_per_joule is None
    assert watch.failures == 0


def test_failure_is_said_once_and_the_end_of_it_too():
    reading = DeviceReading(temperature_celsius=50.0)
    gauges = ScriptedGauges(reading, GaugeError("lost"), GaugeError("lost"), GaugeError("lost"), reading)
    with capture_logs() as logs:
        watch = DeviceWatch(lambda: gauges, lambda: 0, 0.001)
        until(lambda: gauges.reads > 6)
        watch.close()
    said = [(line["event"], line["log_level"]) for line in logs if line["log_level"] != "debug"]
    assert said == [("device_unwatched", "warning"), ("device_watched_again", "info")]
    assert watch.failures == 3
    assert watch.reading == reading


def test_card_that_cannot_be_opened_is_said_once_and_not_asked_again():
    def refuse():
        raise GaugeError("no NVML")

    with capture_logs() as logs:
        watch = DeviceWatch(refuse, lambda: 0, 0.001)
        watch.close()
    assert [line["detail"] for line in logs] == ["no NVML"]
    assert (watch.identity, watch.reading, watch.failures) == (None, None, 1)


def test_failing_card_shows_no_old_reading():
    gauges = ScriptedGauges(DeviceReading(temperature_celsius=50.0), GaugeError("lost"))
    watch = DeviceWatch(lambda: gauges, lambda: 0, 0.001)
    until(lambda: watch.failures > 0)
    watch.close()
    assert watch.reading is None
