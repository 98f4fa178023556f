"""Which pictures make room for others."""

import itertools
from collections.abc import Iterator

from taxon.feedback.index import Index
from taxon.feedback.picture_room import Named

SHARE = 0.01
"""Of all room, so much is made at once: looking for what may go takes a while."""
CANDIDATES = 1000
"""Looked at together."""


def making_room(index: Index, byte_count: int, max_bytes: int) -> list[Named] | None:
    """The oldest pictures of which nobody has said anything, as many as must go; None: there are not enough of them.

    Args:
        index: In the turn of a writer.
        byte_count: Of what comes.
        max_bytes: Of everything.
    """
    (total,) = index.first("SELECT byte_count FROM total") or (0,)
    missing = total + byte_count - max_bytes
    if missing <= 0:
        return []
    wanted, going = max(missing, int(SHARE * max_bytes)), []
    for name, extension, size in _silent(index):
        going.append((name, extension))
        wanted, missing = wanted - size, missing - size
        if wanted <= 0:
            break
    return None if missing > 0 else going


def _silent(index: Index) -> Iterator[tuple[str, str, int]]:
    """(name, extension, bytes) of pictures of which nobody has said anything, the oldest first."""
    query = (
        "SELECT id, extension, byte_count FROM pictures WHERE NOT EXISTS (SELECT 1 FROM said WHERE picture = id)"
        " ORDER BY kept_at, id LIMIT ? OFFSET ?"
    )
    for offset in itertools.count(0, CANDIDATES):
        some = [*index.execute(query, (CANDIDATES, offset))]
        yield from ((name, extension, size) for name, extension, size in some)
        if len(some) < CANDIDATES:
            return
