from penstock.v1 import latency_pb2 as _latency_pb2
from penstock.v1 import model_pb2 as _model_pb2
from penstock.v1 import prediction_pb2 as _prediction_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NotServingReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOT_SERVING_REASON_UNSPECIFIED: _ClassVar[NotServingReason]
    NOT_SERVING_REASON_STARTING: _ClassVar[NotServingReason]
    NOT_SERVING_REASON_STALLED: _ClassVar[NotServingReason]
    NOT_SERVING_REASON_BREAKER: _ClassVar[NotServingReason]
    NOT_SERVING_REASON_DRAINING: _ClassVar[NotServingReason]

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_ATTACHED: _ClassVar[SessionState]
    SESSION_STATE_SEGMENT: _ClassVar[SessionState]
    SESSION_STATE_LOST: _ClassVar[SessionState]

class RingKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RING_KIND_UNSPECIFIED: _ClassVar[RingKind]
    RING_KIND_TICKS: _ClassVar[RingKind]
    RING_KIND_PREDICTIONS: _ClassVar[RingKind]
    RING_KIND_CONTROL: _ClassVar[RingKind]
NOT_SERVING_REASON_UNSPECIFIED: NotServingReason
NOT_SERVING_REASON_STARTING: NotServingReason
NOT_SERVING_REASON_STALLED: NotServingReason
NOT_SERVING_REASON_BREAKER: NotServingReason
NOT_SERVING_REASON_DRAINING: NotServingReason
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_ATTACHED: SessionState
SESSION_STATE_SEGMENT: SessionState
SESSION_STATE_LOST: SessionState
RING_KIND_UNSPECIFIED: RingKind
RING_KIND_TICKS: RingKind
RING_KIND_PREDICTIONS: RingKind
RING_KIND_CONTROL: RingKind

class DescribeDaemonRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeDaemonResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: DaemonSnapshot
    def __init__(self, snapshot: _Optional[_Union[DaemonSnapshot, _Mapping]] = ...) -> None: ...

class WatchDaemonRequest(_message.Message):
    __slots__ = ("interval_ns",)
    INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    interval_ns: int
    def __init__(self, interval_ns: _Optional[int] = ...) -> None: ...

class WatchDaemonResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: DaemonSnapshot
    def __init__(self, snapshot: _Optional[_Union[DaemonSnapshot, _Mapping]] = ...) -> None: ...

class DaemonSnapshot(_message.Message):
    __slots__ = ("taken_ns", "identity", "serving", "reasons", "model", "sessions", "sessions_max", "sessions_opened", "sessions_resumed", "states", "states_max", "rings", "engine", "budget", "clocks", "self_watch", "feed", "device")
    TAKEN_NS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_MAX_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_OPENED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_RESUMED_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STATES_MAX_FIELD_NUMBER: _ClassVar[int]
    RINGS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    SELF_WATCH_FIELD_NUMBER: _ClassVar[int]
    FEED_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    taken_ns: int
    identity: DaemonIdentity
    serving: bool
    reasons: _containers.RepeatedScalarFieldContainer[NotServingReason]
    model: _model_pb2.ModelSummary
    sessions: _containers.RepeatedCompositeFieldContainer[SessionStatus]
    sessions_max: int
    sessions_opened: int
    sessions_resumed: int
    states: int
    states_max: int
    rings: _containers.RepeatedCompositeFieldContainer[RingStatus]
    engine: EngineStatus
    budget: BudgetStatus
    clocks: ClocksStatus
    self_watch: SelfWatchStatus
    feed: FeedStatus
    device: DeviceStatus
    def __init__(self, taken_ns: _Optional[int] = ..., identity: _Optional[_Union[DaemonIdentity, _Mapping]] = ..., serving: bool = ..., reasons: _Optional[_Iterable[_Union[NotServingReason, str]]] = ..., model: _Optional[_Union[_model_pb2.ModelSummary, _Mapping]] = ..., sessions: _Optional[_Iterable[_Union[SessionStatus, _Mapping]]] = ..., sessions_max: _Optional[int] = ..., sessions_opened: _Optional[int] = ..., sessions_resumed: _Optional[int] = ..., states: _Optional[int] = ..., states_max: _Optional[int] = ..., rings: _Optional[_Iterable[_Union[RingStatus, _Mapping]]] = ..., engine: _Optional[_Union[EngineStatus, _Mapping]] = ..., budget: _Optional[_Union[BudgetStatus, _Mapping]] = ..., clocks: _Optional[_Union[ClocksStatus, _Mapping]] = ..., self_watch: _Optional[_Union[SelfWatchStatus, _Mapping]] = ..., feed: _Optional[_Union[FeedStatus, _Mapping]] = ..., device: _Optional[_Union[DeviceStatus, _Mapping]] = ...) -> None: ...

