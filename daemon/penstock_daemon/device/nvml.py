"""What the GPU says of itself: identity, memory, temperature, clocks, power, why it is slow, and energy.

NVML is read by a thread of its own, seldom: asking costs milliseconds, and on some drivers the GPU's latency. Nobody
waits for it: who wants a reading takes the last one. A failure is said once, and again only after it had gone.

    reading    what the GPU said last; a number that it does not tell is None
    joules     of the whole card since its driver was loaded, so predictions per joule are of the card, idle power included
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from penstock_host import affinity

# Bits of the reasons why clocks are lower than they could be, as nvml.h numbers them.
SLOW_REASONS: Final = {
    0x001: "gpu_idle",
    0x002: "applications_clocks",
    0x004: "power_cap",
    0x008: "hardware_slowdown",
    0x010: "sync_boost",
    0x020: "thermal_slowdown",
    0x040: "hardware_thermal_slowdown",
    0x080: "hardware_power_brake",
    0x100: "display_clocks",
}
OTHER_REASON: Final = "other"
_STOP_S: Final = 2.0

_log = structlog.get_logger("penstock.device")


class GaugeError(Exception):
    """The GPU can't be asked; the sentence says why, and the mend."""


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Which card it is."""

    name: str
    uuid: str
    bus_id: str
    driver: str


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What the card says at one moment; None: it does not tell."""

    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    slow_reasons: tuple[str, ...] | None = None


class Gauges(Protocol):
    """A card that can be asked."""

    identity: DeviceIdentity

    def read(self) -> DeviceReading:
        """Ask everything once; raises GaugeError where the card does not answer."""

    def close(self) -> None:
        """Let go of it."""


class NvmlGauges:
    """A card as NVML tells of it.

    Args:
        bus_id: its PCI address, as CUDA says it.
        nvml: the module to ask; None imports pynvml.

    Raises:
        GaugeError: there is no NVML, or no such card.
    """

    def __init__(self, bus_id: str, nvml: Any = None) -> None:
        if nvml is None:
            nvml = _library()
        self._nvml = nvml
        self._untold: set[str] = set()  # What the card said that it does not support.
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise GaugeError(
                f"NVML can't be used ({error}); install the NVIDIA driver, or set engine.device_watch_s = 0"
            ) from error
        try:
            self._card = nvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
            self.identity = DeviceIdentity(
                name=_text(nvml.nvmlDeviceGetName(self._card)),
                uuid=_text(nvml.nvmlDeviceGetUUID(self._card)),
                bus_id=bus_id,
                driver=_text(nvml.nvmlSystemGetDriverVersion()),
            )
        except nvml.NVMLError as error:
            self.close()
            raise GaugeError(f"NVML does not know the GPU at {bus_id!r} ({error})") from error

    def read(self) -> DeviceReading:
        """Ask everything once; raises GaugeError where the card is lost."""
        nvml = self._nvml
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # Drivers before 535 know the older name alone.
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return DeviceReading(
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_celsius=_scaled(self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU), 1.0),
            sm_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM), 1e6),
            memory_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM), 1e6),
            power_watts=_scaled(self._ask("nvmlDeviceGetPowerUsage"), 1e-3),
            energy_joules=_scaled(self._ask("nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
            slow_reasons=None if reasons is None else reason_names(int(reasons)),
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return an answer, or None where this card or driver does not tell; then it is not asked again."""
        nvml, key = self._nvml, f"{function}{arguments}"
        if key in self._untold:
            return None
        if not hasattr(nvml, function):  # An older nvidia-ml-py.
            self._untold.add(key)
            return None
        try:
            return getattr(nvml, function)(self._card, *arguments)
        except nvml.NVMLError as error:
            if error.value in (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NO_PERMISSION,  # Of a card that is cut into slices, to who is not root.
            ):
                self._untold.add(key)
                return None
            raise GaugeError(f"{function} failed ({error})") from error

    def close(self) -> None:
        """Let go of NVML."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            _log.debug("nvml_not_closed", detail=str(error))


class DeviceWatch:
    """Asks a card now and then, on a thread of its own.

    Args:
        open_gauges: called on that thread; may raise GaugeError.
        predictions: how many predictions were made so far, for predictions per joule; called on that thread.
        interval_s: between two questions, above 0.
    """

    def __init__(self, open_gauges: Callable[[], Gauges], predictions: Callable[[], int], interval_s: float) -> None:
        assert interval_s > 0.0, "no watch is made where it is off"
        self.identity: DeviceIdentity | None = None
        self.reading: DeviceReading | None = None  # None too while the card does not answer.
        self.predictions_per_joule: float | None = None  # Between the last two readings.
        self.failures = 0
        self._open = open_gauges
        self._predictions = predictions
        self._interval_s = interval_s
        self._said = False  # The failure under way is in the log.
        self._before: tuple[int, float] | None = None  # Predictions and joules at the reading before.
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="penstock-nvml", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking; a question under way is left to end by itself. May be called twice."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def _main(self) -> None:
        affinity.name_this_thread("penstock-nvml")
        try:
            gauges = self._open()
        except GaugeError as error:  # Nothing that is missing at the start comes later.
            self._failed(error)
            return
        self.identity = gauges.identity
        try:
            while True:
                self._take(gauges)
                if self._stop.wait(self._interval_s):
                    return
        finally:
            gauges.close()

    def _take(self, gauges: Gauges) -> None:
        started_ns = time.monotonic_ns()
        try:
            reading = gauges.read()
        except GaugeError as error:
            self._failed(error)
            return
        if self._said:
            _log.info("device_watched_again", name=gauges.identity.name)
            self._said = False
        self.reading = reading
        self._divide(reading.energy_joules)
        _log.debug("device_read", elapsed_us=(time.monotonic_ns() - started_ns) // 1_000)

    def _divide(self, joules: float | None) -> None:
        """Set predictions per joule since the reading before."""
        if joules is None:
            return
        predictions = self._predictions()
        if self._before is not None and joules > self._before[1] and predictions >= self._before[0]:
            self.predictions_per_joule = (predictions - self._before[0]) / (joules - self._before[1])
        self._before = predictions, joules

    def _failed(self, error: GaugeError) -> None:
        self.failures += 1
        self.reading = None
        self.predictions_per_joule = None
        self._before = None
        if not self._said:
            self._said = True
            _log.warning("device_unwatched", detail=str(error))


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        raise GaugeError(
            "nvidia-ml-py is not installed; install it with: pip install 'penstock[cuda13]' (or cuda12)"
        ) from None
    return pynvml


def reason_names(bits: int) -> tuple[str, ...]:
    """Return the names of a mask of reasons; bits that have none here are one "other"."""
    names = [name for bit, name in SLOW_REASONS.items() if bits & bit]
    return (*names, OTHER_REASON) if bits & ~sum(SLOW_REASONS) else tuple(names)


def _scaled(number: Any, unit: float) -> float | None:
    return None if number is None else float(number) * unit


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
