"""What a failed call means to a caller: one exception class for each thing to do about it.

Reads the `google.rpc.Status` that the server attaches. See `ErrorReason` in the proto for the reasons.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

STATUS_TRAILER = "grpc-status-details-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class TaxonError(Exception):
    """A call that failed.

    Attributes:
        code: The gRPC status code.
        reason: A value of `ErrorReason` without its prefix, such as `QUEUE_FULL`; empty if the failure
            did not come from the service itself but from the connection.
        message: For people; do not parse it.
        metadata: The changing parts of the message, by name.
        fields: What is wrong with which field of the request.
        retry_after_s: Seconds to wait before the next try, if the server said so.
        request_id: To name in a report, if the server gave one.
    """

    def __init__(self, status: status_pb2.Status) -> None:
        self.code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        self.message = status.message
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.retry_after_s: float | None = None
        self.request_id = ""
        for detail in status.details:
            self._take(detail)
        super().__init__(f"{self.reason or self.code.name}: {self.message}")

    def _take(self, detail: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad_request = error_details_pb2.BadRequest()
        request_info = error_details_pb2.RequestInfo()
        if detail.Unpack(info):
            self.reason, self.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            self.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad_request):
            self.fields = {fault.field: fault.description for fault in bad_request.field_violations}
        elif detail.Unpack(request_info):
            self.request_id = request_info.request_id


class InvalidInputError(TaxonError):
    """The request or the picture is at fault: mend it, do not retry."""


class MessageTooLargeError(InvalidInputError):
    """The request or its answer is larger than a message may be, here or there: no retry will succeed."""


class ModelNotFoundError(TaxonError):
    """No such model or version is loaded."""


class AnswerNotFoundError(TaxonError):
    """Feedback names an answer that the server does not remember: send the picture instead."""


class AccessError(TaxonError):
    """The server does not know who calls, or that caller may not: use another key."""


class OverloadedError(TaxonError):
    """The server has too much to do, or this caller asks too much of it: wait `retry_after_s`, then retry."""


class UnavailableError(TaxonError):
    """No server answered, or it is starting or stopping: retry elsewhere."""


class DeadlineError(TaxonError):
    """The deadline has passed, or too little of it was left to try: allow more time."""


class ServerError(TaxonError):
    """The server is at fault: report `request_id`."""


KINDS: dict[grpc.StatusCode, type[TaxonError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def too_large(byte_count: int, max_byte_count: int) -> MessageTooLargeError:
    """The exception for a request that is not even sent."""
    text = f"the request has {byte_count} bytes, a message may have {max_byte_count}: send a smaller picture, or fewer"
    return MessageTooLargeError(status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=text))


def from_status(status: status_pb2.Status) -> TaxonError:
    """Returns the exception for a status, such as one in `BatchClassifyResult.error`."""
    error = KINDS.get(CODES.get(status.code, grpc.StatusCode.UNKNOWN), ServerError)(status)
    return AnswerNotFoundError(status) if error.reason == "ANSWER_NOT_FOUND" else error


def from_call(error: Any) -> TaxonError:
    """Returns the exception for a failed call of grpc or grpc.aio."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_TRAILER:
            return from_status(status_pb2.Status.FromString(value))
    return without_details(error.code(), error.details() or "")


@contextmanager
def typed() -> Iterator[None]:
    """Within it, a failed call of grpc or grpc.aio raises its `TaxonError`."""
    try:
        yield
    except grpc.RpcError as error:  # grpc.aio's is one too
        raise from_call(error) from error


def without_details(code: grpc.StatusCode, text: str) -> TaxonError:
    """The exception for what did not come from the service: gRPC itself, or something on the way, has failed the call.

    gRPC has one code for an overloaded server and for a message that no server would take; only its text tells.
    """
    status = status_pb2.Status(code=code.value[0], message=text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return MessageTooLargeError(status)
    return from_status(status)