class DaemonIdentity(_message.Message):
    __slots__ = ("version", "daemon_id", "process_id", "uptime_ns", "engine", "device", "device_why")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_NS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_WHY_FIELD_NUMBER: _ClassVar[int]
    version: str
    daemon_id: bytes
    process_id: int
    uptime_ns: int
    engine: str
    device: str
    device_why: str
    def __init__(self, version: _Optional[str] = ..., daemon_id: _Optional[bytes] = ..., process_id: _Optional[int] = ..., uptime_ns: _Optional[int] = ..., engine: _Optional[str] = ..., device: _Optional[str] = ..., device_why: _Optional[str] = ...) -> None: ...

class SessionStatus(_message.Message):
    __slots__ = ("session_id", "client_name", "path", "pace", "model", "state", "instruments", "ticks", "unanswered", "refused", "online_readout", "silent_ns")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ONLINE_READOUT_FIELD_NUMBER: _ClassVar[int]
    SILENT_NS_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    client_name: str
    path: _latency_pb2.Path
    pace: _prediction_pb2.Pace
    model: str
    state: SessionState
    instruments: int
    ticks: int
    unanswered: int
    refused: int
    online_readout: bool
    silent_ns: int
    def __init__(self, session_id: _Optional[int] = ..., client_name: _Optional[str] = ..., path: _Optional[_Union[_latency_pb2.Path, str]] = ..., pace: _Optional[_Union[_prediction_pb2.Pace, str]] = ..., model: _Optional[str] = ..., state: _Optional[_Union[SessionState, str]] = ..., instruments: _Optional[int] = ..., ticks: _Optional[int] = ..., unanswered: _Optional[int] = ..., refused: _Optional[int] = ..., online_readout: bool = ..., silent_ns: _Optional[int] = ...) -> None: ...

class RingStatus(_message.Message):
    __slots__ = ("kind", "session_id", "path", "used", "slots", "high_water")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    HIGH_WATER_FIELD_NUMBER: _ClassVar[int]
    kind: RingKind
    session_id: int
    path: _latency_pb2.Path
    used: int
    slots: int
    high_water: int
    def __init__(self, kind: _Optional[_Union[RingKind, str]] = ..., session_id: _Optional[int] = ..., path: _Optional[_Union[_latency_pb2.Path, str]] = ..., used: _Optional[int] = ..., slots: _Optional[int] = ..., high_water: _Optional[int] = ...) -> None: ...

class EngineStatus(_message.Message):
    __slots__ = ("busy_share", "busy_ns", "passes", "sleeps", "ticks", "predictions", "assisted", "stalls", "cpus")
    BUSY_SHARE_FIELD_NUMBER: _ClassVar[int]
    BUSY_NS_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    SLEEPS_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ASSISTED_FIELD_NUMBER: _ClassVar[int]
    STALLS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    busy_share: float
    busy_ns: int
    passes: int
    sleeps: int
    ticks: int
    predictions: int
    assisted: int
    stalls: int
    cpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, busy_share: _Optional[float] = ..., busy_ns: _Optional[int] = ..., passes: _Optional[int] = ..., sleeps: _Optional[int] = ..., ticks: _Optional[int] = ..., predictions: _Optional[int] = ..., assisted: _Optional[int] = ..., stalls: _Optional[int] = ..., cpus: _Optional[_Iterable[int]] = ...) -> None: ...

