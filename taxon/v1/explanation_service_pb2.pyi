from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplanationMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLANATION_METHOD_UNSPECIFIED: _ClassVar[ExplanationMethod]
    EXPLANATION_METHOD_ACTIVATION: _ClassVar[ExplanationMethod]
    EXPLANATION_METHOD_MASKING: _ClassVar[ExplanationMethod]
EXPLANATION_METHOD_UNSPECIFIED: ExplanationMethod
EXPLANATION_METHOD_ACTIVATION: ExplanationMethod
EXPLANATION_METHOD_MASKING: ExplanationMethod

class ExplainRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "image", "label", "method", "include_overlay", "max_neighbors")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_OVERLAY_FIELD_NUMBER: _ClassVar[int]
    MAX_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    image: bytes
    label: str
    method: ExplanationMethod
    include_overlay: bool
    max_neighbors: int
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., image: _Optional[bytes] = ..., label: _Optional[str] = ..., method: _Optional[_Union[ExplanationMethod, str]] = ..., include_overlay: bool = ..., max_neighbors: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "variant", "label", "class_index", "score", "method", "map", "overlay_png", "run_count", "request_id", "neighbors")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    RUN_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    variant: str
    label: str
    class_index: int
    score: float
    method: ExplanationMethod
    map: ExplanationMap
    overlay_png: bytes
    run_count: int
    request_id: str
    neighbors: _containers.RepeatedCompositeFieldContainer[Neighbor]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., variant: _Optional[str] = ..., label: _Optional[str] = ..., class_index: _Optional[int] = ..., score: _Optional[float] = ..., method: _Optional[_Union[ExplanationMethod, str]] = ..., map: _Optional[_Union[ExplanationMap, _Mapping]] = ..., overlay_png: _Optional[bytes] = ..., run_count: _Optional[int] = ..., request_id: _Optional[str] = ..., neighbors: _Optional[_Iterable[_Union[Neighbor, _Mapping]]] = ...) -> None: ...

class Neighbor(_message.Message):
    __slots__ = ("thumbnail", "labels", "similarity")
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    thumbnail: bytes
    labels: _containers.RepeatedScalarFieldContainer[str]
    similarity: float
    def __init__(self, thumbnail: _Optional[bytes] = ..., labels: _Optional[_Iterable[str]] = ..., similarity: _Optional[float] = ...) -> None: ...

class ExplanationMap(_message.Message):
    __slots__ = ("row_count", "column_count", "values")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMN_COUNT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    column_count: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, row_count: _Optional[int] = ..., column_count: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...
