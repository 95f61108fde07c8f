"""A device while it serves: whether the engine has left it, what NVML says of the card, and both for the metrics.

    device works   ->   device fails   ->   one warning, degraded for good; the CPU answers every tick

All of it is off the tick path. Where the CPU predicts from the start there is nothing to care for, and every method says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from penstock_daemon.config_fields import EngineConfig
from penstock_daemon.device.memory import DeviceFault
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.device.nvml import DeviceWatch, Gauges, NvmlGauges
from penstock_daemon.device.select import Choice
from penstock_daemon.engine import Engine

_log = structlog.get_logger("penstock.device")

_DEGRADED: Final = "the CPU predicts, flagged DEGRADED; start the daemon again to have the device back"


class DeviceCare:
    """Looks after an engine's device.

    Args:
        engine: whose device; it may have none.
        choice: how it was found.
        config: how it is used.
        predictions: how many were made so far; called from another thread, seldom.
        open_gauges: returns the card's gauges; None asks NVML for the device's bus id.
    """

    def __init__(
        self,
        engine: Engine,
        choice: Choice,
        config: EngineConfig,
        predictions: Callable[[], int],
        open_gauges: Callable[[], Gauges] | None = None,
    ) -> None:
        self.choice = choice
        self._device = engine.device
        self._config = config
        self._watch: DeviceWatch | None = None
        self._said = False
        if self._device is not None and config.device_watch_s > 0:
            bus_id = self._device.backend.facts.bus_id
            if bus_id or open_gauges:
                self._watch = DeviceWatch(
                    open_gauges or (lambda: NvmlGauges(bus_id)), predictions, config.device_watch_s
                )

    def look(self) -> None:
        """Warn, once, where the engine has left the device; to be called now and then."""
        if self._device is not None and not self._said and self._device.fault != DeviceFault.NONE:
            self._said = True
            _log.warning("device_lost", device=self.choice.device, detail=self._device.fault_text, mend=_DEGRADED)

    @property
    def _mode(self) -> str:
        """How it is given work: graphs where the model can't stay resident."""
        return "graph" if self._device is None or self._device.not_resident else self._config.device_mode

    def described(self) -> dict[str, object]:
        """Return what the log says of it when the daemon serves."""
        said: dict[str, object] = {
            "engine": self.choice.engine,
            "device": self.choice.device,
            "device_why": self.choice.why,
        }
        if self._config.device_weights != "float32":
            said["device_weights"] = self._config.device_weights
        if self._device is not None:
            times = self._device.start_times
            said |= {
                "device_mode": self._mode,
                "device_transfer": self._config.device_transfer,
                "device_compile_s": round(times.compile_s, 2),
                "device_capture_s": round(times.capture_s, 2),
            }
            if self._device.not_resident:
                said["not_resident"] = self._device.not_resident
        return said

    def snapshot(self) -> DeviceSnapshot | None:
        """Return what the metrics show; None where the CPU predicts from the start."""
        device, watch, config = self._device, self._watch, self._config
        if device is None:
            return None
        counters = device.counters
        return DeviceSnapshot(
            device=self.choice.device,
            engine=self.choice.engine,
            transfer=config.device_transfer,
            mode=self._mode,
            weights=config.device_weights,
            degraded=device.fault != DeviceFault.NONE,
            launches=device.launches,
            items=device.items,
            eager_launches=counters.eager_launches,
            allocations=counters.allocations,
            watched=watch is not None,
            watch_failures=watch.failures if watch else 0,
            predictions_per_joule=watch.predictions_per_joule if watch else None,
            identity=watch.identity if watch else None,
            reading=watch.reading if watch else None,
        )

    def close(self) -> None:
        """Stop asking NVML. May be called twice."""
        if self._watch is not None:
            self._watch.close()
