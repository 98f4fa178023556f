"""What reviewers decide of what people say: a log in the index, of which the newest that is not undone counts."""

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

Verdict = Literal["accept", "correct", "reject"]
"""What people say is right; something else is; the picture is not to be learnt from."""
SCHEMA = """
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE,
    verdict TEXT NOT NULL, labels TEXT NOT NULL, reviewer TEXT NOT NULL, why TEXT NOT NULL, decided_at REAL NOT NULL,
    undone_by TEXT NOT NULL DEFAULT '', undone_at REAL
) STRICT;
CREATE INDEX decisions_by_picture ON decisions (picture);
CREATE TABLE suspicions (
    picture TEXT PRIMARY KEY REFERENCES pictures ON DELETE CASCADE, label TEXT NOT NULL, suspicion REAL NOT NULL,
    likely TEXT NOT NULL, judged_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
IN_FORCE = "number IN (SELECT max(number) FROM decisions WHERE undone_at IS NULL GROUP BY picture)"


class Decision(NamedTuple):
    """What was decided of one picture."""

    picture: str
    verdict: Verdict
    labels: tuple[str, ...]
    """That are right; empty: none of the model's classes is, or the picture was rejected."""
    reviewer: str
    """Who decided, as they call themselves; `rule` if nobody did."""
    why: str
    decided_at: float = 0.0
    """Seconds since 1970."""


class Suspicion(NamedTuple):
    """How likely it is that what people say of a picture is wrong."""

    picture: str
    label: str
    """That is suspected."""
    suspicion: float
    """Probability, 0 to 1."""
    likely: str
    """The label that is the likeliest instead, or the same."""


def add(index: sqlite3.Connection, decided: Iterable[Decision], now: float) -> None:
    """Records what was decided, within a transaction of the caller's."""
    index.executemany(
        "INSERT INTO decisions (picture, verdict, labels, reviewer, why, decided_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (one.picture, one.verdict, json.dumps(one.labels, ensure_ascii=False), one.reviewer, one.why, now)
            for one in decided
        ),
    )


def undo(
    index: sqlite3.Connection, pictures: Collection[str], decided_by: str, reviewer: str, now: float
) -> list[Decision]:
    """Takes back the decisions in force: of these pictures, or of all where there are none; of one reviewer, or of any
    if that is empty. What was decided before them counts again.
    """
    chosen = [
        one
        for one in in_force(index).values()
        if (not pictures or one.picture in pictures) and decided_by in ("", one.reviewer)
    ]
    index.executemany(
        "UPDATE decisions SET undone_by = ?, undone_at = ? WHERE number ="
        " (SELECT max(number) FROM decisions WHERE picture = ? AND undone_at IS NULL)",
        ((reviewer, now, one.picture) for one in chosen),
    )
    return chosen


def in_force(index: sqlite3.Connection) -> dict[str, Decision]:
    """By picture."""
    rows = index.execute(
        f"SELECT picture, verdict, labels, reviewer, why, decided_at FROM decisions WHERE {IN_FORCE}"  # noqa: S608 - ours
    )
    return {row[0]: Decision(*row)._replace(labels=tuple(json.loads(row[2]))) for row in rows}


def suspect(index: sqlite3.Connection, suspicions: Iterable[Suspicion], now: float) -> None:
    """Replaces what was thought of these pictures before."""
    rows = ((*one, now) for one in suspicions)
    index.executemany("INSERT OR REPLACE INTO suspicions VALUES (?, ?, ?, ?, ?)", rows)


def suspicions(index: sqlite3.Connection) -> dict[str, Suspicion]:
    """By picture."""
    rows = index.execute("SELECT picture, label, suspicion, likely FROM suspicions")
    return {row[0]: Suspicion(*row) for row in rows}


def withdraw(index: sqlite3.Connection, pictures: Iterable[str]) -> None:
    """After a contributor has gone: what was accepted of pictures of which nobody says that any more, and what was
    suspected of them, is gone too.
    """
    for picture in pictures:
        index.execute(
            "DELETE FROM decisions WHERE picture = ? AND verdict = 'accept' AND labels NOT IN"
            " (SELECT labels FROM said WHERE picture = ?)",
            (picture, picture),
        )
        index.execute("DELETE FROM suspicions WHERE picture = ?", (picture,))
