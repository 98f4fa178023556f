from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_UNSPECIFIED: _ClassVar[Consent]
    CONSENT_TRAIN: _ClassVar[Consent]
    CONSENT_SHARE: _ClassVar[Consent]
CONSENT_UNSPECIFIED: Consent
CONSENT_TRAIN: Consent
CONSENT_SHARE: Consent

class SubmitFeedbackRequest(_message.Message):
    __slots__ = ("request_id", "image", "model_name", "model_version", "labels", "none_of_these", "contributor", "consent", "license", "note")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NONE_OF_THESE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTOR_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: bytes
    model_name: str
    model_version: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    none_of_these: bool
    contributor: str
    consent: Consent
    license: str
    note: str
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[bytes] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., none_of_these: bool = ..., contributor: _Optional[str] = ..., consent: _Optional[_Union[Consent, str]] = ..., license: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class SubmitFeedbackResponse(_message.Message):
    __slots__ = ("request_id", "proposed_labels")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_LABELS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    proposed_labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., proposed_labels: _Optional[_Iterable[str]] = ...) -> None: ...
