"""The one table from exceptions to what a caller sees: code, reason, details.

Every status carries exactly one `google.rpc.ErrorInfo` of the domain `taxon`. What is not in the table is
logged in full and answered with a neutral text, because an exception's own text may hold secrets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from taxon.bundle.manifest import BundleError
from taxon.bundle.picture_limits import PictureTooLargeError, PictureUndecodableError
from taxon.service.errors import (
    AnswerNotFoundError,
    CallerLimitError,
    ContributorLimitError,
    DeadlineTooShortError,
    FeedbackStoreFullError,
    FieldInvalidError,
    InferenceFailedError,
    ModelNotFoundError,
    ModelRefusedError,
    NotAllowedError,
    NotServingError,
    QueueFullError,
    RepositoryUnusableError,
    UnauthenticatedError,
    UnsupportedError,
)

DOMAIN = "taxon"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
CODES = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one exception adds to its status."""

    metadata: dict[str, str] = field(default_factory=dict)
    """The changing parts of the message, units in the keys."""
    details: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of exceptions reaches the caller."""

    code: grpc.StatusCode
    reason: str
    """A value of `taxon.v1.ErrorReason` without its prefix."""
    facts: Callable[[Any], Facts]


def _bad_request(path: str, description: str, reason: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=description, reason=reason)
    return error_details_pb2.BadRequest(field_violations=[violation])


def _retry(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(round(seconds * 1e3))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _field_invalid(error: FieldInvalidError) -> Facts:
    return Facts({}, (_bad_request(error.field, error.description, "FIELD_INVALID"),))


def _undecodable(error: PictureUndecodableError) -> Facts:
    return Facts({"detectedFormat": error.detected_format}, (_bad_request("image", str(error), "IMAGE_UNDECODABLE"),))


def _too_large(error: PictureTooLargeError) -> Facts:
    metadata = {"byteCount": str(error.byte_count), "maxByteCount": str(error.limits.max_bytes)}
    if error.pixel_count is not None:
        metadata |= {"pixelCount": str(error.pixel_count), "maxPixelCount": str(error.limits.max_pixels)}
    return Facts(metadata, (_bad_request("image", str(error), "IMAGE_TOO_LARGE"),))


def _model_not_found(error: ModelNotFoundError) -> Facts:
    name = f"{error.name}/{error.version}" if error.version else error.name
    return Facts({}, (error_details_pb2.ResourceInfo(resource_type="taxon.v1.Model", resource_name=name),))


def _answer_not_found(error: AnswerNotFoundError) -> Facts:
    return Facts({}, (error_details_pb2.ResourceInfo(resource_type="taxon.v1.Answer", resource_name=error.request_id),))


def _queue_full(error: QueueFullError) -> Facts:
    metadata = {
        "queuedRequestCount": str(error.queued_count),
        "maxQueuedRequestCount": str(error.max_queued_count),
    }
    return Facts(metadata, (_retry(error.retry_s),))


def _not_serving(error: NotServingError) -> Facts:
    return Facts({}, (_retry(error.retry_s),))


def _deadline(error: DeadlineTooShortError) -> Facts:
    return Facts(
        {
            "remainingMilliseconds": str(round(error.remaining_s * 1e3)),
            "predictedMilliseconds": str(round(error.predicted_s * 1e3)),
        }
    )


def _not_allowed(error: NotAllowedError) -> Facts:
    return Facts({"group": error.group})


def _caller_limit(error: CallerLimitError) -> Facts:
    return Facts({**error.facts}, (_retry(error.retry_s),))


def _nothing(_: Exception) -> Facts:
    return Facts()


TABLE: Mapping[type[Exception], Row] = {
    FieldInvalidError: Row(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", _field_invalid),
    PictureUndecodableError: Row(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", _undecodable),
    PictureTooLargeError: Row(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE", _too_large),
    ModelNotFoundError: Row(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", _model_not_found),
    QueueFullError: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", _queue_full),
    NotServingError: Row(grpc.StatusCode.UNAVAILABLE, "NOT_SERVING", _not_serving),
    InferenceFailedError: Row(grpc.StatusCode.INTERNAL, "INFERENCE_FAILED", _nothing),
    DeadlineTooShortError: Row(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", _deadline),
    UnsupportedError: Row(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED", _nothing),
    ModelRefusedError: Row(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_REFUSED", _nothing),
    RepositoryUnusableError: Row(grpc.StatusCode.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE", _nothing),
    UnauthenticatedError: Row(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", _nothing),
    NotAllowedError: Row(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", _not_allowed),
    CallerLimitError: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLER_LIMIT_EXCEEDED", _caller_limit),
    AnswerNotFoundError: Row(grpc.StatusCode.NOT_FOUND, "ANSWER_NOT_FOUND", _answer_not_found),
    ContributorLimitError: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "CONTRIBUTOR_LIMIT_EXCEEDED", _caller_limit),
    FeedbackStoreFullError: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "FEEDBACK_STORE_FULL", _nothing),
    # A bundle that turns out bad while it answers is the operator's affair; the caller may try a replica.
    BundleError: Row(grpc.StatusCode.UNAVAILABLE, "NOT_SERVING", lambda _: Facts({}, (_retry(1.0),))),
}


def _row(error: Exception) -> Row | None:
    return next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)


def reason_of(error: Exception) -> str:
    """The reason that the caller is given, for metrics."""
    row = _row(error)
    return "INTERNAL" if row is None else row.reason


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """The status that tells a caller of `error`. The log has it by the same id: in full if it was not foreseen, at
    level debug if the caller or the load is why.
    """
    row = _row(error)
    if row is None:
        log.error("call failed unforeseen", request_id=request_id, exc_info=error)
        return _pack(grpc.StatusCode.INTERNAL, "internal error", "INTERNAL", Facts(), request_id)
    if request_id:
        tell = log.warning if row.code is grpc.StatusCode.INTERNAL else log.debug
        tell("call failed", request_id=request_id, reason=row.reason, message=str(error))
    return _pack(row.code, str(error), row.reason, row.facts(error), request_id)


def _pack(code: grpc.StatusCode, message: str, reason: str, facts: Facts, request_id: str) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts.metadata)
    for detail in (info, *facts.details):
        status.details.add().Pack(detail)
    if request_id:  # what is refused by the hundred has none
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status


Packed = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]
"""What ends a call: code, message, trailers."""


def packed(status: status_pb2.Status) -> Packed:
    """A status as gRPC sends it. A `RetryInfo` is repeated as the trailer that gRPC clients obey themselves."""
    whole = rpc_status.to_status(status)
    trailers = list(whole.trailing_metadata)
    retry = error_details_pb2.RetryInfo()
    trailers.extend(
        (PUSHBACK_KEY, str(retry.retry_delay.ToMilliseconds())) for detail in status.details if detail.Unpack(retry)
    )
    return whole.code, whole.details, tuple(trailers)


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> NoReturn:
    """Ends a call with `status`."""
    await context.abort(*packed(status))
