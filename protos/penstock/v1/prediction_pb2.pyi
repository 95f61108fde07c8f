from penstock.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PACE_UNSPECIFIED: _ClassVar[Pace]
    PACE_REALTIME: _ClassVar[Pace]
    PACE_BULK: _ClassVar[Pace]

class StateOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_ORIGIN_UNSPECIFIED: _ClassVar[StateOrigin]
    STATE_ORIGIN_COLD: _ClassVar[StateOrigin]
    STATE_ORIGIN_RESUMED: _ClassVar[StateOrigin]

class OnlineReadout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ONLINE_READOUT_UNSPECIFIED: _ClassVar[OnlineReadout]
    ONLINE_READOUT_OFF: _ClassVar[OnlineReadout]
    ONLINE_READOUT_COLD: _ClassVar[OnlineReadout]
    ONLINE_READOUT_LEARNED: _ClassVar[OnlineReadout]

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_PREDICT: _ClassVar[Purpose]
    PURPOSE_REBUILD: _ClassVar[Purpose]
PACE_UNSPECIFIED: Pace
PACE_REALTIME: Pace
PACE_BULK: Pace
STATE_ORIGIN_UNSPECIFIED: StateOrigin
STATE_ORIGIN_COLD: StateOrigin
STATE_ORIGIN_RESUMED: StateOrigin
ONLINE_READOUT_UNSPECIFIED: OnlineReadout
ONLINE_READOUT_OFF: OnlineReadout
ONLINE_READOUT_COLD: OnlineReadout
ONLINE_READOUT_LEARNED: OnlineReadout
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_PREDICT: Purpose
PURPOSE_REBUILD: Purpose

