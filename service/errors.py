"""Why a call was not answered: one exception class per reason, each holding the facts.

Knows nothing of codes or of the wire: `statuses` turns these into `google.rpc.Status`. The errors of pictures
and bundles are their own packages' (`taxon.bundle.pixels`, `taxon.bundle.manifest`).

ServiceError
├── FieldInvalidError       a field of the request is missing or out of range
├── ModelNotFoundError      no such model or version is loaded
├── QueueFullError          what is in the server already would make the answer too late, or leaves it no room
├── NotServingError         starting, stopping, or the worker that held the call died
├── InferenceFailedError    the model failed on this input
│   ├── NotFiniteError      its scores are not numbers
│   └── WorkerEndedError    the worker that ran it ended over it
├── DeadlineTooShortError   the answer would come too late
│   └── MessageLateError    the request did not come
├── UnsupportedError        a part of a protocol that this server does not have, or not switched on
├── ModelRefusedError       a model that was to be loaded is not fit to be served
├── RepositoryUnusableError the folder of models cannot be changed
├── AnswerNotFoundError     feedback names an answer that nobody remembers
├── FeedbackStoreFullError  there is no room for feedback
├── UnauthenticatedError    nobody knows who calls
├── NotAllowedError         it is known who calls, and that caller may not
└── CallerLimitError        the caller has as much as it may have already
    └── ContributorLimitError  so has the contributor of feedback
StartError                  the process cannot start; never reaches a caller
"""

from collections.abc import Mapping

MAX_SHOWN = 100


def cut(text: str) -> str:
    """A caller's text, short enough to be told back: an error travels in headers, whose size is limited."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


class ServiceError(Exception):
    """Anything that a caller is told about."""


class FieldInvalidError(ServiceError):
    """A field of the request is missing or out of range."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class ModelNotFoundError(ServiceError):
    """No such model or version is loaded."""

    def __init__(self, name: str, version: str, message: str = "") -> None:
        self.name = cut(name)
        self.version = cut(version)
        what = f"model {self.name!r}" + (f" version {self.version!r}" if version else "")
        super().__init__(message or f"{what} is not loaded; ListModels says which are")


class QueueFullError(ServiceError):
    """What is in the server already leaves no room for another input, or would make its answer too late."""

    def __init__(self, reason: str, retry_s: float, *, queued_count: int, max_queued_count: int) -> None:
        super().__init__(f"{reason}; wait, then retry")
        self.retry_s = retry_s
        self.queued_count = queued_count
        """Inputs in the server now."""
        self.max_queued_count = max_queued_count
        """The most that are let in at once."""


class NotServingError(ServiceError):
    """This server cannot answer now; another replica may."""

    retry_s = 1.0


class InferenceFailedError(ServiceError):
    """The model failed on this input. The cause goes to the log, not to the caller."""


class NotFiniteError(InferenceFailedError):
    """The model's scores for this input are not numbers."""


class WorkerEndedError(InferenceFailedError):
    """The worker that ran this input ended over it."""


class DeadlineTooShortError(ServiceError):
    """Less of the deadline is left than the answer is predicted to take."""

    def __init__(self, remaining_s: float, predicted_s: float) -> None:
        super().__init__(
            f"{max(remaining_s, 0) * 1e3:.0f} ms of the deadline were left, the answer takes about "
            f"{predicted_s * 1e3:.0f} ms; allow more time, within the server's --max-call-seconds"
        )
        self.remaining_s = max(remaining_s, 0.0)
        self.predicted_s = predicted_s


class MessageLateError(DeadlineTooShortError):
    """A call was opened, and its message has not come."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(0.0, waited_s)
        self.args = (f"the message has not come within {waited_s:.2f} s: send it at once, on a faster way or smaller",)


class UnsupportedError(ServiceError):
    """A part of a protocol that this server does not have, or that is not switched on."""


class ModelRefusedError(ServiceError):
    """A model that was to be loaded is not fit to be served. The message says why."""


class RepositoryUnusableError(ServiceError):
    """The folder of models cannot be changed, or what is declared in it cannot be read. The message says why."""


class AnswerNotFoundError(ServiceError):
    """Feedback names an answer that nobody remembers."""

    def __init__(self, request_id: str) -> None:
        super().__init__("this answer is not remembered, or not here: send the picture instead of its request_id")
        self.request_id = cut(request_id)


class FeedbackStoreFullError(ServiceError):
    """There is no room for feedback. Nothing of it was kept."""


class UnauthenticatedError(ServiceError):
    """Nobody knows who calls: there is no key, or it is wrong, revoked or expired. Which of these is not told."""

    def __init__(self) -> None:
        super().__init__("send a valid key as `authorization: Bearer KEY`, or use a certificate that is known here")


class NotAllowedError(ServiceError):
    """It is known who calls, and that caller may not."""

    def __init__(self, group: str) -> None:
        super().__init__(f"this caller may not call methods of the group {group!r}")
        self.group = group


class CallerLimitError(ServiceError):
    """The caller has as many calls under way as it may have, or has made as many as it may make."""

    def __init__(self, reason: str, retry_s: float, facts: Mapping[str, str]) -> None:
        super().__init__(f"{reason}; wait, then retry")
        self.retry_s = retry_s
        self.facts = facts
        """The limit, by the name that callers are told."""


class ContributorLimitError(CallerLimitError):
    """A contributor has sent as much feedback in this hour as one may."""

    def __init__(self, max_count: int, retry_s: float) -> None:
        super().__init__(
            f"this contributor has sent {max_count} messages of feedback in this hour",
            retry_s,
            {"maxFeedbackPerHour": str(max_count)},
        )


class StartError(Exception):
    """The process cannot start as it was told to. The message says why and what to do."""
