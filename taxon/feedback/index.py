"""What a store asks of its index: rows in tables that any number of processes may write, one at a time.

The statements are the same for every kind of it, with `?` for parameters; what differs is how one waits for one's turn,
what an error means, and how deleted rows leave the disk.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

BUSY_S = 30.0
"""How long a writer waits for its turn."""
Row = tuple[Any, ...]


class Index(Protocol):
    """Seen from one thread. Every method raises `StoreError` if the index cannot be used, and `StoreFullError` if its
    disk is full.
    """

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """What a query finds; what changes something is called inside `writing`, and takes effect at once."""
        ...

    def first(self, query: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row that a query finds."""
        ...

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Changes something for each."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Waits for this writer's turn; what happens inside is kept as a whole or not at all, and no other writer, of
        any process, is at work meanwhile. At its end the disk holds it.
        """
        ...

    def check_key(self, digest: str) -> None:
        """Refuses another key of pseudonyms than the one that the rows were made with, inside `writing`."""
        ...

    def tidy(self) -> None:
        """After many rows have gone."""
        ...

    def overwrite_deleted(self) -> None:
        """Leaves nothing of deleted rows in the index's own files."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...