class StreamPredictionsRequest(_message.Message):
    __slots__ = ("hello", "ticks", "heartbeat", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ticks: TickBatch
    heartbeat: Heartbeat
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ticks: _Optional[_Union[TickBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class StreamPredictionsResponse(_message.Message):
    __slots__ = ("welcome", "predictions", "heartbeat", "goodbye", "rebuild_progress")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    REBUILD_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    predictions: PredictionBatch
    heartbeat: Heartbeat
    goodbye: Goodbye
    rebuild_progress: RebuildProgress
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., predictions: _Optional[_Union[PredictionBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., rebuild_progress: _Optional[_Union[RebuildProgress, _Mapping]] = ...) -> None: ...

class Instrument(_message.Message):
    __slots__ = ("instrument_id", "dataset", "symbol", "size_scale")
    INSTRUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    instrument_id: int
    dataset: str
    symbol: str
    size_scale: int
    def __init__(self, instrument_id: _Optional[int] = ..., dataset: _Optional[str] = ..., symbol: _Optional[str] = ..., size_scale: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "client_name", "model", "instruments", "pace", "resume_token", "first_sequence", "next_prediction_sequence", "online_readout", "shared_memory")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NEXT_PREDICTION_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ONLINE_READOUT_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client_name: str
    model: str
    instruments: _containers.RepeatedCompositeFieldContainer[Instrument]
    pace: Pace
    resume_token: bytes
    first_sequence: int
    next_prediction_sequence: int
    online_readout: bool
    shared_memory: bool
    def __init__(self, protocol_version: _Optional[int] = ..., client_name: _Optional[str] = ..., model: _Optional[str] = ..., instruments: _Optional[_Iterable[_Union[Instrument, _Mapping]]] = ..., pace: _Optional[_Union[Pace, str]] = ..., resume_token: _Optional[bytes] = ..., first_sequence: _Optional[int] = ..., next_prediction_sequence: _Optional[int] = ..., online_readout: bool = ..., shared_memory: bool = ...) -> None: ...

class Horizon(_message.Message):
    __slots__ = ("name", "kind", "events", "duration_ns")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Horizon.Kind]
        KIND_NEXT_MOVE: _ClassVar[Horizon.Kind]
        KIND_EVENTS: _ClassVar[Horizon.Kind]
        KIND_TIME: _ClassVar[Horizon.Kind]
    KIND_UNSPECIFIED: Horizon.Kind
    KIND_NEXT_MOVE: Horizon.Kind
    KIND_EVENTS: Horizon.Kind
    KIND_TIME: Horizon.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Horizon.Kind
    events: int
    duration_ns: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Horizon.Kind, str]] = ..., events: _Optional[int] = ..., duration_ns: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session_id", "instruments", "model", "horizons", "budget_ns", "in_flight_max", "rebuild_ticks", "state_origin", "resume_token", "next_sequence", "resume_grace_ns", "heartbeat_interval_ns", "daemon_version", "daemon_id", "online_readout", "shared_memory")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HORIZONS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_NS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_MAX_FIELD_NUMBER: _ClassVar[int]
    REBUILD_TICKS_FIELD_NUMBER: _ClassVar[int]
    STATE_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_GRACE_NS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    DAEMON_VERSION_FIELD_NUMBER: _ClassVar[int]
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    ONLINE_READOUT_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    instruments: _containers.RepeatedCompositeFieldContainer[Instrument]
    model: _model_pb2.ModelSummary
    horizons: _containers.RepeatedCompositeFieldContainer[Horizon]
    budget_ns: int
    in_flight_max: int
    rebuild_ticks: int
    state_origin: StateOrigin
    resume_token: bytes
    next_sequence: int
    resume_grace_ns: int
    heartbeat_interval_ns: int
    daemon_version: str
    daemon_id: bytes
    online_readout: OnlineReadout
    shared_memory: SharedMemory
    def __init__(self, session_id: _Optional[int] = ..., instruments: _Optional[_Iterable[_Union[Instrument, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelSummary, _Mapping]] = ..., horizons: _Optional[_Iterable[_Union[Horizon, _Mapping]]] = ..., budget_ns: _Optional[int] = ..., in_flight_max: _Optional[int] = ..., rebuild_ticks: _Optional[int] = ..., state_origin: _Optional[_Union[StateOrigin, str]] = ..., resume_token: _Optional[bytes] = ..., next_sequence: _Optional[int] = ..., resume_grace_ns: _Optional[int] = ..., heartbeat_interval_ns: _Optional[int] = ..., daemon_version: _Optional[str] = ..., daemon_id: _Optional[bytes] = ..., online_readout: _Optional[_Union[OnlineReadout, str]] = ..., shared_memory: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("address", "token", "slots", "layout_version")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_VERSION_FIELD_NUMBER: _ClassVar[int]
    address: str
    token: bytes
    slots: int
    layout_version: int
    def __init__(self, address: _Optional[str] = ..., token: _Optional[bytes] = ..., slots: _Optional[int] = ..., layout_version: _Optional[int] = ...) -> None: ...

class TickBatch(_message.Message):
    __slots__ = ("first_sequence", "records", "purpose")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    records: bytes
    purpose: Purpose
    def __init__(self, first_sequence: _Optional[int] = ..., records: _Optional[bytes] = ..., purpose: _Optional[_Union[Purpose, str]] = ...) -> None: ...

class PredictionBatch(_message.Message):
    __slots__ = ("records", "errors", "sent_ns")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    records: bytes
    errors: _containers.RepeatedCompositeFieldContainer[TickError]
    sent_ns: int
    def __init__(self, records: _Optional[bytes] = ..., errors: _Optional[_Iterable[_Union[TickError, _Mapping]]] = ..., sent_ns: _Optional[int] = ...) -> None: ...

class TickError(_message.Message):
    __slots__ = ("sequence", "reason", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[TickError.Reason]
        REASON_UNKNOWN_INSTRUMENT: _ClassVar[TickError.Reason]
        REASON_TIME_OUT_OF_RANGE: _ClassVar[TickError.Reason]
    REASON_UNSPECIFIED: TickError.Reason
    REASON_UNKNOWN_INSTRUMENT: TickError.Reason
    REASON_TIME_OUT_OF_RANGE: TickError.Reason
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: TickError.Reason
    message: str
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[_Union[TickError.Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class RebuildProgress(_message.Message):
    __slots__ = ("ticks",)
    TICKS_FIELD_NUMBER: _ClassVar[int]
    ticks: int
    def __init__(self, ticks: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sent_ns",)
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    sent_ns: int
    def __init__(self, sent_ns: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "resume_token", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Goodbye.Reason]
        REASON_DONE: _ClassVar[Goodbye.Reason]
        REASON_DRAINING: _ClassVar[Goodbye.Reason]
    REASON_UNSPECIFIED: Goodbye.Reason
    REASON_DONE: Goodbye.Reason
    REASON_DRAINING: Goodbye.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: Goodbye.Reason
    resume_token: bytes
    message: str
    def __init__(self, reason: _Optional[_Union[Goodbye.Reason, str]] = ..., resume_token: _Optional[bytes] = ..., message: _Optional[str] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("feed", "symbols")
    FEED_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    feed: str
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, feed: _Optional[str] = ..., symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("subscribed", "predictions", "heartbeat", "goodbye")
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    subscribed: Subscribed
    predictions: PredictionBatch
    heartbeat: Heartbeat
    goodbye: Goodbye
    def __init__(self, subscribed: _Optional[_Union[Subscribed, _Mapping]] = ..., predictions: _Optional[_Union[PredictionBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class Subscribed(_message.Message):
    __slots__ = ("feed", "instruments", "model", "horizons", "budget_ns", "heartbeat_interval_ns")
    FEED_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HORIZONS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_NS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    feed: str
    instruments: _containers.RepeatedCompositeFieldContainer[Instrument]
    model: _model_pb2.ModelSummary
    horizons: _containers.RepeatedCompositeFieldContainer[Horizon]
    budget_ns: int
    heartbeat_interval_ns: int
    def __init__(self, feed: _Optional[str] = ..., instruments: _Optional[_Iterable[_Union[Instrument, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelSummary, _Mapping]] = ..., horizons: _Optional[_Iterable[_Union[Horizon, _Mapping]]] = ..., budget_ns: _Optional[int] = ..., heartbeat_interval_ns: _Optional[int] = ...) -> None: ...
