from penstock.v1 import prediction_pb2 as _prediction_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Path(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PATH_UNSPECIFIED: _ClassVar[Path]
    PATH_GRPC: _ClassVar[Path]
    PATH_SHARED_MEMORY: _ClassVar[Path]
    PATH_FEED: _ClassVar[Path]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_RECEIVE: _ClassVar[Stage]
    STAGE_RING: _ClassVar[Stage]
    STAGE_FEATURES: _ClassVar[Stage]
    STAGE_UPLOAD: _ClassVar[Stage]
    STAGE_PREDICT: _ClassVar[Stage]
    STAGE_DOWNLOAD: _ClassVar[Stage]
    STAGE_EGRESS: _ClassVar[Stage]
    STAGE_TOTAL: _ClassVar[Stage]
PATH_UNSPECIFIED: Path
PATH_GRPC: Path
PATH_SHARED_MEMORY: Path
PATH_FEED: Path
STAGE_UNSPECIFIED: Stage
STAGE_RECEIVE: Stage
STAGE_RING: Stage
STAGE_FEATURES: Stage
STAGE_UPLOAD: Stage
STAGE_PREDICT: Stage
STAGE_DOWNLOAD: Stage
STAGE_EGRESS: Stage
STAGE_TOTAL: Stage

class Histogram(_message.Message):
    __slots__ = ("path", "stage", "pace", "buckets", "counts", "sum_ns", "max_ns", "negative")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_NS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    stage: Stage
    pace: _prediction_pb2.Pace
    buckets: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum_ns: int
    max_ns: int
    negative: int
    def __init__(self, path: _Optional[_Union[Path, str]] = ..., stage: _Optional[_Union[Stage, str]] = ..., pace: _Optional[_Union[_prediction_pb2.Pace, str]] = ..., buckets: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., sum_ns: _Optional[int] = ..., max_ns: _Optional[int] = ..., negative: _Optional[int] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("path", "stage", "bound_ns", "exceeded")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BOUND_NS_FIELD_NUMBER: _ClassVar[int]
    EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    path: Path
    stage: Stage
    bound_ns: int
    exceeded: int
    def __init__(self, path: _Optional[_Union[Path, str]] = ..., stage: _Optional[_Union[Stage, str]] = ..., bound_ns: _Optional[int] = ..., exceeded: _Optional[int] = ...) -> None: ...

class GetLatencyRequest(_message.Message):
    __slots__ = ("path", "stage")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    stage: Stage
    def __init__(self, path: _Optional[_Union[Path, str]] = ..., stage: _Optional[_Union[Stage, str]] = ...) -> None: ...

class GetLatencyResponse(_message.Message):
    __slots__ = ("taken_ns", "histograms", "budgets", "since_ns", "breaker_open")
    TAKEN_NS_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OPEN_FIELD_NUMBER: _ClassVar[int]
    taken_ns: int
    histograms: _containers.RepeatedCompositeFieldContainer[Histogram]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    since_ns: int
    breaker_open: bool
    def __init__(self, taken_ns: _Optional[int] = ..., histograms: _Optional[_Iterable[_Union[Histogram, _Mapping]]] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., since_ns: _Optional[int] = ..., breaker_open: bool = ...) -> None: ...

class WatchLatencyRequest(_message.Message):
    __slots__ = ("path", "stage", "interval_ns")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    stage: Stage
    interval_ns: int
    def __init__(self, path: _Optional[_Union[Path, str]] = ..., stage: _Optional[_Union[Stage, str]] = ..., interval_ns: _Optional[int] = ...) -> None: ...

class WatchLatencyResponse(_message.Message):
    __slots__ = ("taken_ns", "histograms", "budgets", "since_ns", "breaker_open")
    TAKEN_NS_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OPEN_FIELD_NUMBER: _ClassVar[int]
    taken_ns: int
    histograms: _containers.RepeatedCompositeFieldContainer[Histogram]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    since_ns: int
    breaker_open: bool
    def __init__(self, taken_ns: _Optional[int] = ..., histograms: _Optional[_Iterable[_Union[Histogram, _Mapping]]] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., since_ns: _Optional[int] = ..., breaker_open: bool = ...) -> None: ...
