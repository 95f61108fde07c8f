"""Which device predicts, and why: ``engine.device`` as the operator wrote it, against what this host has.

    cpu       the CPU, nothing is looked at
    auto      the first GPU that works, else the CPU; every GPU that does not work says why
    cuda:N    that GPU, or DeviceError

A GPU works if it can be reached, is new enough, and a trial gives the CPU's bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from penstock_daemon.config_fields import EngineConfig
from penstock_daemon.device.backend import DeviceBackend, DeviceError
from penstock_daemon.device.device import Device, DeviceSettings
from penstock_daemon.device.memory import Mode, Transfer
from penstock_daemon.device.trial import prove
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Idle
from penstock_daemon.engine_sizes import EngineSizes

_SHARED_SPIN_NS: Final = 200_000  # On a core that is shared, a longer look at the done word has pauses.


class Gpus(Protocol):
    """The GPUs of this host; both raise DeviceError."""

    def count(self) -> int:
        """Return how many there are, at least 1."""

    def open(self, index: int) -> DeviceBackend:
        """Return one, for the calling thread."""


class CudaGpus:
    """NVIDIA's, as CUDA counts them."""

    def count(self) -> int:
        """Return how many there are, at least 1."""
        from penstock_daemon.device.cuda_driver import count_devices, import_cuda

        return count_devices(import_cuda())

    def open(self, index: int) -> DeviceBackend:
        """Return one, for the calling thread."""
        from penstock_daemon.device.cuda_backend import CudaBackend

        return CudaBackend(index)


@dataclass(frozen=True)
class Choice:
    """What predicts.

    Attributes:
        engine: "cpu" or "cuda".
        device: its name, such as "NVIDIA H200 (cuda:0)"; "cpu" for the CPU.
        why: a sentence.
    """

    engine: str
    device: str
    why: str


def make_engine(
    config: EngineConfig, sizes: EngineSizes, settings: EngineSettings, gpus: Gpus | None = None
) -> tuple[Engine, Choice]:
    """Return an engine on the device that *config* asks for. Slow where a GPU is looked at: not for the event loop.

    An engine with a device is compiled, its graphs captured: that may fail, and is then the CPU's turn.

    Args:
        config: as the operator wrote it.
        sizes, settings: of the engine.
        gpus: of this host; None for NVIDIA's.

    Raises:
        DeviceError: the GPU that was asked for by name can't be had.
    """
    wanted = config.device
    if wanted == "cpu":
        return Engine(sizes, settings), Choice("cpu", "cpu", 'engine.device is "cpu"')
    gpus = gpus or CudaGpus()
    if wanted != "auto":
        index, count = int(wanted.partition(":")[2] or 0), gpus.count()
        if index >= count:
            here = '"cuda:0" alone' if count == 1 else f'"cuda:0" to "cuda:{count - 1}"'
            raise DeviceError(f"must be a GPU of this host, {here}, was {wanted!r}")
        engine = _begin(gpus.open(index), config, sizes, settings)
        return engine, _taken(engine, f'engine.device is "{wanted}"')
    refusals: list[str] = []
    try:
        for index in range(gpus.count()):
            try:
                engine = _begin(gpus.open(index), config, sizes, settings)
            except DeviceError as error:
                refusals.append(f"cuda:{index} does not work ({error})")
            else:
                return engine, _taken(engine, "; ".join([*refusals, "engine.device is auto"]))
    except DeviceError as error:
        refusals.append(f"no GPU can be used ({error})")
    return Engine(sizes, settings), Choice("cpu", "cpu", "; ".join(refusals))


def device_settings(config: EngineConfig, idle: Idle) -> DeviceSettings:
    """Return how a device is used, as *config* says and as the engine idles."""
    return DeviceSettings(
        transfer=Transfer[config.device_transfer.upper()],
        mode=Mode[config.device_mode.upper()],
        half=config.device_weights == "float16",
        batch_max=config.device_batch_max,
        timeout_ns=config.device_timeout_ms * 1_000_000,
        spin_ns=DeviceSettings.spin_ns if idle == Idle.SPIN else _SHARED_SPIN_NS,
    )


def _taken(engine: Engine, asked: str) -> Choice:
    assert engine.device is not None, "it was made with one"
    facts = engine.device.backend.facts
    return Choice("cuda", f"{facts.name} (cuda:{facts.index})", f"{asked}, and a trial gave the CPU's bits")


def _begin(backend: DeviceBackend, config: EngineConfig, sizes: EngineSizes, settings: EngineSettings) -> Engine:
    """Return an engine on *backend*, which is closed where that can't be."""
    half = config.device_weights == "float16"
    try:
        prove(backend, sizes, half=half)
        engine = Engine(sizes, settings, Device(backend, device_settings(config, settings.idle)))
    except BaseException:
        backend.close()
        raise
    try:
        engine.compile()
    except BaseException:
        engine.close()
        raise
    return engine
