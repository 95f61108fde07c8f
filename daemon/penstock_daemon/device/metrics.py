"""The GPU's part of the metrics: what it is, what the engine does with it, and what NVML said last.

What is not known is not shown: no family of a GPU where the CPU predicts, no temperature where the card tells none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from penstock_daemon.device.nvml import OTHER_REASON, SLOW_REASONS, DeviceIdentity, DeviceReading

# Field of DeviceReading, metric, help.
_GAUGES: Final = (
    ("memory_used_bytes", "penstock_device_memory_used_bytes", "Memory in use on the GPU, of all processes."),
    ("memory_total_bytes", "penstock_device_memory_bytes", "Memory of the GPU."),
    ("temperature_celsius", "penstock_device_temperature_celsius", "Temperature of the GPU."),
    ("sm_clock_hertz", "penstock_device_sm_clock_hertz", "Clock of the multiprocessors."),
    ("memory_clock_hertz", "penstock_device_memory_clock_hertz", "Clock of the GPU's memory."),
    ("power_watts", "penstock_device_power_watts", "Power drawn by the GPU."),
)


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """The GPU as it stands. Counters only grow while a daemon lives.

    Attributes:
        device: its name and index.
        engine: "cuda".
        transfer, weights: how it is used, as configured.
        mode: how it is given work; graph where the model could not stay resident.
        degraded: it failed, and the CPU predicts.
        launches: micro-batches since the start.
        items: ticks in them.
        eager_launches, allocations: since the warm-up; 0 both, or something is wrong.
        watched: NVML is asked.
        watch_failures: questions that it did not answer.
        predictions_per_joule: between the last two readings; None where that is not known.
        identity, reading: what NVML said; None where it did not.
    """

    device: str
    engine: str = "cuda"
    transfer: str = "staged"
    mode: str = "graph"
    weights: str = "float32"
    degraded: bool = False
    launches: int = 0
    items: int = 0
    eager_launches: int = 0
    allocations: int = 0
    watched: bool = False
    watch_failures: int = 0
    predictions_per_joule: float | None = None
    identity: DeviceIdentity | None = None
    reading: DeviceReading | None = None


def device_families(one: DeviceSnapshot) -> Iterator[Metric]:
    """Yield every metric of the GPU."""
    card = one.identity
    yield InfoMetricFamily(
        "penstock_device",
        "The GPU that predicts, or did until it failed, and how it is used.",
        value={
            "device": one.device,
            "engine": one.engine,
            "transfer": one.transfer,
            "mode": one.mode,
            "weights": one.weights,
            "uuid": card.uuid if card else "",
            "bus_id": card.bus_id if card else "",
            "driver": card.driver if card else "",
        },
    )
    yield GaugeMetricFamily(
        "penstock_device_degraded", "1 where the GPU failed and the CPU predicts in its place.", value=one.degraded
    )
    for name, text, value in (
        ("penstock_device_faults", "Failures that took the GPU out of service.", int(one.degraded)),
        ("penstock_device_launches", "Micro-batches given to the GPU.", one.launches),
        ("penstock_device_ticks", "Ticks in those micro-batches.", one.items),
        ("penstock_device_eager_launches", "Launches outside of graphs after the warm-up.", one.eager_launches),
        ("penstock_device_allocations", "Allocations of its memory after the warm-up.", one.allocations),
    ):
        yield CounterMetricFamily(name, text, value=value)
    if one.watched:
        yield CounterMetricFamily(
            "penstock_device_watch_failures", "Questions that NVML did not answer.", value=one.watch_failures
        )
    if one.predictions_per_joule is not None:
        yield GaugeMetricFamily(
            "penstock_device_predictions_per_joule",
            "Predictions for each joule of the card, between the last two readings.",
            value=one.predictions_per_joule,
        )
    if one.reading is not None:
        yield from _reading(one.reading)


def _reading(reading: DeviceReading) -> Iterator[Metric]:
    for field, name, text in _GAUGES:
        value = getattr(reading, field)
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)
    if reading.energy_joules is not None:
        yield CounterMetricFamily(
            "penstock_device_energy_joules",
            "Energy of the GPU since its driver was loaded.",
            value=reading.energy_joules,
        )
    if reading.slow_reasons is not None:
        slowed = GaugeMetricFamily(
            "penstock_device_slowed", "1 where clocks are lower than they could be for that reason.", labels=["reason"]
        )
        for reason in (*SLOW_REASONS.values(), OTHER_REASON):
            slowed.add_metric([reason], reason in reading.slow_reasons)
        yield slowed
