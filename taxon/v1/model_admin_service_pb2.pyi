from google.api import field_behavior_pb2 as _field_behavior_pb2
from taxon.v1 import classification_service_pb2 as _classification_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Traffic(_message.Message):
    __slots__ = ("default_version", "labels", "canary", "shadow")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    default_version: str
    labels: _containers.ScalarMap[str, str]
    canary: VersionTrial
    shadow: VersionTrial
    def __init__(self, default_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., canary: _Optional[_Union[VersionTrial, _Mapping]] = ..., shadow: _Optional[_Union[VersionTrial, _Mapping]] = ...) -> None: ...

class VersionTrial(_message.Message):
    __slots__ = ("version", "trial", "bounds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    trial: _classification_service_pb2.TrafficTrial
    bounds: CanaryBounds
    def __init__(self, version: _Optional[str] = ..., trial: _Optional[_Union[_classification_service_pb2.TrafficTrial, _Mapping]] = ..., bounds: _Optional[_Union[CanaryBounds, _Mapping]] = ...) -> None: ...

class CanaryBounds(_message.Message):
    __slots__ = ("window_call_count", "min_call_count", "max_error_increase", "max_nan_increase", "max_latency_ratio")
    WINDOW_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_INCREASE_FIELD_NUMBER: _ClassVar[int]
    MAX_NAN_INCREASE_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_RATIO_FIELD_NUMBER: _ClassVar[int]
    window_call_count: int
    min_call_count: int
    max_error_increase: float
    max_nan_increase: float
    max_latency_ratio: float
    def __init__(self, window_call_count: _Optional[int] = ..., min_call_count: _Optional[int] = ..., max_error_increase: _Optional[float] = ..., max_nan_increase: _Optional[float] = ..., max_latency_ratio: _Optional[float] = ...) -> None: ...

class QuarantinedVersion(_message.Message):
    __slots__ = ("model_name", "model_version", "reason")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    reason: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model_name",)
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    def __init__(self, model_name: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model_versions",)
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    model_versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_versions: _Optional[_Iterable[str]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model_name",)
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    def __init__(self, model_name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTrafficRequest(_message.Message):
    __slots__ = ("model_name",)
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    def __init__(self, model_name: _Optional[str] = ...) -> None: ...

class GetTrafficResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class SetDefaultVersionRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "reason")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    reason: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SetDefaultVersionResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class SetLabelRequest(_message.Message):
    __slots__ = ("model_name", "label", "model_version")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    model_version: str
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class SetLabelResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class DeleteLabelRequest(_message.Message):
    __slots__ = ("model_name", "label")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class DeleteLabelResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class SetCanaryRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "share", "bounds")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    share: float
    bounds: CanaryBounds
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., share: _Optional[float] = ..., bounds: _Optional[_Union[CanaryBounds, _Mapping]] = ...) -> None: ...

class SetCanaryResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class SetShadowRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "share")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    share: float
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class SetShadowResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class ClearTrialsRequest(_message.Message):
    __slots__ = ("model_name", "roles")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    roles: _containers.RepeatedScalarFieldContainer[_classification_service_pb2.TrafficRole]
    def __init__(self, model_name: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[_classification_service_pb2.TrafficRole, str]]] = ...) -> None: ...

class ClearTrialsResponse(_message.Message):
    __slots__ = ("traffic",)
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    traffic: Traffic
    def __init__(self, traffic: _Optional[_Union[Traffic, _Mapping]] = ...) -> None: ...

class ListQuarantinedVersionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQuarantinedVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[QuarantinedVersion]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[QuarantinedVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
