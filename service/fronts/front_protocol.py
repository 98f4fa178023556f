"""What the fronts of a server and the process that owns its workers say to each other. Frames as between it and its
workers; the inputs lie in each front's own arena.
"""

from typing import Any, Literal, NamedTuple

from taxon.service.access.entry import Entry
from taxon.service.models.repository import Known
from taxon.service.scheduling.arena import Input
from taxon.service.scheduling.batching import Outcome
from taxon.service.telemetry.tracing import Place

What = Literal["load", "unload", "statistics", "metrics", "recall", "heard"]
"""That one side asks of the other."""


class Listening(NamedTuple):
    """Front → owner: it speaks gRPC."""


class LetIn(NamedTuple):
    """Owner → front: what is asked of those who come, from now on. The first message: before it, nobody is let in."""

    entry: Entry


class Update(NamedTuple):
    """Owner → front: what is known of the models now, and whether the server serves."""

    known: Known
    serving: bool


class Submit(NamedTuple):
    """Front → owner: run this input."""

    number: int
    """Of the front's own."""
    model: int
    input: Input
    deadline: float
    priority: int
    decoding_bytes: int
    """See `Job`."""
    background: bool = False
    """The same."""
    span: Place | None = None
    """The same."""


class Leave(NamedTuple):
    """Front → owner: nobody waits for this input any more. It is still delivered."""

    number: int


class Delivered(NamedTuple):
    """Owner → front: what became of an input; its block is the front's again."""

    number: int
    outcome: Outcome


class Ask(NamedTuple):
    """Either way: do something, or tell something."""

    number: int
    """Of the asker's own."""
    what: What
    name: str = ""


class Told(NamedTuple):
    """The answer to an `Ask`."""

    number: int
    answer: Any
    """An exception if it failed."""


class Drain(NamedTuple):
    """Owner → front: finish what is on its way, then end."""
