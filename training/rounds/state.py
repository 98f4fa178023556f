"""How far rounds have come: a file in the folder of each, and one lock for all of a folder."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxon.bundle import atomic_files
from taxon.training.errors import TrainingError

STATE, LOCK = "round.json", ".lock"


class AnotherRoundError(TrainingError):
    """Another process is at it."""


@dataclass
class State:
    """How far a round has come: `round.json`."""

    id: str
    number: int
    name: str
    started: str
    production: int
    """Version that is served, and the run behind it."""
    production_run: str
    review: dict[str, int] | None = None
    reliability: dict[str, float] | None = None
    data_version: int | None = None
    data_digest: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    new_labels: list[str] = field(default_factory=list)
    run_id: str = ""
    verdict: dict[str, Any] | None = None
    outcome: str = ""
    """`promoted`, `refused`, `nothing`, `abandoned`; empty while it goes on."""
    reasons: list[str] = field(default_factory=list)
    version: int | None = None
    """Published."""
    finished: str = ""


@contextlib.contextmanager
def alone(rounds: Path) -> Iterator[None]:
    """No other process holds a round of this folder meanwhile.

    Raises:
        AnotherRoundError: One does.
        OSError: The folder cannot be written.
    """
    atomic_files.make_folder(rounds)
    with (rounds / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnotherRoundError(f"another round is under way in {rounds}") from error
        yield


def unfinished(rounds: Path, name: str) -> State | None:
    """The round of a model that is under way or was interrupted."""
    return next((state for state in held(rounds) if not state.outcome and state.name == name), None)


def held(rounds: Path) -> list[State]:
    """All rounds of a folder, oldest first.

    Raises:
        TrainingError: One is damaged.
    """
    found = []
    for entry in rounds.iterdir() if rounds.is_dir() else ():
        if entry.name.isdecimal() and (entry / STATE).is_file():
            try:
                found.append(State(**json.loads((entry / STATE).read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise TrainingError(f"{entry / STATE} is damaged: {error}") from error
    return sorted(found, key=lambda state: state.number)


def abandon(rounds: Path, name: str) -> int | None:
    """Gives up the round of a model that was interrupted; its number, or None if there is none."""
    state = unfinished(rounds, name)
    if state is None:
        return None
    state.outcome, state.finished = "abandoned", now()
    keep(rounds / str(state.number), state)
    return state.number


def keep(folder: Path, state: State) -> None:
    """Writes how far the round in a folder has come, whole or not at all."""
    atomic_files.write(folder / STATE, json.dumps(asdict(state), ensure_ascii=False, indent=1, default=str))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
