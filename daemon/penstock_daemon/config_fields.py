"""The configuration: one frozen dataclass per section, every key with its limit and its advice in its type.

A key reads ``name: Annotated[type, limit, "advice"] = default``. The advice is what ``--print-config`` and
docs/configuration.md say about it, so it is written for the operator. Names end in their unit. Numbers that follow
from these (ring sizes, arena bytes) live with what they size, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from penstock_daemon.addresses import default_server_address
from penstock_daemon.config_budget import BudgetConfig, PathBudgetConfig
from penstock_daemon.config_clock import ClockConfig
from penstock_daemon.config_feed import FeedConfig
from penstock_daemon.config_limits import (
    Between,
    Cpus,
    DeviceName,
    Limit,
    LoopbackOrOff,
    OffOrBetween,
    PathText,
    PowerOfTwo,
    ServerAddress,
)
from penstock_daemon.config_shared_memory import SharedMemoryConfig

DeviceMode = Literal["graph", "resident"]
DeviceTransfer = Literal["staged", "in_place", "copied"]
DeviceWeights = Literal["float32", "float16"]
Idle = Literal["block", "spin_then_sleep", "spin"]
MemoryLock = Literal["auto", "on", "off"]
TuningRequire = Literal["none", "must", "should"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The gRPC server."""

    address: Annotated[
        str,
        ServerAddress(),
        "Where strategies connect. Left out, it is unix:$XDG_RUNTIME_DIR/penstock.sock, or penstock-UID.sock in the "
        "folder for temporary files. A Unix socket is faster than TCP and only its owner, and shared_memory.group, can open it.",
    ] = ""
    cores: Annotated[
        tuple[int, ...],
        Cpus(),
        "CPUs of the event loop and of gRPC's own threads. Keep them apart from engine.cores.",
    ] = ()
    message_bytes_max: Annotated[
        int, Between(64 * 1024, 256 * 1024 * 1024), "Largest request that is read; a larger one ends its stream."
    ] = 4 * 1024 * 1024
    drain_s: Annotated[
        float, Between(0, 600), "How long a stopping daemon waits for ticks in flight to be answered and read."
    ] = 5.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The thread that owns every reservoir state."""

    cores: Annotated[
        tuple[int, ...], Cpus(), "CPUs of the engine thread; one that nothing else uses is best. Not CPU 0."
    ] = ()
    pin: Annotated[
        bool, "Whether threads are pinned to their CPUs. Turn it off where another process uses the same CPUs."
    ] = True
    device: Annotated[
        str,
        DeviceName(),
        "Where predictions are computed. auto takes a GPU that works, else the CPU, and the log says which and why. cuda, "
        "or cuda:1 for the second GPU, refuses to start without; where it fails later, the CPU goes on.",
    ] = "auto"
    device_mode: Annotated[
        DeviceMode,
        "How a GPU is given work. graph launches one captured graph per micro-batch. resident keeps a kernel running that "
        "polls host memory: one model, and a GPU of its own.",
    ] = "graph"
    device_transfer: Annotated[
        DeviceTransfer,
        "How ticks reach a GPU. staged writes them beside the work, in memory that the GPU reads; in_place lets it read "
        "the rings themselves; copied has the graph copy both ways.",
    ] = "staged"
    device_weights: Annotated[
        DeviceWeights,
        "How models' reservoir weights are kept, on GPU and CPU alike. float16 halves what a GPU must read; a model that "
        "predicts something else for it is refused.",
    ] = "float32"
    device_batch_max: Annotated[
        int,
        PowerOfTwo(1, 4096),
        "Most ticks of one micro-batch on a GPU, over all sessions. A graph is captured for each power of two up to it.",
    ] = 1024
    device_timeout_ms: Annotated[
        int,
        Between(1, 10_000),
        "How long the engine waits for a GPU's micro-batch, and as long again for every 16 ticks in it, before it takes the "
        "GPU for lost and goes on with the CPU.",
    ] = 20
    device_watch_s: Annotated[
        float,
        OffOrBetween(1, 3600),
        "How often a GPU is asked for its temperature, clocks, power and energy, by a thread of its own. Asking often "
        "costs latency on some drivers; 0 never asks.",
    ] = 10.0
    idle: Annotated[
        Idle,
        "What the engine does without ticks. block sleeps until woken: right wherever CPUs are shared. spin burns a "
        "CPU of its own for the lowest latency. spin_then_sleep spins for engine.spin_us, then sleeps.",
    ] = "block"
    spin_us: Annotated[
        int, Between(1, 1_000_000), "How long spin_then_sleep spins after the last tick before it sleeps."
    ] = 100
    batch_max: Annotated[
        int,
        Between(1, 4096),
        "Most ticks taken from one session before the engine looks at the next: a burst of one delays others this much.",
    ] = 64
    assist_max: Annotated[
        int,
        Between(0, 4096),
        "With idle = block: a message of at most this many ticks is predicted by the event loop itself while the engine "
        "sleeps, which saves two hand-overs between threads. 0 leaves every tick to the engine.",
    ] = 16


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """Sessions, and the states they may hold. Memory for all of them is taken at the start."""

    max: Annotated[int, Between(1, 1024), "Most sessions at once, those that may still resume included."] = 16
    states_max: Annotated[int, Between(1, 65_536), "Most reservoir states at once: one per session and instrument."] = (
        64
    )
    instruments_max: Annotated[int, Between(1, 4096), "Most instruments in one session."] = 32
    in_flight_max: Annotated[
        int, PowerOfTwo(64, 1_048_576), "Most unanswered ticks of one session; one more ends its stream."
    ] = 8192
    resume_grace_s: Annotated[
        float, Between(0, 3600), "How long a lost connection keeps its states for a resume; 0 frees them at once."
    ] = 30.0
    resumable_max: Annotated[
        int, Between(0, 1024), "Most lost connections that keep their states; the oldest is freed for one more."
    ] = 8
    heartbeat_interval_s: Annotated[
        float,
        Between(0, 3600),
        "How often an idle side says that it is alive; a client silent for three of them is lost. 0 turns it off.",
    ] = 5.0
    hello_timeout_s: Annotated[float, Between(0.01, 600), "How long a new stream may take to say Hello."] = 10.0


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Models and where they come from."""

    folder: Annotated[str, PathText(), 'Where LoadModel finds files; "" lets it load none.'] = ""
    active: Annotated[
        str,
        PathText(),
        "The model that new sessions get: a path, or the name of a file in models.folder. "
        '"" is the demonstration that comes with penstock: never trade on it.',
    ] = ""
    slots: Annotated[int, Between(1, 64), "Most models loaded at once."] = 4
    units_max: Annotated[int, Between(1, 65_536), "Largest reservoir that may be loaded; states are sized for it."] = (
        2048
    )
    dense_units_max: Annotated[
        int,
        Between(0, 65_536),
        "Largest dense reservoir that is sure to fit, at most models.units_max: a slot takes 4 bytes times its square. "
        "0 takes no more than models.units_max does, and loads dense ones that fit into that.",
    ] = 0


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """Online readouts: sessions that ask for one get forecasts corrected by what followed their own ticks."""

    enabled: Annotated[bool, "Whether sessions may ask for one. Off, it costs nothing."] = False
    states: Annotated[
        int, Between(0, 65_536), "Most states with an online readout at once: one per session that asks and instrument."
    ] = 0
    units: Annotated[
        int, Between(0, 256), "Reservoir units that it looks at beside the model's own outputs and inputs."
    ] = 0
    forgetting: Annotated[
        float,
        Between(0.9, 1),
        "Weight of what was learned before, per label; 1 / (1 - forgetting) labels are its memory, which must be at "
        "least 8 times what it looks at.",
    ] = 0.99999
    trace_max: Annotated[
        float,
        Between(0.000_001, 1_000_000),
        "Bound of what it may be unsure of; lower corrects more carefully. Keeps a quiet market from winding it up.",
    ] = 0.1
    updates_per_tick: Annotated[
        int, Between(1, 64), "Most labels learned per tick and horizon: the bound of what a tick costs."
    ] = 2
    pending_max: Annotated[
        int, Between(1, 65_536), "Ticks per horizon that wait for their outcome; further ones are not learned from."
    ] = 512
    snapshot_folder: Annotated[
        str, PathText(), 'Where what sessions learned is kept from one to the next; "" keeps nothing.'
    ] = ""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """The arena that holds rings, states and weights."""

    lock: Annotated[
        MemoryLock,
        "Whether the arena is locked in memory. auto tries and warns, on refuses to start without, off does not try. "
        "The limit is LimitMEMLOCK of a systemd unit, or ulimit -l.",
    ] = "auto"


