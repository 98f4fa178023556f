"""Which version answers a call that names none: the default, or for a share of the calls the canary.

Every front routes by itself and tells what became of the calls; whether the canary goes on is decided in one place, see
`rollback`.
"""

import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal, NamedTuple

from taxon.bundle.picture_limits import PictureError
from taxon.bundle.traffic import STABLE
from taxon.service.errors import (
    FieldInvalidError,
    ModelNotFoundError,
    NotFiniteError,
    NotServingError,
    QueueFullError,
    UnsupportedError,
    WorkerEndedError,
)
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.models.trials import stands_in

Part = Literal["named", "default", "canary"]
"""What a version answers a call as: because the call names it, by default, or as the canary."""
Outcome = Literal["answer", "error", "nan", "fatal", "refused", "caller", "cancelled"]
"""What became of a call: `fatal` ended its worker, `refused` found the server without room or workers, `caller` was its
caller's fault.
"""
MOST_DEATHS = 3
"""A version on trial that has ended so many workers is on trial no more."""
MAX_KEY_BYTES = 256
"""Of a caller's key."""
MOST_OWED = 1000
"""Where nearly all calls go to the canary, the default cannot make up for them."""
NO_ROOM = (QueueFullError, NotServingError)
CALLERS_FAULT = (PictureError, FieldInvalidError, ModelNotFoundError, UnsupportedError)


class Seen(NamedTuple):
    """What became of one call of a model that has a canary."""

    name: str
    number: int
    """Of the version that it went to."""
    outcome: Outcome
    seconds: float
    """From its arrival to its answer."""


class Routed(NamedTuple):
    """A call and the version that it goes to."""

    model: Model
    part: Part
    watched: bool = False
    """Whether its outcome says something about a canary."""


class Routing:
    """Of one front. Lives on the event loop."""

    def __init__(
        self, repository: Repository, report: Callable[[Seen], None], draw: Callable[[], float] = random.random
    ) -> None:
        """Routes nothing yet.

        Args:
            repository: What is served.
            report: Told what becomes of the canary's calls, and of as many of the default's.
            draw: Gives numbers in `[0, 1)` for calls that have no key.
        """
        self._repository = repository
        self._report = report
        self._draw = draw
        self._owed: dict[str, int] = {}

    def route(self, found: Model, version: str, key: str, *, tensors: bool = False) -> Routed:
        """Chooses who answers.

        Args:
            found: What the call names; the default version if it names none.
            version: As the call names it.
            key: Calls of the same key go to the same version, as long as nothing else is declared; empty: none.
            tensors: See `trials.stands_in`.
        """
        if not names_none(version):
            return Routed(found, "named")
        trial = self._repository.known.trials.get((found.name, "canary"))
        if trial is None or trial.state != "RUNNING":
            return Routed(found, "default")
        at = place(f"{trial.name}/{trial.version}/{key}") if key else self._draw()
        canary = self._repository.known.models[found.name][trial.version]
        if at >= trial.share or not stands_in(canary, found, tensors=tensors):
            return Routed(found, "default", watched=True)
        return Routed(canary, "canary", watched=True)

    def ended(self, routed: Routed, outcome: Outcome, seconds: float) -> None:
        """Tells what became of a call, unless it says nothing of the version."""
        if not routed.watched or outcome in ("refused", "caller", "cancelled"):
            return
        # Of the default as many calls as of the canary, and between them: so both are of the same time.
        name, owed = routed.model.name, self._owed.get(routed.model.name, 0)
        if routed.part == "canary":
            self._owed[name] = min(owed + 1, MOST_OWED)
        elif owed:
            self._owed[name] = owed - 1
        else:
            return
        self._report(Seen(name, routed.model.number, outcome, seconds))


def names_none(version: str) -> bool:
    """Whether a call that names a version so takes what answers by default."""
    return version in ("", STABLE)


def outcome_of(error: BaseException | None, *, late: bool = False) -> Outcome:
    """What a call's end says of the version that it went to.

    Args:
        error: What it ended with; None: an answer.
        late: Whether its deadline had passed: who leaves then was not answered in time.
    """
    if error is None:
        return "answer"
    if not isinstance(error, Exception):
        return "error" if late else "cancelled"
    if isinstance(error, CALLERS_FAULT):
        return "caller"
    if isinstance(error, NO_ROOM):
        return "refused"
    if isinstance(error, WorkerEndedError):
        return "fatal"
    return "nan" if isinstance(error, NotFiniteError) else "error"


def place(key: str) -> float:
    """A number in `[0, 1)`, evenly spread over keys and always the same for one."""
    return int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=6).digest()) / 2**48
