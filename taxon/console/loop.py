"""Where the loop stands: what people have said and what waits, what the last rounds came to and why, what is next."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from taxon.console import faults, releases, round_folders
from taxon.console.rendering import page, written_page
from taxon.console.round_folders import Round
from taxon.errors import TaxonError
from taxon.feedback import review
from taxon.feedback.store import Store

SHOWN = 20
"""Rounds of each model."""


@dataclass(frozen=True, slots=True)
class Said:
    """What people have said of one model's answers, in pictures."""

    pictures: int
    waiting: int
    """For a decision."""
    decided: int
    fresh: int
    """Decided since the last round that has learnt."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to do."""

    why: str
    command: str


@dataclass(frozen=True, slots=True)
class Standing:
    """One model."""

    name: str
    served: tuple[str, ...]
    """Versions that the server has loaded."""
    default: str
    """The one of them that answers by default; empty if the server does not say."""
    roles: tuple[tuple[str, int], ...]
    """Labels and trials of published versions, such as `stable`, `candidate` and `canary 0.05`."""
    rounds: tuple[Round, ...]
    """The newest first."""
    said: Said | None
    """None: this console shows no feedback."""
    steps: tuple[Step, ...]
    """The next one first; none: nothing is to do."""


async def loop(request: Request) -> Response:
    """Every model that is served or published, or that a round was held for."""
    console, store = request.app.state.console, request.app.state.store
    fault, served = None, []
    try:
        served = [*await request.app.state.upstream.models()]
    except TaxonError as error:
        fault = faults.of(error)
    try:
        rounds = round_folders.found(console.rounds)
        published = releases.found(console.models) if console.models else []
    except OSError as error:
        raise HTTPException(500, f"{error.filename or console.rounds} cannot be read: {error.strerror}.") from error
    standings = []
    for name in sorted({one.name for one in (*served, *published, *rounds)} - {""}):
        loaded = [one for one in served if one.name == name]
        own = [one for one in rounds if one.name == name]
        said = _said(store, name, own) if store else None
        standings.append(
            Standing(
                name,
                tuple(one.version for one in loaded),
                next((one.version for one in loaded if one.default_version), ""),
                tuple((role, one.version) for one in published if one.name == name for role in one.roles),
                tuple(own[:SHOWN]),
                said,
                tuple(_steps(name, own, said, _places(request))),
            )
        )
    return page(
        request,
        "loop.html",
        fault.status if fault else 200,
        fault=fault,
        standings=standings,
        damaged=[one for one in rounds if one.fault],
    )


async def report(request: Request) -> Response:
    """The page that a round has written, as it is."""
    root: Path = request.app.state.console.rounds
    return written_page(root / str(request.path_params["number"]) / round_folders.REPORT, "This round has no report.")


def _said(store: Store, name: str, rounds: Sequence[Round]) -> Said:
    since = max((one.started_at for one in rounds if one.has_learnt), default=0.0)
    counts = Counter[str]()
    for case in review.cases(store, pending=False, model=name):
        counts["pictures"] += 1
        if case.is_pending or case.decision is None:
            counts["waiting"] += 1
        else:
            counts["decided"] += 1
            counts["fresh"] += case.decision.decided_at > since
    return Said(counts["pictures"], counts["waiting"], counts["decided"], counts["fresh"])


def _steps(name: str, rounds: Sequence[Round], said: Said | None, places: dict[str, str]) -> list[Step]:
    """What is to do for a model, the next thing first.

    Args:
        name: Of the model.
        rounds: The newest first.
        said: Of it.
        places: Folders by option of `taxon round`.
    """
    options = " ".join(f"--{option} {place}" for option, place in places.items())
    hold = f"taxon round {shlex.quote(name)} {options}"
    if rounds and not rounds[0].outcome:
        return [Step(f"Round {rounds[0].number} is under way; if it was interrupted, the same command goes on.", hold)]
    steps = []
    if said and said.waiting:
        command = f"taxon feedback review --store {places['store']} --model {shlex.quote(name)}"
        steps.append(Step(f"{_pictures(said.waiting, 'waits', 'wait')} for a decision.", command))
    if said and said.fresh:
        what = _pictures(said.fresh, "was decided of", "were decided of")
        steps.append(Step(f"{what} that no round has learnt from.", hold))
    return steps


def _pictures(count: int, one: str, more: str) -> str:
    return f"{count:,} {'picture ' + one if count == 1 else 'pictures ' + more}"


def _places(request: Request) -> dict[str, str]:
    """As they are written in a command; in capitals what this console was not told, or does not tell."""
    console = request.app.state.console
    feedback = console.feedback if isinstance(console.feedback, Path) else None  # a URL names a host and an account
    found = {"models": console.models, "store": feedback, "rounds": console.rounds}
    found |= {"runs": console.runs} if console.runs else {}
    return {option: shlex.quote(str(place)) if place else option.upper() for option, place in found.items()}