@dataclass(frozen=True, slots=True)
class TuningConfig:
    """The host that the daemon runs on; see penstock-tune."""

    require: Annotated[
        TuningRequire,
        "Which of what penstock-tune check finds keeps the daemon from starting: what must be mended, or also what "
        "should be. none starts anyway; either way the log has a line for each thing that will cost latency.",
    ] = "none"
    cpu_dma_latency_us: Annotated[
        int,
        Between(-1, 10_000),
        "Longest wake-up of any CPU while the daemon runs, held through /dev/cpu_dma_latency, which its user must be "
        "able to write. 0 lets no CPU sleep, at the price of power; -1 asks for nothing.",
    ] = -1
    profile: Annotated[
        str,
        PathText(),
        "A profile of penstock-tune (TOML) for these checks: hot cores beside the engine's, items to skip, a network card. "
        '"" takes engine.cores for the hot ones.',
    ] = ""


@dataclass(frozen=True, slots=True)
class RecordConfig:
    """The tick recorder: DBN files of what each session sent, and of what came by the feed."""

    folder: Annotated[str, PathText(), 'Where accepted ticks are written; "" records nothing.'] = ""
    rotate_mb: Annotated[int, Between(1, 65_536), "A session's file is closed and a new one begun at this size."] = 256
    rotate_s: Annotated[float, Between(1, 604_800), "And after this time."] = 3600.0
    queue_mb: Annotated[
        int,
        Between(1, 65_536),
        "Ticks that wait for the disk; what comes on top is counted as dropped, never waited for.",
    ] = 64
    tap_ticks: Annotated[
        int,
        PowerOfTwo(64, 4_194_304),
        "Ticks of sessions over shared memory, and as many of the feed, that wait for the event loop to look, 20 times a "
        "second; what comes on top is dropped, as above. Each takes 96 bytes of locked memory.",
    ] = 131_072


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Prometheus metrics."""

    address: Annotated[
        str, LoopbackOrOff(), "Where /metrics is served. Port 0 takes a free one, which the log names."
    ] = "127.0.0.1:9464"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log, on standard error."""

    level: Annotated[LogLevel, "The least that is written."] = "info"
    format: Annotated[LogFormat, "auto writes for people on a terminal and JSON everywhere else."] = "auto"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured. Made by ``load_config`` or ``defaults``, which leave no fault in it."""

    server: ServerConfig = field(default_factory=ServerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    shared_memory: SharedMemoryConfig = field(default_factory=SharedMemoryConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    budget_grpc: PathBudgetConfig = field(default_factory=PathBudgetConfig)
    budget_shared_memory: PathBudgetConfig = field(default_factory=PathBudgetConfig)
    budget_feed: PathBudgetConfig = field(default_factory=PathBudgetConfig)
    feed: FeedConfig = field(default_factory=FeedConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)

    @classmethod
    def defaults(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the configuration of a daemon that was told nothing.

        Args:
            environ: where XDG_RUNTIME_DIR and TMPDIR are looked up; keys are not read from it.
        """
        return cls(server=ServerConfig(address=default_server_address(environ or {})))


