"""What a page says when a call has failed: a sentence and what to do, never a trace."""

from typing import NamedTuple

from taxon.errors import (
    AccessError,
    AnswerNotFoundError,
    DeadlineError,
    InvalidInputError,
    MessageTooLargeError,
    ModelNotFoundError,
    OverloadedError,
    TaxonError,
    UnavailableError,
)


class Fault(NamedTuple):
    """For people."""

    status: int
    """Of HTTP."""
    heading: str
    advice: str
    detail: str = ""
    """As the server says it."""
    passes: bool = False
    """Whether the same page may work soon."""


KINDS: tuple[tuple[type[TaxonError], Fault], ...] = (
    (MessageTooLargeError, Fault(413, "That is too large.", "Take a smaller picture.")),
    (InvalidInputError, Fault(400, "The server cannot take that.", "")),
    (AnswerNotFoundError, Fault(404, "The server no longer remembers that answer.", "Send the picture once more.")),
    (ModelNotFoundError, Fault(404, "The server has no such model or version.", "It may have been replaced.")),
    (AccessError, Fault(403, "The server does not let this console do that.", "Give it another key: --key-file.")),
    (OverloadedError, Fault(503, "The server has too much to do.", "Try again in a while.", passes=True)),
    (UnavailableError, Fault(503, "The server does not answer.", "It may be starting, or gone.", passes=True)),
    (DeadlineError, Fault(504, "The server did not answer in time.", "Try again in a while.", passes=True)),
)
UNFORESEEN = Fault(502, "The server has failed.", "Its log says more.")
NOT_OFFERED = Fault(501, "The server does not offer that.", "Its operator has to switch it on.")


def of(error: TaxonError) -> Fault:
    """What to say of a failed call."""
    offered = error.code.name != "UNIMPLEMENTED"
    found = next((fault for kind, fault in KINDS if isinstance(error, kind)), UNFORESEEN if offered else NOT_OFFERED)
    reported = f" (request {error.request_id})" if error.request_id else ""
    return found._replace(detail=f"{error.message}{reported}")
