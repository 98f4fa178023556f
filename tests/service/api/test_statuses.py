"""The table, row by row, as PROTO_STYLE promises it."""

import grpc
import pytest
from structlog.testing import capture_logs

from taxon.bundle.manifest import BundleError
from taxon.bundle.picture_limits import Limits, PictureTooLargeError, PictureUndecodableError
from taxon.service import errors
from taxon.service.api import statuses
from taxon.v1.classification_service_pb2 import ErrorReason

Code = grpc.StatusCode

QUEUE_FULL = errors.QueueFullError("3 inputs wait already", 0.25, queued_count=3, max_queued_count=7)
ROWS = [
    (errors.FieldInvalidError("a", "b"), Code.INVALID_ARGUMENT, "FIELD_INVALID", {}, ["BadRequest"]),
    (
        PictureUndecodableError("x", "PNG"),
        Code.INVALID_ARGUMENT,
        "IMAGE_UNDECODABLE",
        {"detectedFormat": "PNG"},
        ["BadRequest"],
    ),
    (
        PictureTooLargeError(9, Limits(), 60_000_000),
        Code.INVALID_ARGUMENT,
        "IMAGE_TOO_LARGE",
        {"byteCount": "9", "maxByteCount": "8388608", "pixelCount": "60000000", "maxPixelCount": "50000000"},
        ["BadRequest"],
    ),
    (errors.ModelNotFoundError("m", "2"), Code.NOT_FOUND, "MODEL_NOT_FOUND", {}, ["ResourceInfo"]),
    (
        QUEUE_FULL,
        Code.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
        {"queuedRequestCount": "3", "maxQueuedRequestCount": "7"},
        ["RetryInfo"],
    ),
    (errors.NotServingError("x"), Code.UNAVAILABLE, "NOT_SERVING", {}, ["RetryInfo"]),
    (BundleError("x"), Code.UNAVAILABLE, "NOT_SERVING", {}, ["RetryInfo"]),
    (errors.InferenceFailedError("x"), Code.INTERNAL, "INFERENCE_FAILED", {}, []),
    (
        errors.DeadlineTooShortError(0.02, 0.1),
        Code.DEADLINE_EXCEEDED,
        "DEADLINE_TOO_SHORT",
        {"remainingMilliseconds": "20", "predictedMilliseconds": "100"},
        [],
    ),
    (errors.UnsupportedError("x"), Code.UNIMPLEMENTED, "UNSUPPORTED", {}, []),
    (errors.ModelRefusedError("x"), Code.FAILED_PRECONDITION, "MODEL_REFUSED", {}, []),
    (errors.RepositoryUnusableError("x"), Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE", {}, []),
    (errors.UnauthenticatedError(), Code.UNAUTHENTICATED, "UNAUTHENTICATED", {}, []),
    (errors.NotAllowedError("admin"), Code.PERMISSION_DENIED, "PERMISSION_DENIED", {"group": "admin"}, []),
    (
        errors.CallerLimitError("x", 0.5, {"maxConcurrentCalls": "3"}),
        Code.RESOURCE_EXHAUSTED,
        "CALLER_LIMIT_EXCEEDED",
        {"maxConcurrentCalls": "3"},
        ["RetryInfo"],
    ),
    (errors.AnswerNotFoundError("x"), Code.NOT_FOUND, "ANSWER_NOT_FOUND", {}, ["ResourceInfo"]),
    (
        errors.ContributorLimitError(9, 60.0),
        Code.RESOURCE_EXHAUSTED,
        "CONTRIBUTOR_LIMIT_EXCEEDED",
        {"maxFeedbackPerHour": "9"},
        ["RetryInfo"],
    ),
    (errors.FeedbackStoreFullError("x"), Code.RESOURCE_EXHAUSTED, "FEEDBACK_STORE_FULL", {}, []),
]


@pytest.mark.parametrize(("error", "code", "reason", "metadata", "details"), ROWS)
def test_rows(unpacked, error, code, reason, metadata, details):
    status = unpacked(statuses.to_status(error, "id"))
    assert (status.code, status.reason, status.metadata) == (code, reason, metadata)
    assert list(status.others) == [*details, "RequestInfo"]
    assert f"ERROR_REASON_{reason}" in dict(ErrorReason.items())
    assert statuses.reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "level"),
    [(errors.InferenceFailedError("x"), "warning"), (errors.NotServingError("x"), "debug"), (QUEUE_FULL, "debug")],
)
def test_the_log_has_every_failure_by_the_callers_id(unpacked, error, level):
    with capture_logs() as events:
        status = unpacked(statuses.to_status(error, "the-id"))
    assert status.others["RequestInfo"].request_id == "the-id"
    (event,) = events
    assert (event["request_id"], event["log_level"], event["reason"]) == ("the-id", level, status.reason)


def test_what_is_refused_by_the_hundred_has_neither_id_nor_line(unpacked):
    with capture_logs() as events:
        assert "RequestInfo" not in unpacked(statuses.to_status(QUEUE_FULL, "")).others
    assert events == []


def test_the_table_names_every_exception():
    assert {type(row[0]) for row in ROWS} == set(statuses.TABLE)
    assert set(errors.ServiceError.__subclasses__()) <= set(statuses.TABLE)


def test_the_unforeseen_is_logged_in_full_and_told_in_two_words(unpacked):
    with capture_logs() as events:
        status = unpacked(statuses.to_status(RuntimeError("a secret path"), "the-id"))
    assert (status.code, status.reason, status.message) == (Code.INTERNAL, "INTERNAL", "internal error")
    assert status.others["RequestInfo"].request_id == "the-id"
    (event,) = events
    assert event["request_id"] == "the-id"
    assert "a secret path" in str(event["exc_info"])


class RecordingContext:
    async def abort(self, code, details, trailing_metadata):
        self.aborted = code, details, dict(trailing_metadata)


async def test_pushback_repeats_retry_info():
    context = RecordingContext()
    await statuses.abort(
        context,
        statuses.to_status(QUEUE_FULL, "id"),
    )
    code, _, trailers = context.aborted
    assert code is Code.RESOURCE_EXHAUSTED
    assert trailers["grpc-retry-pushback-ms"] == "250"
    assert "grpc-status-details-bin" in trailers


async def test_no_pushback_without_retry_info():
    context = RecordingContext()
    await statuses.abort(context, statuses.to_status(errors.InferenceFailedError("x"), "id"))
    assert "grpc-retry-pushback-ms" not in context.aborted[2]