class BudgetStatus(_message.Message):
    __slots__ = ("breaker_open", "breaker_openings", "late", "stale", "old_ticks", "skipped")
    BREAKER_OPEN_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OPENINGS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    OLD_TICKS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    breaker_open: bool
    breaker_openings: int
    late: int
    stale: int
    old_ticks: int
    skipped: int
    def __init__(self, breaker_open: bool = ..., breaker_openings: _Optional[int] = ..., late: _Optional[int] = ..., stale: _Optional[int] = ..., old_ticks: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class ClocksStatus(_message.Message):
    __slots__ = ("stamps", "stamps_why", "tsc_hertz", "tsc_drift_ppb", "synchronised", "maximum_error_ns", "steps", "last_step_ns", "sync_losses", "offsets", "ptp", "ptp_failures", "sources")
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_WHY_FIELD_NUMBER: _ClassVar[int]
    TSC_HERTZ_FIELD_NUMBER: _ClassVar[int]
    TSC_DRIFT_PPB_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONISED_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_ERROR_NS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_NS_FIELD_NUMBER: _ClassVar[int]
    SYNC_LOSSES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    PTP_FIELD_NUMBER: _ClassVar[int]
    PTP_FAILURES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    stamps: str
    stamps_why: str
    tsc_hertz: float
    tsc_drift_ppb: int
    synchronised: bool
    maximum_error_ns: int
    steps: int
    last_step_ns: int
    sync_losses: int
    offsets: _containers.RepeatedCompositeFieldContainer[ClockOffset]
    ptp: str
    ptp_failures: int
    sources: _containers.RepeatedCompositeFieldContainer[ClockSource]
    def __init__(self, stamps: _Optional[str] = ..., stamps_why: _Optional[str] = ..., tsc_hertz: _Optional[float] = ..., tsc_drift_ppb: _Optional[int] = ..., synchronised: bool = ..., maximum_error_ns: _Optional[int] = ..., steps: _Optional[int] = ..., last_step_ns: _Optional[int] = ..., sync_losses: _Optional[int] = ..., offsets: _Optional[_Iterable[_Union[ClockOffset, _Mapping]]] = ..., ptp: _Optional[str] = ..., ptp_failures: _Optional[int] = ..., sources: _Optional[_Iterable[_Union[ClockSource, _Mapping]]] = ...) -> None: ...

class ClockSource(_message.Message):
    __slots__ = ("name", "epoch", "synchronised", "error_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONISED_FIELD_NUMBER: _ClassVar[int]
    ERROR_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    epoch: str
    synchronised: bool
    error_ns: int
    def __init__(self, name: _Optional[str] = ..., epoch: _Optional[str] = ..., synchronised: bool = ..., error_ns: _Optional[int] = ...) -> None: ...

class ClockOffset(_message.Message):
    __slots__ = ("of", "against", "offset_ns", "error_ns")
    OF_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_NS_FIELD_NUMBER: _ClassVar[int]
    of: str
    against: str
    offset_ns: int
    error_ns: int
    def __init__(self, of: _Optional[str] = ..., against: _Optional[str] = ..., offset_ns: _Optional[int] = ..., error_ns: _Optional[int] = ...) -> None: ...

class SelfWatchStatus(_message.Message):
    __slots__ = ("voluntary_switches", "involuntary_switches", "minor_faults", "major_faults", "throttled_periods", "throttled_ns", "heat_events", "threads_watched", "intruders", "collector_runs", "collector_longest_ns")
    VOLUNTARY_SWITCHES_FIELD_NUMBER: _ClassVar[int]
    INVOLUNTARY_SWITCHES_FIELD_NUMBER: _ClassVar[int]
    MINOR_FAULTS_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FAULTS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_PERIODS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_NS_FIELD_NUMBER: _ClassVar[int]
    HEAT_EVENTS_FIELD_NUMBER: _ClassVar[int]
    THREADS_WATCHED_FIELD_NUMBER: _ClassVar[int]
    INTRUDERS_FIELD_NUMBER: _ClassVar[int]
    COLLECTOR_RUNS_FIELD_NUMBER: _ClassVar[int]
    COLLECTOR_LONGEST_NS_FIELD_NUMBER: _ClassVar[int]
    voluntary_switches: int
    involuntary_switches: int
    minor_faults: int
    major_faults: int
    throttled_periods: int
    throttled_ns: int
    heat_events: int
    threads_watched: bool
    intruders: _containers.RepeatedCompositeFieldContainer[IntruderThread]
    collector_runs: int
    collector_longest_ns: int
    def __init__(self, voluntary_switches: _Optional[int] = ..., involuntary_switches: _Optional[int] = ..., minor_faults: _Optional[int] = ..., major_faults: _Optional[int] = ..., throttled_periods: _Optional[int] = ..., throttled_ns: _Optional[int] = ..., heat_events: _Optional[int] = ..., threads_watched: bool = ..., intruders: _Optional[_Iterable[_Union[IntruderThread, _Mapping]]] = ..., collector_runs: _Optional[int] = ..., collector_longest_ns: _Optional[int] = ...) -> None: ...

class IntruderThread(_message.Message):
    __slots__ = ("name", "kind", "process_id", "thread_id", "ran_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    RAN_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    process_id: int
    thread_id: int
    ran_ns: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., process_id: _Optional[int] = ..., thread_id: _Optional[int] = ..., ran_ns: _Optional[int] = ...) -> None: ...

class FeedStatus(_message.Message):
    __slots__ = ("name", "alive", "session", "ended", "lines", "duplicates", "malformed", "applied", "refused", "lost", "gaps", "gaps_unrecovered", "gap_open", "held", "ticks", "ring_drops", "instruments", "sound", "subscribers", "delivered", "fell_behind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    GAPS_UNRECOVERED_FIELD_NUMBER: _ClassVar[int]
    GAP_OPEN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    RING_DROPS_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    SOUND_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    FELL_BEHIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    alive: bool
    session: str
    ended: bool
    lines: _containers.RepeatedCompositeFieldContainer[FeedLine]
    duplicates: int
    malformed: int
    applied: int
    refused: int
    lost: int
    gaps: int
    gaps_unrecovered: int
    gap_open: bool
    held: int
    ticks: int
    ring_drops: int
    instruments: int
    sound: int
    subscribers: int
    delivered: int
    fell_behind: int
    def __init__(self, name: _Optional[str] = ..., alive: bool = ..., session: _Optional[str] = ..., ended: bool = ..., lines: _Optional[_Iterable[_Union[FeedLine, _Mapping]]] = ..., duplicates: _Optional[int] = ..., malformed: _Optional[int] = ..., applied: _Optional[int] = ..., refused: _Optional[int] = ..., lost: _Optional[int] = ..., gaps: _Optional[int] = ..., gaps_unrecovered: _Optional[int] = ..., gap_open: bool = ..., held: _Optional[int] = ..., ticks: _Optional[int] = ..., ring_drops: _Optional[int] = ..., instruments: _Optional[int] = ..., sound: _Optional[int] = ..., subscribers: _Optional[int] = ..., delivered: _Optional[int] = ..., fell_behind: _Optional[int] = ...) -> None: ...

class FeedLine(_message.Message):
    __slots__ = ("name", "packets", "socket_drops")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_DROPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    packets: int
    socket_drops: int
    def __init__(self, name: _Optional[str] = ..., packets: _Optional[int] = ..., socket_drops: _Optional[int] = ...) -> None: ...

class DeviceStatus(_message.Message):
    __slots__ = ("name", "degraded", "mode", "launches", "ticks", "driver", "temperature_celsius", "sm_clock_hertz", "memory_clock_hertz", "power_watts", "memory_used_bytes", "memory_total_bytes", "slow_reasons", "predictions_per_joule")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAUNCHES_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    SM_CLOCK_HERTZ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_CLOCK_HERTZ_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOW_REASONS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_PER_JOULE_FIELD_NUMBER: _ClassVar[int]
    name: str
    degraded: bool
    mode: str
    launches: int
    ticks: int
    driver: str
    temperature_celsius: float
    sm_clock_hertz: float
    memory_clock_hertz: float
    power_watts: float
    memory_used_bytes: int
    memory_total_bytes: int
    slow_reasons: _containers.RepeatedScalarFieldContainer[str]
    predictions_per_joule: float
    def __init__(self, name: _Optional[str] = ..., degraded: bool = ..., mode: _Optional[str] = ..., launches: _Optional[int] = ..., ticks: _Optional[int] = ..., driver: _Optional[str] = ..., temperature_celsius: _Optional[float] = ..., sm_clock_hertz: _Optional[float] = ..., memory_clock_hertz: _Optional[float] = ..., power_watts: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., slow_reasons: _Optional[_Iterable[str]] = ..., predictions_per_joule: _Optional[float] = ...) -> None: ...