class ConfigError(ValueError):
    """The configuration can't be used; every fault found is in it, one sentence each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        assert faults, "a ConfigError has a fault"
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        return f"the configuration has {len(self.faults)} faults:\n" + "\n".join(f"  {fault}" for fault in self.faults)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as its field declares it."""

    section: str
    name: str
    kind: Any  # str, int, float, bool, tuple[int, ...] or a Literal of strings.
    limit: Limit | None
    advice: str
    default: Any

    @property
    def path(self) -> str:
        """The key as people write it, such as "engine.cores"."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment's name for it, such as "PENSTOCK_ENGINE__CORES"."""
        return f"PENSTOCK_{self.section.upper()}__{self.name.upper()}"

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be chosen; empty where the key is no choice."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def limit_words(self) -> str:
        """Return what the value may be, for people; may be empty."""
        if self.choices:
            return " | ".join(f'"{choice}"' for choice in self.choices)
        return self.limit.words() if self.limit else ""


def section_types() -> dict[str, type]:
    """Return the sections by name, in the order of the docs."""
    return get_type_hints(Config)


def keys() -> Iterator[Key]:
    """Yield every key, in the order of the docs."""
    for section, section_type in section_types().items():
        hints = get_type_hints(section_type, include_extras=True)
        for declared in fields(section_type):
            kind, *notes = get_args(hints[declared.name])
            limit = next((note for note in notes if not isinstance(note, str)), None)
            advice = next(note for note in notes if isinstance(note, str))
            yield Key(section, declared.name, kind, limit, advice, declared.default)
