import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrafficRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAFFIC_ROLE_UNSPECIFIED: _ClassVar[TrafficRole]
    TRAFFIC_ROLE_CANARY: _ClassVar[TrafficRole]
    TRAFFIC_ROLE_SHADOW: _ClassVar[TrafficRole]

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_SINGLE_LABEL: _ClassVar[Task]
    TASK_MULTI_LABEL: _ClassVar[Task]

class UnknownMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN_MEASURE_UNSPECIFIED: _ClassVar[UnknownMeasure]
    UNKNOWN_MEASURE_SCORE: _ClassVar[UnknownMeasure]
    UNKNOWN_MEASURE_FAMILIARITY: _ClassVar[UnknownMeasure]

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_FIELD_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_IMAGE_UNDECODABLE: _ClassVar[ErrorReason]
    ERROR_REASON_IMAGE_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_QUEUE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_SERVING: _ClassVar[ErrorReason]
    ERROR_REASON_INFERENCE_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_TOO_SHORT: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_UNSUPPORTED: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_REPOSITORY_UNUSABLE: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_CALLER_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_ANSWER_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_CONTRIBUTOR_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_FEEDBACK_STORE_FULL: _ClassVar[ErrorReason]
TRAFFIC_ROLE_UNSPECIFIED: TrafficRole
TRAFFIC_ROLE_CANARY: TrafficRole
TRAFFIC_ROLE_SHADOW: TrafficRole
TASK_UNSPECIFIED: Task
TASK_SINGLE_LABEL: Task
TASK_MULTI_LABEL: Task
UNKNOWN_MEASURE_UNSPECIFIED: UnknownMeasure
UNKNOWN_MEASURE_SCORE: UnknownMeasure
UNKNOWN_MEASURE_FAMILIARITY: UnknownMeasure
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_FIELD_INVALID: ErrorReason
ERROR_REASON_IMAGE_UNDECODABLE: ErrorReason
ERROR_REASON_IMAGE_TOO_LARGE: ErrorReason
ERROR_REASON_MODEL_NOT_FOUND: ErrorReason
ERROR_REASON_QUEUE_FULL: ErrorReason
ERROR_REASON_NOT_SERVING: ErrorReason
ERROR_REASON_INFERENCE_FAILED: ErrorReason
ERROR_REASON_DEADLINE_TOO_SHORT: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_UNSUPPORTED: ErrorReason
ERROR_REASON_MODEL_REFUSED: ErrorReason
ERROR_REASON_REPOSITORY_UNUSABLE: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
ERROR_REASON_CALLER_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_ANSWER_NOT_FOUND: ErrorReason
ERROR_REASON_CONTRIBUTOR_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_FEEDBACK_STORE_FULL: ErrorReason

class Model(_message.Message):
    __slots__ = ("name", "version", "default_version", "task", "labels", "input", "variant", "execution_provider", "unknown_threshold", "metrics", "variant_trials", "unknown_measure", "traffic_trial", "thumbnail_count")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    VARIANT_TRIALS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MEASURE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_TRIAL_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    default_version: bool
    task: Task
    labels: _containers.RepeatedScalarFieldContainer[str]
    input: ModelInput
    variant: str
    execution_provider: str
    unknown_threshold: float
    metrics: _containers.ScalarMap[str, float]
    variant_trials: _containers.RepeatedCompositeFieldContainer[VariantTrial]
    unknown_measure: UnknownMeasure
    traffic_trial: TrafficTrial
    thumbnail_count: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., default_version: bool = ..., task: _Optional[_Union[Task, str]] = ..., labels: _Optional[_Iterable[str]] = ..., input: _Optional[_Union[ModelInput, _Mapping]] = ..., variant: _Optional[str] = ..., execution_provider: _Optional[str] = ..., unknown_threshold: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., variant_trials: _Optional[_Iterable[_Union[VariantTrial, _Mapping]]] = ..., unknown_measure: _Optional[_Union[UnknownMeasure, str]] = ..., traffic_trial: _Optional[_Union[TrafficTrial, _Mapping]] = ..., thumbnail_count: _Optional[int] = ...) -> None: ...

class TrafficTrial(_message.Message):
    __slots__ = ("role", "share", "reason")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    role: TrafficRole
    share: float
    reason: str
    def __init__(self, role: _Optional[_Union[TrafficRole, str]] = ..., share: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class VariantTrial(_message.Message):
    __slots__ = ("variant", "speedup", "reason")
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    SPEEDUP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    variant: str
    speedup: float
    reason: str
    def __init__(self, variant: _Optional[str] = ..., speedup: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("image", "features")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    image: ImageInput
    features: FeaturesInput
    def __init__(self, image: _Optional[_Union[ImageInput, _Mapping]] = ..., features: _Optional[_Union[FeaturesInput, _Mapping]] = ...) -> None: ...

class ImageInput(_message.Message):
    __slots__ = ("height", "width", "channel_count")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channel_count: int
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channel_count: _Optional[int] = ...) -> None: ...

class FeaturesInput(_message.Message):
    __slots__ = ("feature_count", "feature_names")
    FEATURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    feature_count: int
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, feature_count: _Optional[int] = ..., feature_names: _Optional[_Iterable[str]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model_name", "model_version")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "image", "features", "max_results", "min_score", "routing_key", "capture_consent")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_CONSENT_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    image: bytes
    features: Features
    max_results: int
    min_score: float
    routing_key: str
    capture_consent: bool
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., image: _Optional[bytes] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., max_results: _Optional[int] = ..., min_score: _Optional[float] = ..., routing_key: _Optional[str] = ..., capture_consent: bool = ...) -> None: ...

class Features(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classifications", "unknown", "model_name", "model_version", "variant", "timing", "request_id", "familiarity")
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILIARITY_FIELD_NUMBER: _ClassVar[int]
    classifications: _containers.RepeatedCompositeFieldContainer[Classification]
    unknown: bool
    model_name: str
    model_version: str
    variant: str
    timing: ClassifyTiming
    request_id: str
    familiarity: float
    def __init__(self, classifications: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., unknown: bool = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., variant: _Optional[str] = ..., timing: _Optional[_Union[ClassifyTiming, _Mapping]] = ..., request_id: _Optional[str] = ..., familiarity: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("label", "class_index", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    class_index: int
    score: float
    def __init__(self, label: _Optional[str] = ..., class_index: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class ClassifyTiming(_message.Message):
    __slots__ = ("preprocess_duration", "queue_duration", "inference_duration", "total_duration", "batch_size")
    PREPROCESS_DURATION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DURATION_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_DURATION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    preprocess_duration: _duration_pb2.Duration
    queue_duration: _duration_pb2.Duration
    inference_duration: _duration_pb2.Duration
    total_duration: _duration_pb2.Duration
    batch_size: int
    def __init__(self, preprocess_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., inference_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...

class BatchClassifyRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ClassifyRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ClassifyRequest, _Mapping]]] = ...) -> None: ...

class BatchClassifyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchClassifyResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchClassifyResult, _Mapping]]] = ...) -> None: ...

class BatchClassifyResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: ClassifyResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
