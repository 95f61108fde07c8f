from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelSummary(_message.Message):
    __slots__ = ("name", "version", "content_hash", "serial", "demonstration", "notice")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    DEMONSTRATION_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    content_hash: bytes
    serial: int
    demonstration: bool
    notice: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., content_hash: _Optional[bytes] = ..., serial: _Optional[int] = ..., demonstration: bool = ..., notice: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "active")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    active: str
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ..., active: _Optional[str] = ...) -> None: ...

class DescribeModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DescribeModelResponse(_message.Message):
    __slots__ = ("model", "units", "topology", "features", "rebuild_ticks", "metadata_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REBUILD_TICKS_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    model: ModelSummary
    units: int
    topology: str
    features: _containers.RepeatedScalarFieldContainer[str]
    rebuild_ticks: int
    metadata_json: str
    def __init__(self, model: _Optional[_Union[ModelSummary, _Mapping]] = ..., units: _Optional[int] = ..., topology: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., rebuild_ticks: _Optional[int] = ..., metadata_json: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: str
    def __init__(self, file: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelSummary
    def __init__(self, model: _Optional[_Union[ModelSummary, _Mapping]] = ...) -> None: ...

class ActivateModelRequest(_message.Message):
    __slots__ = ("name", "open_sessions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPEN_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    open_sessions: bool
    def __init__(self, name: _Optional[str] = ..., open_sessions: bool = ...) -> None: ...

class ActivateModelResponse(_message.Message):
    __slots__ = ("model", "sessions_switched")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_SWITCHED_FIELD_NUMBER: _ClassVar[int]
    model: ModelSummary
    sessions_switched: int
    def __init__(self, model: _Optional[_Union[ModelSummary, _Mapping]] = ..., sessions_switched: _Optional[int] = ...) -> None: ...
