"""What an index tells of a store."""

import json
from collections.abc import Collection, Iterator, Sequence

from taxon.feedback.index import Index
from taxon.feedback.records import Answer, Kept
from taxon.feedback.sealing import Seal, SealError

AT_ONCE = 500
"""Names in one question."""


def answer(index: Index, request_id: str) -> Answer | None:
    """What a model answered, if its picture is kept."""
    if "\0" in request_id:  # of which PostgreSQL may not even be asked
        return None
    row = index.first(
        "SELECT request_id, model, version, variant, labels, score, unknown, familiarity FROM answers "
        "WHERE request_id = ?",
        (request_id,),
    )
    if row is None:
        return None
    found = Answer(*row)
    return found._replace(labels=tuple(json.loads(row[4])), unknown=bool(found.unknown))


def said(index: Index, seal: Seal | None) -> Iterator[Kept]:
    """All that people have said, in order of time."""
    rows = index.execute(
        "SELECT s.picture, p.extension, s.contributor, s.labels, s.proposed, s.consent, s.license, s.note,"
        " s.said_at, a.request_id, a.model, a.version, a.variant, a.labels, a.score, a.unknown, a.familiarity"
        " FROM said s JOIN pictures p ON p.id = s.picture JOIN answers a ON a.request_id = s.request_id"
        " ORDER BY s.said_at, s.picture, s.contributor"
    )
    for row in rows:
        kept = Kept(*row)
        yield kept._replace(
            labels=tuple(json.loads(row[3])),
            proposed=tuple(json.loads(row[4])),
            note=_opened(kept.note, seal),
            answered=tuple(json.loads(row[13])),
            unknown=bool(kept.unknown),
        )


def unsaid(index: Index) -> Iterator[tuple[str, str, Answer]]:
    """(picture, extension, answer) of what was captured and nobody has spoken of, the oldest first."""
    rows = index.execute(
        "SELECT p.id, p.extension, a.request_id, a.model, a.version, a.variant, a.labels, a.score, a.unknown,"
        " a.familiarity FROM pictures p JOIN answers a ON a.picture = p.id"
        " WHERE NOT EXISTS (SELECT 1 FROM said WHERE said.picture = p.id) ORDER BY a.answered_at, p.id"
    )
    for picture, extension, *found in rows:
        told = Answer(*found)
        yield picture, extension, told._replace(labels=tuple(json.loads(found[4])), unknown=bool(told.unknown))


def figures(index: Index) -> dict[str, int]:
    """How much there is, by name."""
    counts = {
        "pictures": "SELECT count(*) FROM pictures",
        "bytes": "SELECT byte_count FROM total",
        "said": "SELECT count(*) FROM said",
        "contributors": "SELECT count(DISTINCT contributor) FROM said",
    }
    return {name: int(found[0]) if (found := index.first(query)) else 0 for name, query in counts.items()}


def kept_of(index: Index, pictures: Sequence[str]) -> Collection[str]:
    """Those that have a row."""
    found: set[str] = set()
    for start in range(0, len(pictures), AT_ONCE):
        some = pictures[start : start + AT_ONCE]
        marks = ", ".join("?" * len(some))
        found |= {picture for (picture,) in index.execute(f"SELECT id FROM pictures WHERE id IN ({marks})", some)}  # noqa: S608 - marks only
    return found


def _opened(note: str, seal: Seal | None) -> str:
    if seal is None or not note:
        return note
    try:
        return seal.opened(bytes.fromhex(note), "note").decode()
    except (ValueError, SealError):
        return note  # of a time before there was a key
